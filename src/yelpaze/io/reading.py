"""Lines of text inputs: several files, compressed or not, from any cursor on.

A cursor is (which file, byte in its text, line number): in a plain file that is a place to seek
to; a compressed one is decompressed up to there, which needs no parsing.
"""

import contextlib
import gzip
import io
import os
import select
import zlib
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from yelpaze.io.threads import in_thread
from yelpaze.model.closing import closing
from yelpaze.model.errors import InputError
from yelpaze.model.extras import is_installed, require, zstd_module

_READ = 1 << 18
_ENDS = 1 << 16
_SHOWN = 1000  # bytes of a line that is too long
MAX_LINE = 64 << 20
_BOMS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF8_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = (".gz",), (".zst", ".zstd")


class Chunk(NamedTuple):
    """Whole lines without their ends; `at` and `number` are the first one's place.

    `is_end`: the file ends here. `too_long`: instead of lines, one that is longer than
    MAX_LINE: its beginning.
    """

    file: int
    at: int
    number: int
    lines: list[bytes]
    is_end: bool
    too_long: bool = False


class _Part(NamedTuple):
    lines: list[bytes]
    size: int
    too_long: bool = False


def _parted(text: bytes, *, is_end: bool) -> tuple[list[_Part], bytes]:
    """The whole lines of a text, each that is too long by itself, and the rest."""
    end = len(text) if is_end else text.rfind(b"\n") + 1
    if not end and not is_end:
        return [], text
    lines = text[:end].split(b"\n")
    if not lines[-1]:  # after the last line feed there is no line
        lines.pop()
    return [_Part(lines, end)] if end <= MAX_LINE else list(_parts(lines)), text[end:]


def _parts(lines: list[bytes]) -> Iterator[_Part]:
    begin = 0
    for place, line in enumerate(lines):
        if len(line) > MAX_LINE:
            if place > begin:
                yield _part(lines[begin:place])
            yield _Part([line[:_SHOWN]], len(line) + 1, too_long=True)
            begin = place + 1
    yield _part(lines[begin:])


def _part(lines: list[bytes]) -> _Part:
    return _Part(lines, sum(map(len, lines)) + len(lines))


class _Raw(Protocol):
    def read(self, size: int, /) -> bytes | None: ...
    def close(self) -> None: ...


def stem_of(path: str) -> str:
    """`rows` for `folder/rows.csv.gz`."""
    name = Path(path).name
    for ending in (*_GZIP, *_ZSTD):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return Path(name).stem


class Lines:
    """The lines of some files, one after the other, or of standard input for `-`."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        # A step may change the working folder before they are opened.
        self._places = [path if path == "-" else str(Path(path).absolute()) for path in paths]
        self.position = 0
        self.size: int | None = 0
        self.is_plain = True
        for path in paths:
            size = _size_of(path)
            self.is_plain &= size is not None
            self.size = None if size is None or self.size is None else self.size + size
        self._files: list[io.FileIO] = [] if self.is_plain else [_opened(path) for path in paths]

    def close(self) -> None:
        """Let go of pipes that were not read to their end."""
        for file in self._files:
            file.close()

    def identity(self) -> list[dict[str, Any]] | None:
        """Size, time of change and a hash of both ends, for each file."""
        return [fingerprint(path) for path in self.paths] if self.is_plain else None

    async def chunks(self, cursor: Any = None) -> AsyncIterator[Chunk]:
        """Lines from that cursor on."""
        first, at, number = cursor or (0, 0, 1)
        self.position = sum(_size_of(path) or 0 for path in self._places[:first])
        for index in range(first, len(self.paths)):
            before = self.position
            async with closing(self._of_file(index, at, number)) as opened:
                async for chunk in opened:
                    number = chunk.number + len(chunk.lines)
                    yield chunk
            at = 0
            self.position = before + (_size_of(self._places[index]) or 0) if self.is_plain else self.position

    async def _of_file(self, index: int, at: int, number: int) -> AsyncIterator[Chunk]:
        path, before = self.paths[index], self.position
        raw = _opened(self._places[index]) if self.is_plain else self._files[index]
        with contextlib.closing(raw), naming(path):
            file = _decompressed(raw, path)
            is_compressed = file is not raw
            if is_compressed:
                await in_thread(lambda: _skip(file, at))
            elif at:
                raw.seek(at)
            rest = b""
            while True:
                data = await self._read(raw, file)
                if at == 0 and not rest:
                    data, skipped = _without_bom(data, path)
                    at += skipped
                if self.is_plain:
                    self.position = before + raw.tell()
                elif not is_compressed:
                    self.position += len(data)
                parts, rest = _parted(rest + data, is_end=not data)
                for part in parts:
                    yield Chunk(index, at, number, part.lines, is_end=not data, too_long=part.too_long)
                    number += len(part.lines)
                    at += part.size
                if not data:
                    return
                if len(rest) > MAX_LINE:
                    yield Chunk(index, at, number, [rest[:_SHOWN]], is_end=False, too_long=True)
                    at, rest = await self._after_long_line(raw, file, at + len(rest))
                    number += 1

    async def _after_long_line(self, raw: io.FileIO, file: _Raw, at: int) -> tuple[int, bytes]:
        while data := await self._read(raw, file):
            end = data.find(b"\n") + 1
            if end:
                return at + end, data[end:]
            at += len(data)
        return at, b""

    async def _read(self, raw: io.FileIO, file: _Raw) -> bytes:
        if self.is_plain:
            return file.read(_READ) or b""

        def read() -> bytes:
            while (data := file.read(_READ)) is None:  # a pipe that never blocks: nothing yet
                select.select([raw], [], [])
            return data

        return await in_thread(read)


@contextlib.contextmanager
def naming(path: str) -> Any:
    """Make an error of reading a message about that file."""
    path = _shown(path)
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is damaged or cut short: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if is_installed("zstd") and isinstance(error, zstd_module().ZstdError):
            raise InputError(f"{path}: is damaged or cut short: {error}") from None
        raise


def _size_of(path: str) -> int | None:
    with contextlib.suppress(OSError):
        if path != "-" and Path(path).is_file():
            return Path(path).stat().st_size
    return None


def _opened(path: str) -> io.FileIO:
    try:
        if path == "-":
            return io.FileIO(0, closefd=False)
        return io.FileIO(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give a file") from None
    except OSError as error:
        raise InputError(f"{_shown(path)}: cannot be read: {error.strerror}") from None


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path


def check_files(paths: list[str]) -> None:
    """Raise InputError for one that can't be opened."""
    for path in paths:
        if path != "-" and (not Path(path).exists() or Path(path).is_dir() or Path(path).is_file()):
            _opened(path).close()


def _decompressed(raw: io.FileIO, path: str) -> _Raw:
    if path.lower().endswith(_GZIP):
        return cast(_Raw, gzip.GzipFile(fileobj=raw, mode="rb"))
    if path.lower().endswith(_ZSTD):
        require("zstd", path)
        return cast(_Raw, zstd_module().ZstdFile(raw))
    return cast(_Raw, raw)


def _skip(file: _Raw, count: int) -> None:
    while count > 0 and (data := file.read(min(count, _READ))):
        count -= len(data)


def _without_bom(data: bytes, path: str) -> tuple[bytes, int]:
    if data.startswith(_UTF8_BOM):
        return data[len(_UTF8_BOM) :], len(_UTF8_BOM)
    encoding = _BOMS.get(data[:2])
    if encoding:
        raise InputError(
            f"{path}: is {encoding}, but must be UTF-8; convert it: iconv -f {encoding} -t UTF-8 {path}"
        )
    return data, 0


def fingerprint(path: str) -> dict[str, Any]:
    """Size, time of change and a hash of both ends of a file. Raises InputError."""
    with naming(path), contextlib.closing(_opened(path)) as file:
        status = os.fstat(file.fileno())
        digest = blake2b(file.read(_ENDS) or b"", digest_size=12)
        file.seek(max(0, status.st_size - _ENDS))
        digest.update(file.read(_ENDS) or b"")
    return {"file": path, "size": status.st_size, "changed": status.st_mtime_ns, "ends": digest.hexdigest()}


class LineSource:
    """What sources of text files have in common."""

    def __init__(self, paths: list[str]) -> None:
        self._lines = Lines(paths)

    @property
    def size(self) -> int | None:
        return self._lines.size

    @property
    def position(self) -> int:
        return self._lines.position

    def close(self) -> None:
        self._lines.close()

    def identity(self) -> list[dict[str, Any]] | None:
        return self._lines.identity()
