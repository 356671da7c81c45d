"""CSV and TSV (RFC 4180), in UTF-8, the first line being the header."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.io.columns import Table
from yelpaze.io.jsonl import too_long
from yelpaze.io.lines import Extent, LineFile
from yelpaze.io.protocol import BadRow, Block, Row
from yelpaze.io.reading import MAX_LINE, Chunk, Lines
from yelpaze.model.errors import InputError

csv.field_size_limit(MAX_LINE)
_DELIMITERS = ",;\t|"
_SHOWN = 2000  # bytes of a record that could not be read
_PLAIN = (str, int, float)


class _NotYet(Exception):  # noqa: N818  a signal
    """The record goes on in lines that were not read yet."""


class _Feed:
    """Lines for csv.reader, which takes as many as a record needs; `taken` counts them.

    `at` and `number` are the place of the first line that is held.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.taken = self.at = self.number = 0
        self.is_end = False
        self._held = self._enough = 0

    def add(self, chunk: Chunk) -> bool:
        """Take more lines; false if parsing again should wait for still more."""
        if not self.lines:
            self.at, self.number = chunk.at, chunk.number
        self.lines += chunk.lines
        self.is_end = chunk.is_end
        self._held += sum(map(len, chunk.lines))
        return self._held >= self._enough or chunk.is_end

    def drop_taken(self) -> None:
        """What was taken is dealt with."""
        passed = self.lines[: self.taken]
        del self.lines[: self.taken]
        self.at += sum(map(len, passed)) + len(passed)
        self.number += len(passed)
        self.taken = 0
        self._held = sum(map(len, self.lines))
        self._enough = 2 * self._held  # so that a record of many chunks is not parsed once for each

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.taken >= len(self.lines):
            if self.is_end:
                raise StopIteration
            raise _NotYet
        line = self.lines[self.taken]
        self.taken += 1
        return line.decode("utf-8") + "\n"


class DelimitedSource:
    """Rows as objects of texts, by the header's names. A row's number is the line where it begins.

    The delimiter is the one of `, ; tab |` that the header has most of.
    """

    lax = True

    def __init__(self, paths: list[str]) -> None:
        self._lines = Lines(paths)
        self._headers: dict[int, tuple[list[str], str]] = {}

    @property
    def size(self) -> int | None:
        return self._lines.size

    @property
    def position(self) -> int:
        return self._lines.position

    def identity(self) -> list[dict[str, Any]] | None:
        return self._lines.identity()

    async def blocks(self, mark: Any = None) -> AsyncIterator[Block]:
        header: tuple[list[str], str] | None = None
        place = None
        if mark is not None:
            *place, names, delimiter = mark
            header = names, delimiter
        feed, file = _Feed(), -1
        async for chunk in self._lines.chunks(place):
            if chunk.file != file:
                header, file = (header if file < 0 else None), chunk.file
            if chunk.too_long and header is not None:
                yield Block((chunk.file, chunk.at, chunk.number, *header), [_long(chunk)])
                continue
            if not feed.add(chunk):
                continue
            header = header or self._header(feed, chunk)
            if header is not None:
                rows = list(_records(feed, *header))
                yield Block((chunk.file, feed.at, feed.number, *header), rows)
                feed.drop_taken()

    def _header(self, feed: _Feed, chunk: Chunk) -> tuple[list[str], str] | None:
        """The names of the columns and the delimiter; None if the file has no line."""
        path = self._lines.paths[chunk.file]
        if not feed.lines:
            return None
        if chunk.too_long:
            raise InputError(f"{path}, line 1: is too long to be a header")
        try:
            first = feed.lines[0].decode("utf-8")
            delimiter = max(_DELIMITERS, key=first.count)
            names = next(csv.reader(feed, delimiter=delimiter))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line 1: is not UTF-8: {error.reason} at byte {error.start}") from None
        except (csv.Error, _NotYet) as error:
            raise InputError(f"{path}, line 1: is no header: {error}") from None
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{path}, line 1: the column {twice[0]!r} is there twice: rename one")
        feed.drop_taken()
        return names, delimiter


def _long(chunk: Chunk) -> Row:
    return chunk.number, None, too_long(chunk.lines[0])


def _records(feed: _Feed, names: list[str], delimiter: str) -> Iterator[Row]:
    """The records whose lines are all there; `feed.taken` is then the number of their lines."""
    lines, number, width = feed.lines, feed.number, len(names)
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        begin = feed.taken
        try:
            record = next(reader)
        except StopIteration:
            return
        except _NotYet:
            feed.taken = begin
            if sum(map(len, lines[begin:])) > MAX_LINE:  # a quote that is never closed
                feed.taken = begin + 1
                message = f"a quoted field begins here and is not closed within {MAX_LINE >> 20} MiB"
                yield number + begin, None, BadRow(message, _text(lines[begin : begin + 1]))
                reader = csv.reader(feed, delimiter=delimiter)
                continue
            return
        except UnicodeDecodeError as error:
            text = lines[feed.taken - 1].decode("utf-8", "replace")
            message = f"is not UTF-8: {error.reason} at byte {error.start} of line {number + feed.taken - 1}"
            yield number + begin, None, BadRow(message, text)
            reader = csv.reader(feed, delimiter=delimiter)
            continue
        except csv.Error as error:
            yield number + begin, None, BadRow(f"is no CSV: {error}", _text(lines[begin : feed.taken]))
            continue
        if len(record) == width:
            yield number + begin, None, dict(zip(names, record, strict=True))
        elif record:
            message = f"has {len(record)} fields, but the header has {width}"
            yield number + begin, None, BadRow(message, _text(lines[begin : feed.taken]))


def _text(lines: list[bytes]) -> str:
    return b"\n".join(lines)[:_SHOWN].decode("utf-8", "replace").rstrip("\r")


class DelimitedLayout:
    """A column for the row's number, and one for each field of the results.

    Nothing is an empty field, true and false are words, lists and objects are JSON.
    """

    def __init__(self, path: Path, annotation: object) -> None:
        self.path = path
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self._file = LineFile(path)
        self._table = Table(annotation, is_loose=True)
        self._has_header = False

    @property
    def waiting(self) -> int:
        return self._table.waiting

    def add(self, row: int, result: bytes) -> None:
        self._table.add(row, result)

    def take(self, *, is_last: bool) -> Callable[[], dict[str, Any]]:  # noqa: ARG002  every commit is whole
        rows = self._table.take()
        columns = self._table.columns
        if columns is not None and not self._has_header:
            rows.insert(0, ["row", *columns.names])
            self._has_header = True
        table = self._table.state()

        def work() -> dict[str, Any]:
            text = io.StringIO(newline="")
            csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(map(_texts, rows))
            if rows:
                self._file.add(text.getvalue().encode("utf-8", "backslashreplace"))
            return {"file": self._file.take()(), "table": table}

        return work

    def settled(self) -> None:
        pass

    def damage(self, state: Any) -> str | None:
        return self._file.damage(msgspec.convert(state["file"], Extent))

    def cut(self, state: Any) -> None:
        if state is None:
            self._file.opened()
        extent = msgspec.convert(state["file"] if state else {}, Extent)
        self._file.cut(extent)
        self._table.restore(state["table"] if state else None)
        self._has_header = extent.length > 0

    def close(self) -> None:
        self._file.close()


def _texts(row: list[Any]) -> list[Any]:
    return [value if type(value) in _PLAIN else _text_of(value) for value in row]


def _text_of(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()
