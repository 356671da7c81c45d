"""Where a streamed body goes: a file that is whole or absent, or a callable.

Only the body of a good answer is streamed; that of a redirect or an error status is
collected as usual, so that it never lands in the file.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from yelpaze.http.handle import Handle

Target = str | os.PathLike[str] | Callable[[bytes], object]
_FIRST_ERROR, _FIRST_REDIRECT = 400, 300


class Spool:
    """One call's body target over all its attempts."""

    def __init__(self, target: Target) -> None:
        self._write: Callable[[bytes], object] | None = target if callable(target) else None
        self._path = None if callable(target) else Path(target)
        self._part: BinaryIO | None = None
        self.delivered = 0
        self.error: BaseException | None = None

    @property
    def rewindable(self) -> bool:
        """Whether another attempt may start anew: a callable can't take back what it got."""
        return self._write is None or self.delivered == 0

    def attach(self, handle: Handle) -> None:
        """Stream this attempt's body."""
        self._drop_part()
        self.delivered = 0
        good: bool | None = None

        def write(data: bytes) -> None:
            nonlocal good
            if good is None:
                good = _is_good(handle.head)
            if good:
                self._deliver(data)
            else:
                handle.body.extend(data)

        handle.write_to(write)

    def finish(self, *, good: bool) -> None:
        """The call is over: put the file in place, or leave nothing."""
        if self._path is None:
            return
        if not good:
            self._drop_part()
            return
        part = self._opened()
        part.flush()
        part.close()
        self._part = None
        self._part_path().replace(self._path)

    def _deliver(self, data: bytes) -> None:
        self.delivered += len(data)
        if self._write is not None:
            self._write(data)
        else:
            self._opened().write(data)

    def _opened(self) -> BinaryIO:
        if self._part is None:
            self._part = self._part_path().open("wb")
        return self._part

    def _part_path(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f".{self._path.name}.{os.getpid()}-{id(self):x}.part")

    def _drop_part(self) -> None:
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._part.close()
            self._part_path().unlink(missing_ok=True)
            self._part = None


def _is_good(head: bytearray) -> bool:
    start = max(head.rfind(b"\nHTTP/") + 1, 0)  # of the last answer: interim ones come before it
    line = bytes(head[start:].split(b"\r\n", 1)[0])
    parts = line.split(b" ", 2)
    status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    return not status >= _FIRST_REDIRECT and status < _FIRST_ERROR
