"""Columns for formats that have some: from the flow's return annotation, or from the first results.

A result that is an object has its fields as columns; any other is one column, `result`. The
first column is `row`. A value that does not fit its column is a SchemaMismatch: the row fails, with the
field's name, and nothing else is harmed. What has no simple type is kept as JSON text.

The columns are settled once, for all of an output: they go into the checkpoint, so a run that goes on has the
same ones, whatever comes later. A column of which the first results say nothing, since it held nothing, takes
values of any type.
"""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Union, get_args, get_origin

import msgspec

from yelpaze.io.column_kinds import ColumnKind, ColumnType, column_type_of, column_type_of_annotation, common
from yelpaze.io.protocol import SchemaMismatch

RESULT = "result"
FIRST_ROWS = 1000  # so many results are looked at before the columns are settled, if they come
_FIRST_BYTES = 1 << 20
_ODD = re.compile(r'["\\\x00-\x1f]')


class Column(msgspec.Struct, frozen=True):
    """A field of the results, and what it holds: values of that kind, within so many lists."""

    field: str
    kind: ColumnKind
    bits: int = 64  # of an integer
    other_name: str | None = None
    lists: int = 0

    @property
    def name(self) -> str:
        """The column's name: that of the field, if it can be."""
        return self.other_name or self.field


def named(columns: Iterable[Column]) -> list[Column]:
    """Columns with names of their own, whatever their case (as in SQL); `row` is the row's number.

    >>> [column.name for column in named(Column(field, ColumnKind.INT) for field in ("a", "A", "row"))]
    ['a', 'A_', 'row_']
    """
    taken = {"row"}
    found = []
    for column in columns:
        name = column.field.replace("\x00", "_") or "_"
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        found.append(column if name == column.field else msgspec.structs.replace(column, other_name=name))
    return found


_TYPES: dict[ColumnKind, Any] = {
    ColumnKind.INT: int | None,
    ColumnKind.FLOAT: float | None,
    ColumnKind.BOOL: bool | None,
    ColumnKind.TEXT: str | None,
    ColumnKind.JSON: msgspec.Raw,
    ColumnKind.PLAIN: msgspec.Raw,
    ColumnKind.ANY: msgspec.Raw,
}


def _type_of(column: Column) -> Any:
    found = _TYPES[column.kind]
    for _ in range(column.lists):
        found = types.GenericAlias(list, (found,)) | None
    return found


class Columns:
    """Takes results apart.

    `is_single`: the result is one value, not an object. `is_loose`: values of any type fit.
    """

    def __init__(self, columns: Sequence[Column], *, is_single: bool, is_loose: bool = False) -> None:
        self.columns = tuple(columns)
        self.is_single = is_single
        kinds = [Any if is_loose else _type_of(column) for column in self.columns]
        fields: list[Any] = [
            (f"c{number}", kinds[number], msgspec.field(name=_known_as(column.field), default=None))
            for number, column in enumerate(self.columns)
        ]
        self._has_odd = any(_ODD.search(column.field) for column in self.columns) and not is_single
        kind: Any
        if is_single:
            kind = kinds[0]
        else:
            kind = msgspec.defstruct("Result", fields, forbid_unknown_fields=True, gc=False) | None
        self._decode = msgspec.json.Decoder(kind).decode
        self._finished = [
            (number, finished)
            for number, column in enumerate(self.columns)
            if not is_loose and (finished := _finished(column)) is not None
        ]

    @property
    def names(self) -> list[str]:
        """The columns' names, `row` not among them."""
        return [column.name for column in self.columns]

    def values(self, result: bytes) -> list[Any]:
        """A result's values, in the columns' order. Raises SchemaMismatch."""
        try:
            decoded = self._decode(_renamed(result) if self._has_odd else result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SchemaMismatch(f"the result does not fit the output's columns: {error}") from None
        if decoded is None:
            return [None] * len(self.columns)
        values = [decoded] if self.is_single else list(msgspec.structs.astuple(decoded))
        for place, finished in self._finished:
            if values[place] is not None:
                values[place] = finished(values[place])
        return values


def _finished(column: Column) -> Callable[[Any], Any] | None:
    """What makes a column's value of what was decoded; None if that is the value. Raises SchemaMismatch."""
    found: Callable[[Any], Any]
    if column.kind is ColumnKind.INT:
        found = partial(_in_bits, column)
    elif column.kind in _OF_RAW:
        found = _OF_RAW[column.kind]
    else:
        return None
    for _ in range(column.lists):
        found = partial(_each, found)
    return found


def _each(finished: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    return [None if value is None else finished(value) for value in values]


def _in_bits(column: Column, value: int) -> int:
    limit = 1 << (column.bits - 1)
    if -limit <= value < limit:
        return value
    raise SchemaMismatch(
        f"the result does not fit the output's columns: {value} at `$.{column.field}` "
        f"is beyond {column.bits} bits"
    )


def _as_json(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    return None if text == b"null" else text.decode()


def _as_plain(raw: msgspec.Raw) -> str | None:
    return msgspec.json.decode(raw, type=str) if bytes(raw).startswith(b'"') else _as_json(raw)


def _as_any(raw: msgspec.Raw) -> Any:
    kind = column_type_of(value := msgspec.json.decode(raw)).kind
    is_simple = not isinstance(value, dict | list) and kind is not ColumnKind.JSON
    return value if is_simple else _as_json(raw)


_OF_RAW: dict[ColumnKind, Callable[[Any], Any]] = {
    ColumnKind.JSON: _as_json,
    ColumnKind.PLAIN: _as_plain,
    ColumnKind.ANY: _as_any,
}


def _known_as(name: str) -> str:
    """A field's name without what msgspec refuses in one."""
    return _ODD.sub(lambda found: f"<{ord(found[0])}>", name)


def _renamed(result: bytes) -> bytes:
    fields = msgspec.json.decode(result, type=dict[str, msgspec.Raw] | None)
    return msgspec.json.encode(fields and {_known_as(name): value for name, value in fields.items()})


class Table:
    """Takes results row by row, settles the columns, and gives rows of values.

    What comes before the columns are settled is held as it is. `unknown`: the kind of a column that has held
    nothing until then. `has_lists`: the format has columns of lists; others keep them as JSON text.
    """

    def __init__(
        self,
        annotation: Any,
        *,
        is_loose: bool = False,
        unknown: ColumnKind = ColumnKind.PLAIN,
        has_lists: bool = False,
    ) -> None:
        self._is_loose = is_loose
        self._unknown = unknown
        self._has_lists = has_lists
        found = of_annotation(annotation)
        self._annotated = self.columns = None if found is None else self._settled(*found)
        self._first: list[tuple[int, bytes]] = []
        self._rows: list[list[Any]] = []
        self.waiting = 0

    def _made(self, columns: Sequence[Column], is_single: bool) -> Columns:
        return Columns(columns, is_single=is_single, is_loose=self._is_loose)

    def _settled(self, shapes: Mapping[str, ColumnType], is_single: bool) -> Columns:
        columns = named(self._column(field, shape) for field, shape in shapes.items())
        return self._made(columns, is_single)

    def _column(self, field: str, shape: ColumnType) -> Column:
        kind = self._unknown if shape.kind in (None, ColumnKind.PLAIN) else shape.kind
        if shape.lists and not self._has_lists:
            return Column(field, self._unknown if shape.kind is None else ColumnKind.JSON)
        return Column(field, kind, lists=shape.lists)

    def add(self, row: int, result: bytes) -> None:
        """Take a result. Raises SchemaMismatch."""
        if self.columns is None:
            self._first.append((row, result))
            if len(self._first) >= FIRST_ROWS:
                self._settle()
        else:
            self._rows.append([row, *self.columns.values(result)])
        self.waiting += len(result)

    def _settle(self) -> None:
        self.columns = self._settled(*of_results(result for _, result in self._first))
        self._rows = [[row, *self.columns.values(result)] for row, result in self._first]
        self._first.clear()

    def take(self, *, is_last: bool = True) -> list[list[Any]]:
        """All rows taken until now: the row's number, then its values.

        The first results are held back, to be kept by `state()`, unless nothing more comes for now.
        """
        if self._first and (is_last or sum(len(result) for _, result in self._first) > _FIRST_BYTES):
            self._settle()
        rows, self._rows = self._rows, []
        self.waiting = 0
        return rows

    def state(self) -> dict[str, Any] | None:
        """The columns, or the results that are held back for want of them, as a JSON value."""
        if self._first:
            return {"first": [[row, result.decode()] for row, result in self._first]}
        if self.columns is None:
            return None
        return {"columns": msgspec.to_builtins(self.columns.columns), "is_single": self.columns.is_single}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on with the columns that `state()` told of; None begins anew."""
        self._first = []
        if state is None:
            self.columns = self._annotated
        elif "first" in state:
            self.columns = self._annotated
            self._first = [(row, result.encode()) for row, result in state["first"]]
        else:
            self.columns = self._made(msgspec.convert(state["columns"], list[Column]), state["is_single"])


def of_annotation(annotation: Any) -> tuple[dict[str, ColumnType], bool] | None:
    """The fields that a flow's last step says it returns, and whether they are one value."""
    if annotation in (Any, object, None) or annotation is dict or get_origin(annotation) in (dict, list):
        return None
    try:
        info = msgspec.inspect.type_info(annotation)
    except TypeError:
        return None
    fields = getattr(info, "fields", None)
    if fields is not None:
        if getattr(info, "tag_field", None) or getattr(info, "array_like", False):
            return None
        return {field.encode_name: column_type_of_annotation(field.type) for field in fields}, False
    if isinstance(info, msgspec.inspect.AnyType | msgspec.inspect.DictType | msgspec.inspect.UnionType):
        kept = _optional_of(annotation)
        return None if kept is None else of_annotation(kept)
    return {RESULT: column_type_of_annotation(info)}, True


def _optional_of(annotation: Any) -> Any:
    """T for `T | None`."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    kept = [member for member in get_args(annotation) if member is not type(None)]
    return kept[0] if len(kept) == 1 else None


def of_results(results: Iterable[bytes]) -> tuple[dict[str, ColumnType], bool]:
    """The fields that all of these results fit, and whether they are single values."""
    decoded = [msgspec.json.decode(result) for result in results]
    objects = [value for value in decoded if isinstance(value, dict)]
    if not objects or any(not isinstance(value, dict) and value is not None for value in decoded):
        return {RESULT: common(map(column_type_of, decoded))}, True
    shapes: dict[str, set[ColumnType]] = {}
    for value in objects:
        for name, item in value.items():
            shapes.setdefault(name, set()).add(column_type_of(item))
    return {name: common(found) for name, found in shapes.items()}, False
