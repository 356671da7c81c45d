"""A child process as its parent sees it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from typing import Any, cast

from yelpaze.process.frames import Decoder
from yelpaze.process.memory import peak_of, peak_rss_mb

_BOOT = (
    "import sys, json; from importlib import import_module; sys.path[:] = json.loads(sys.argv[1]); "
    "module, _, name = sys.argv[2].partition(':'); "
    "getattr(import_module(module), name)(int(sys.argv[3]), int(sys.argv[4]))"
)
_PIECE = 256 << 10
_STDERR = 2


class Child(asyncio.Protocol):
    """A fresh interpreter that runs `main` ("module:function") with a channel and a lifeline.

    For those who inherit: `received` gets the messages that have come, `lost` the channel's end.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._unsent: deque[memoryview] = deque()
        self._is_clogged = False
        self._transport: asyncio.Transport | None = None
        self._lifeline = -1
        self.process: subprocess.Popen[bytes] | None = None
        self.peak = 0.0

    def received(self, messages: list[Any]) -> None:
        """Messages from the child, in order."""

    def lost(self) -> None:
        """The channel has ended, and so has the child, or it will soon."""

    async def start(self, main: str, first: bytes, *, keep_stdout: bool = False) -> None:
        """Start it and send it the first frame. Raises OSError."""
        ours, theirs = socket.socketpair()
        read_end, self._lifeline = os.pipe()
        fds = (theirs.fileno(), read_end)
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), main, *map(str, fds)]
        # Ctrl-C is ours to handle, from the first moment on: a mask is inherited. The child then ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603  returns at once; our own interpreter
                command,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=None if keep_stdout else _STDERR,
            )
        except OSError:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            os.close(read_end)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        self.send(first)

    @property
    def pid(self) -> int:
        """Its process id; 0 before it starts."""
        return self.process.pid if self.process is not None else 0

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self._unsent.append(memoryview(frame))
        self._send()

    def _send(self) -> None:
        """Write in pieces: a transport takes time in the square of what it must keep (until Python 3.12)."""
        while self._unsent and not self._is_clogged and self._transport is not None:
            data = self._unsent.popleft()
            if len(data) > _PIECE:
                self._unsent.appendleft(data[_PIECE:])
            self._transport.write(data[:_PIECE])

    # ── asyncio's side ──────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transports inherit from asyncio's (uvloop's don't).
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._is_clogged = True

    def resume_writing(self) -> None:
        self._is_clogged = False
        self._send()

    def data_received(self, data: bytes) -> None:
        self.received(list(self._decoder.feed(data)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost()

    # ── its end ─────────────────────────────────────────────────────────────────

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it is still there."""
        # Not Popen.kill(), which would reap a process that has ended, its usage lost.
        if self.process is not None and self.process.returncode is None:
            self.peak = peak_of(self.process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, how)

    def ended(self) -> bool:
        """Whether the process is gone; the socket may stay open in a child that it forked."""
        if self.process is None:
            return False
        try:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.process.pid, flags) is not None
        except ChildProcessError:
            return True

    def abort(self) -> None:
        """Give the channel up; `lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Let it end after what it has been given."""
        if self._transport is not None:
            self._transport.close()

    def reap(self) -> tuple[str, float]:
        """Wait for the end (it is near); say how it ended, and its peak memory in MB."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self.process is None or self.process.returncode is not None:
            return "", 0.0
        _, status, usage = os.wait4(self.process.pid, 0)
        code = self.process.returncode = os.waitstatus_to_exitcode(status)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return how, self.peak or peak_rss_mb(usage)
