"""CSV and TSV (RFC 4180), in UTF-8, the first line being the header."""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from yelpaze.io.columns import Table
from yelpaze.io.jsonl import too_long
from yelpaze.io.lines import Extent, LineFile
from yelpaze.io.protocol import BadRow, Block, Row
from yelpaze.io.reading import MAX_LINE, Chunk, LineSource
from yelpaze.model.closing import closing
from yelpaze.model.errors import InputError
from yelpaze.model.secrets import HIDDEN, SECRETS

csv.field_size_limit(MAX_LINE)
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"(?:[^"]|"")*(?:"|$)')
_SHOWN = 2000  # bytes of a record that could not be read
_PLAIN = (str, int, float)


class _NotYet(Exception):  # noqa: N818  a signal
    """The record goes on in lines that were not read yet."""


class _Feed:
    """Lines for csv.reader, which takes as many as a record needs; `taken` counts them.

    `at` and `number` are the place of the first line that is held. `is_over`: lines were asked
    for after the last one. `fault`: what is no UTF-8 in a line that was taken.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.taken = self.at = self.number = 0
        self.is_end = self.is_over = False
        self.fault = ""
        self.held = self._enough = 0

    def add(self, chunk: Chunk) -> bool:
        """Take more lines; false if parsing again should wait for still more."""
        if not self.lines:
            self.at, self.number = chunk.at, chunk.number
        self.lines += chunk.lines
        self.is_end = chunk.is_end
        self.held += sum(map(len, chunk.lines))
        return self.held >= self._enough or chunk.is_end

    def drop_taken(self) -> None:
        """What was taken is dealt with."""
        passed = self.lines[: self.taken]
        del self.lines[: self.taken]
        self.at += sum(map(len, passed)) + len(passed)
        self.number += len(passed)
        self.taken = 0
        self.held = sum(map(len, self.lines))
        self._enough = 2 * self.held  # so that a record of many chunks is not parsed once for each

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.taken >= len(self.lines):
            if not self.is_end:
                raise _NotYet
            self.is_over = True
            raise StopIteration
        line = self.lines[self.taken]
        self.taken += 1
        try:
            return line.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            number = self.number + self.taken - 1
            self.fault = f"is not UTF-8: {error.reason} at byte {error.start} of line {number}"
            return line.decode("utf-8", "surrogateescape") + "\n"  # so that the record ends where it does


class DelimitedSource(LineSource):
    """Rows as objects of texts, by the header's names. A row's number is the line where it begins.

    The delimiter is the one of `, ; tab |` that the header has most of, outside of quotes.
    """

    coerce = True

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self._headers: dict[int, tuple[list[str], str]] = {}

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        header: tuple[list[str], str] | None = None
        place = None
        if cursor is not None:
            *place, names, delimiter = cursor
            header = names, delimiter
        feed, file = _Feed(), -1
        async with closing(self._lines.chunks(place)) as opened:
            async for chunk in opened:
                if chunk.file != file:
                    header, file = (header if file < 0 else None), chunk.file
                if chunk.too_long and header is not None:
                    rows = [*_records(feed, *header), *_broken_off(feed, header[0])]
                    yield Block((chunk.file, feed.at, feed.number, *header), rows)
                    feed.drop_taken()
                    yield Block((chunk.file, chunk.at, chunk.number, *header), [_long(chunk, header[0])])
                    continue
                if not feed.add(chunk):
                    continue
                header = header or self._header(feed, chunk)
                if header is not None:
                    rows = list(_records(feed, *header))
                    yield Block((chunk.file, feed.at, feed.number, *header), rows)
                    feed.drop_taken()

    def _header(self, feed: _Feed, chunk: Chunk) -> tuple[list[str], str] | None:
        """The names of the columns and the delimiter; None if the header is not there, or not all of it."""
        path = self._lines.paths[chunk.file]
        if not feed.lines:
            return None
        if chunk.too_long:
            raise InputError(f"{path}, line 1: is too long to be a header")
        # What is inside of quoted names separates nothing.
        delimiter = max(_DELIMITERS, key=_QUOTED.sub("", feed.lines[0].decode("utf-8", "replace")).count)
        feed.fault, feed.is_over = "", False
        try:
            names = next(csv.reader(feed, delimiter=delimiter))
        except _NotYet:
            if feed.held <= MAX_LINE:
                feed.taken = 0
                return None
            names = []
        except csv.Error as error:
            raise InputError(f"{path}, line 1: is no header: {error}") from None
        if feed.fault:
            raise InputError(f"{path}, line 1: {feed.fault}")
        if feed.is_over or not names:
            what = "it is empty" if feed.lines[0].strip() == b"" else "a quoted name is not closed"
            raise InputError(f"{path}, line 1: is no header: {what}")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{path}, line 1: the column {twice[0]!r} is there twice: rename one")
        feed.drop_taken()
        return names, delimiter


def _long(chunk: Chunk, names: list[str]) -> Row:
    bad = too_long(chunk.lines[0])
    return chunk.number, None, BadRow(bad.message, _text(chunk.lines[:1], names))


def _records(feed: _Feed, names: list[str], delimiter: str) -> Iterator[Row]:
    """The records whose lines are all there; `feed.taken` is then the number of their lines."""
    lines, number, width = feed.lines, feed.number, len(names)
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        begin, feed.fault, feed.is_over = feed.taken, "", False
        record: list[str] | None = None
        try:
            record = next(reader)
        except StopIteration:
            return
        except _NotYet:
            pass
        except csv.Error as error:
            feed.fault = f"is no CSV: {error}"
        # A quote not closed by then is wrong, in whatever pieces lines come; the next line is a row again.
        if feed.is_over or (feed.held > MAX_LINE and sum(map(len, lines[begin : feed.taken])) > MAX_LINE):
            feed.taken = begin + 1
            yield number + begin, None, BadRow(_unclosed(), _text(lines[begin : begin + 1], names))
            reader = csv.reader(feed, delimiter=delimiter)
        elif feed.fault:
            yield number + begin, None, BadRow(feed.fault, _text(lines[begin : feed.taken], names))
        elif record is None:
            feed.taken = begin
            return
        elif len(record) == width:
            yield number + begin, None, dict(zip(names, record, strict=True))
        elif record:
            message = f"has {len(record)} fields, but the header has {width}"
            shown = dict(zip(names, record, strict=False))
            yield number + begin, None, BadRow(message, shown | {"": record[width:]})


def _unclosed() -> str:
    return f"a quoted field begins here and is not closed, or not within {MAX_LINE >> 20} MiB"


def _broken_off(feed: _Feed, names: list[str]) -> Iterator[Row]:
    """The record that a line breaks off which is too long to be read."""
    if feed.taken < len(feed.lines):
        yield feed.number + feed.taken, None, BadRow(_unclosed(), _text(feed.lines[feed.taken :], names))
        feed.taken = len(feed.lines)


def _text(lines: list[bytes], names: list[str]) -> str:
    """What can't be taken apart, unless there may be a secret in it."""
    if any(map(SECRETS.has, names)):
        return HIDDEN
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

    def take(self, *, is_last: bool) -> Callable[[], dict[str, Any]]:
        rows = self._table.take(is_last=is_last)
        columns = self._table.columns
        if columns is not None and not self._has_header:
            rows.insert(0, ["row", *columns.names])
            self._has_header = True
        table = self._table.state()

        def work() -> dict[str, Any]:
            if rows:
                self._file.add(_written(rows, self._delimiter).encode("utf-8", "backslashreplace"))
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
        self._has_header = self._file.extent().length > 0

    def close(self) -> None:
        self._file.close()


def _written(rows: list[list[Any]], delimiter: str) -> str:
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL
    while True:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting)
        writer.writerows(map(_texts, rows))
        if quoting == csv.QUOTE_ALL or "\r" not in text.getvalue():
            return text.getvalue()
        quoting = csv.QUOTE_ALL  # a lone carriage return, which csv does not quote by itself


def _texts(row: list[Any]) -> list[Any]:
    return [value if type(value) in _PLAIN else _text_of(value) for value in row]


def _text_of(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()
