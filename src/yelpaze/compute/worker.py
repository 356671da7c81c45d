"""A worker process: read a batch, run its calls one after the other, answer each at once.

It ends when its socket does, so it never outlives its parent: at end of file between two
calls; by a watching thread in the middle of one; and on Linux by the kernel's parent-death
signal even where C code holds the interpreter.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import threading
from typing import Any

from yelpaze.compute.frames import Decoder, encode
from yelpaze.compute.handler import call, fault_of, load
from yelpaze.compute.protocol import Fault, Target

_READ = 1 << 18
_PR_SET_PDEATHSIG = 1


def main(channel_fd: int, lifeline_fd: int) -> None:
    """Run until the parent closes the channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent(lifeline_fd)
    channel = socket.socket(fileno=channel_fd)
    decoder = Decoder()
    messages = _messages(channel, decoder)
    target: Target | None = next(messages, None)
    if target is None:  # stopped before there was any work
        return
    try:
        handler = load(target)
    except BaseException as error:  # noqa: BLE001  reported, then gone
        channel.sendall(encode(fault_of(error)))
        return
    channel.sendall(encode("ready"))
    for batch in messages:
        for number, function, payload in batch:
            channel.sendall(_answer(number, *call(handler, function, payload)))


def _messages(channel: socket.socket, decoder: Decoder) -> Any:
    with contextlib.suppress(ConnectionError):  # a parent that was killed leaves no orderly end
        while data := channel.recv(_READ):
            yield from decoder.feed(data)


def _answer(number: int, value: Any, fault: Fault | None) -> bytes:
    try:
        return encode((number, value, fault))
    except Exception as error:  # noqa: BLE001  pickling runs user code
        message = f"the value cannot be sent between processes: {type(error).__name__}: {error}"
        return encode((number, None, Fault("result", message)))


def _die_with_parent(lifeline_fd: int) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline_fd, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  only here

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def peak_rss_mb(usage: resource.struct_rusage) -> float:
    """ru_maxrss in MB: kilobytes on Linux, bytes on macOS (getrusage(2)).

    On Linux that of a child includes what its parent had when the child began: see `peak_of`.
    """
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)


def peak_of(pid: int | str) -> float:
    """The most memory that a process which still runs has had, in MB; 0 where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM:")), 0.0)
    except OSError:
        return 0.0
