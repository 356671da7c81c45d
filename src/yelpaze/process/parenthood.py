"""A child's own side: messages from its parent, and its end with it.

It ends when its lifeline does: by a watching thread, and on Linux by the kernel's parent-death
signal even where C code holds the interpreter.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from yelpaze.process.frames import Decoder, encode

_READ = 1 << 18
_PR_SET_PDEATHSIG = 1
_loading = False


def is_loading() -> bool:
    """Whether this is a child that is just importing its parent's program."""
    return _loading


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Inside, the parent's program is imported."""
    global _loading  # noqa: PLW0603  modules are imported once a process
    _loading = True
    try:
        yield
    finally:
        _loading = False


class Parent:
    """The parent, as its child sees it."""

    def __init__(self, channel_fd: int, lifeline_fd: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        _die_with_parent(lifeline_fd)
        self.socket = socket.socket(fileno=channel_fd)
        self._decoder = Decoder()

    def send(self, value: Any) -> None:
        """Send a value. Raises what pickle raises."""
        self.socket.sendall(encode(value))

    def messages(self) -> Iterator[Any]:
        """What it sends, until it ends. Blocks."""
        with contextlib.suppress(ConnectionError):  # a parent that was killed leaves no orderly end
            while data := self.socket.recv(_READ):
                yield from self._decoder.feed(data)


def _die_with_parent(lifeline_fd: int) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline_fd, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  only here

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
