"""A file of lines that is only appended to, and can be cut back."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_TAIL = 4096


class Extent(msgspec.Struct, frozen=True):
    """How far a file was committed: its length, and a hash of its last 4 KiB."""

    length: int = 0
    tail: str = ""


class LineFile:
    """Lines are taken by `add`; what `take` gives back writes and syncs them, in a thread.

    The file is opened when it is first written to, so one that stays empty is never made.
    Each write adds whole lines: if the disk is full, the file is cut back to what it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = 0
        self._lines: list[bytes] = []
        self._file: BinaryIO | None = None
        self._is_plain = True
        self._length = 0
        self._tail = b""

    def add(self, line: bytes) -> None:
        """Take a line; it ends in a line feed."""
        self._lines.append(line)
        self.waiting += len(line)

    def take(self) -> Callable[[], Extent]:
        """All lines taken until now: to be written and synced, and how long the file is then."""
        lines, self._lines = self._lines, []
        self.waiting = 0
        return lambda: self._append(b"".join(lines))

    def _append(self, data: bytes) -> Extent:
        if data:
            file = self.opened()
            try:
                written = 0
                while written < len(data):
                    written += file.write(memoryview(data)[written:])
                if self._is_plain:
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), self._length)
                raise
            self._length += len(data)
            self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]
        return self.extent()

    def extent(self) -> Extent:
        """As it was last written."""
        return Extent(self._length, _hash(self._tail))

    def opened(self) -> BinaryIO:
        """The file itself, made if it is not there."""
        if self._file is None:
            is_new = not self.path.exists()
            self._file = self.path.open("ab", buffering=0)
            self._is_plain = self.path.is_file()  # not a device or a pipe
            if is_new:
                sync_folder(self.path)
        return self._file

    # ── after a crash ───────────────────────────────────────────────────────────

    def damage(self, extent: Extent) -> str | None:
        """Why the file is not one that was appended to since that commit, or None."""
        if not extent.length:
            return None
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return f"{self.path} is missing"
        if size < extent.length:
            return f"{self.path} is {size:,} bytes long, though {extent.length:,} were committed"
        if _hash(self._read_tail(extent.length)) != extent.tail:
            return f"{self.path} was edited: its last committed lines are not what was written"
        return None

    def _read_tail(self, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(0, length - _TAIL))
            return file.read(min(_TAIL, length))

    def cut(self, extent: Extent) -> None:
        """Go back to that commit."""
        size = self.path.stat().st_size if self.path.exists() else 0
        length = extent.length
        if self.damage(extent) is not None:
            length = self._whole(min(size, length))  # accepted: the lines that are still there
        if length or self.path.exists():
            file = self.opened()
            if self._is_plain:
                os.ftruncate(file.fileno(), length)
                os.fsync(file.fileno())
        self._length = length
        self._tail = self._read_tail(length) if length else b""

    def _whole(self, size: int) -> int:
        """Where the last whole line ends."""
        while size:
            tail = self._read_tail(size)
            if b"\n" in tail:
                return size - len(tail) + tail.rfind(b"\n") + 1
            size -= len(tail)
        return 0

    def read(self) -> Iterator[bytes]:
        """The lines that were committed."""
        if not self._length:
            return
        left = self._length
        with self.path.open("rb") as file:
            while left > 0 and (line := file.readline()):
                left -= len(line)
                yield line

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def sync_folder(path: Path) -> None:
    """Make a name in its folder durable."""
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def line_of(record: Any) -> bytes:
    """A record as a line of JSON."""
    try:
        return msgspec.json.encode(record) + b"\n"
    except (TypeError, ValueError, RecursionError):
        # What UTF-8 or msgspec can't carry (lone surrogates, odd objects): replaced, and the rest is kept.
        if isinstance(record, msgspec.Struct):
            record = {name: getattr(record, name) for name in record.__struct_fields__}
        text = json.dumps(record, default=_plain, ensure_ascii=False)
        known = json.loads(text, parse_constant=lambda _: None)  # NaN is no JSON
        return json.dumps(known, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _plain(value: Any) -> Any:
    return json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else repr(value)


def aside_name(path: Path) -> Path:
    """A free name beside that path: `results.1.jsonl`, `results.2.jsonl`, and so on."""
    number = 1
    while True:
        other = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not other.exists():
            return other
        number += 1
