"""Parquet. Results are a folder of whole part files, which every reader of Parquet takes as one table.

A part has many rows, and commits come once a second: between two parts, results lie in
`_open.jsonl` in the same folder, and the journal says which parts and how much of that file
are committed. When enough have come, or the run ends, they become the next part.
"""

import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column, Columns, Table
from yelpaze.io.jsonl import result_line
from yelpaze.io.lines import Extent, LineFile, sync_folder
from yelpaze.io.protocol import BadRow, Block, Row
from yelpaze.io.reading import fingerprint
from yelpaze.io.threads import in_thread
from yelpaze.model.errors import InputError

_BATCH = 1024
_GROUP_ROWS = 20_000
_PART_BYTES = 64 << 20  # as JSON
_OURS = re.compile(r"part-\d+\.parquet|_part-\d+\.parquet\.new")
_TYPES = {
    ColumnKind.INT: pa.int64(),
    ColumnKind.FLOAT: pa.float64(),
    ColumnKind.BOOL: pa.bool_(),
    ColumnKind.TEXT: pa.string(),
    ColumnKind.JSON: pa.string(),
    ColumnKind.PLAIN: pa.string(),
}


class ParquetSource:
    """Rows as objects, by the columns' names. A row's number is its place over all files."""

    coerce = False

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        self._places = [str(Path(path).absolute()) for path in paths]  # a step may change the working folder
        self.position = 0
        self.size = 0
        for path in paths:
            file = _file(path)
            names = file.schema_arrow.names
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise InputError(f"{path}: the column {twice[0]!r} is there twice: rename one")
            self.size += file.metadata.num_rows

    def close(self) -> None:
        pass  # files are closed as they are read

    def identity(self) -> list[dict[str, Any]] | None:
        return [fingerprint(path) for path in self._paths]

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        first, group, before = cursor or (0, 0, 0)
        self.position = before
        for index in range(first, len(self._paths)):
            file = _file(self._places[index])
            for number in range(group, file.metadata.num_row_groups):
                place = (index, number, self.position)
                batches = file.iter_batches(batch_size=_BATCH, row_groups=[number])
                while rows := await in_thread(lambda: self._next(batches, self._paths[index])):  # noqa: B023
                    numbered: list[Row] = [
                        (self.position + count, None, row) for count, row in enumerate(rows, 1)
                    ]
                    self.position += len(rows)
                    yield Block(place, numbered)
            group = 0

    def _next(self, batches: Iterator[Any], path: str) -> list[Any]:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: is damaged or cannot be read: {error}") from None
        if batch is None:
            return []
        try:
            rows: list[Any] = batch.to_pylist()
        except (ValueError, OverflowError):  # a value that Python has no type for: find its rows
            rows = [_row(batch.slice(place, 1)) for place in range(batch.num_rows)]
        return rows


def _row(batch: Any) -> Any:
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return BadRow(f"has a value that cannot be read: {error}", None)


def _file(path: str) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is no Parquet file that can be read: {error}") from None


class _State(msgspec.Struct, frozen=True):
    """Parts by name with their sizes, and how far the rows between two parts reach."""

    parts: dict[str, int] = {}
    open: Extent = Extent()
    table: dict[str, Any] | None = None


class ParquetLayout:
    """See above; `path` is the folder."""

    def __init__(self, path: Path, annotation: object) -> None:
        if path.is_file():
            raise InputError(f"{path}: is a file; Parquet results are a folder of part files")
        self.path = path
        self._table = Table(annotation, has_lists=True)
        self._open = LineFile(path / "_open.jsonl")
        self._parts: dict[str, int] = {}
        self._is_part_new = False

    @property
    def waiting(self) -> int:
        return self._table.waiting + self._open.waiting

    def add(self, row: int, result: bytes) -> None:
        self._table.add(row, result)
        self._open.add(result_line(row, result))

    def take(self, *, is_last: bool) -> Callable[[], _State]:
        self._table.take(is_last=is_last)  # it has said what does not fit
        columns, table = self._table.columns, self._table.state()
        append = self._open.take()

        def work() -> _State:
            extent = append()
            if columns is not None and extent.length > (0 if is_last else _PART_BYTES):
                self._write_part(columns)
                self._is_part_new, extent = True, Extent()
            return _State(dict(self._parts), extent, table)

        return work

    def _write_part(self, columns: Columns) -> None:
        last = max((int(name[5:-8]) for name in self._parts), default=0)  # one before it may be missing
        name = f"part-{last + 1:05}.parquet"
        path, other = self.path / name, self.path / f"_{name}.new"
        rows = ((item.row, *columns.values(bytes(item.result))) for item in self._opened_rows())
        _write(other, columns.columns, rows)
        other.rename(path)
        sync_folder(path)
        self._parts[name] = path.stat().st_size

    def _opened_rows(self) -> Iterator["_Line"]:
        decode = msgspec.json.Decoder(_Line).decode
        return (decode(line) for line in self._open.read())

    def settled(self) -> None:
        if self._is_part_new:
            self._is_part_new = False
            self._open.cut(Extent())

    def damage(self, state: Any) -> str | None:
        kept = msgspec.convert(state, _State)
        for name, size in kept.parts.items():
            path = self.path / name
            if not path.exists():
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} was changed: it is {path.stat().st_size:,} bytes long, not {size:,}"
        return self._open.damage(kept.open)

    def cut(self, state: Any) -> None:
        kept = msgspec.convert(state or {}, _State)
        self.path.mkdir(exist_ok=True)
        sync_folder(self.path)
        for path in self.path.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in kept.parts:
                path.unlink()
        self._parts = {name: size for name, size in kept.parts.items() if (self.path / name).exists()}
        self._open.cut(kept.open)
        self._table.restore(kept.table)

    def close(self) -> None:
        self._open.close()
        if self._open.path.exists() and not self._open.path.stat().st_size:
            self._open.path.unlink()


class _Line(msgspec.Struct):
    row: int
    result: msgspec.Raw


def _write(path: Path, columns: tuple[Column, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """A whole, synced Parquet file; a group of rows in memory at a time."""
    schema = pa.schema([("row", pa.int64()), *((column.name, _type_of(column)) for column in columns)])
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := list(islice(rows, _GROUP_ROWS)):
                arrays = [
                    pa.array(values, type=field.type)
                    for values, field in zip(zip(*group, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _type_of(column: Column) -> Any:
    found = _TYPES[column.kind]
    for _ in range(column.lists):
        found = pa.list_(found)
    return found
