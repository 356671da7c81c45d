"""A child's own side: messages from its parent, and its end with it.

It ends when its lifeline does: by a watching thread, and on Linux by the kernel's parent-death
signal even where C code holds the interpreter.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from yelpaze.process.forks import restore_in_forks
from yelpaze.process.frames import Decoder, encode
from yelpaze.process.streams import as_displays

_READ = 1 << 18
_PR_SET_PDEATHSIG = 1
_PARENTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        as_displays("stdout", "stderr")
        _leave_signals_to_parent()
        _die_with_parent(lifeline_fd)
        self.socket = socket.socket(fileno=channel_fd)
        self._decoder = Decoder()
        self._sending = threading.Lock()

    def send(self, value: Any) -> None:
        """Send a value, from any thread. Raises what pickle raises."""
        frame = encode(value)
        with self._sending:  # a frame may need several writes
            self.socket.sendall(frame)

    def messages(self) -> Iterator[Any]:
        """What it sends, until it ends. Blocks."""
        with contextlib.suppress(ConnectionError):  # a parent that was killed leaves no orderly end
            while data := self.socket.recv(_READ):
                yield from self._decoder.feed(data)

    def listen(
        self, messages: Iterator[Any], *, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> None:
        """Call these in the running loop for each message, and for the end of them."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                for message in messages:
                    loop.call_soon_threadsafe(on_message, message)
                loop.call_soon_threadsafe(on_end)

        threading.Thread(target=read, daemon=True).start()

    def on_terminate(self, callback: Callable[[], None]) -> None:
        """Call this in the running loop at SIGTERM, which is ignored otherwise."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, callback)


def _leave_signals_to_parent() -> None:
    """Ctrl-C and the signals of a service manager may go to the whole group; the parent handles them.

    They are handled by a function that does nothing, not ignored: an ignored signal stays ignored in the
    programs that user code starts (execve(2)), which could then not be terminated.
    """
    restore_in_forks(_PARENTS)
    for number in _PARENTS:
        signal.signal(number, lambda _number, _frame: None)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _die_with_parent(lifeline_fd: int) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline_fd, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  only here

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
