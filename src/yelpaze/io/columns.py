"""Columns for formats that have some: from the flow's return annotation, or from the first results.

A result that is an object has its fields as columns; any other is one column, `result`. The
first column is `row`. A value that does not fit its column is a SchemaMismatch: the row fails, with the
field's name, and nothing else is harmed. What has no simple type is kept as JSON text.
"""

import re
import types
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

import msgspec

from yelpaze.io.protocol import SchemaMismatch

RESULT = "result"
FIRST_ROWS = 1000  # so many results are looked at before the columns are settled, if they come
_FIRST_BYTES = 1 << 20
_INT64 = range(-(2**63), 2**63)
_ODD = re.compile(r'["\\\x00-\x1f]')


class ColumnKind(StrEnum):
    """What a column holds; every one may also hold nothing (null)."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TEXT = "text"
    JSON = "json"


class Column(msgspec.Struct, frozen=True):
    """A field of the results, and what it holds."""

    field: str
    kind: ColumnKind
    bits: int = 64  # of an integer
    other_name: str | None = None

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
}


class Columns:
    """Takes results apart.

    `is_single`: the result is one value, not an object. `is_loose`: values of any type fit.
    """

    def __init__(self, columns: Sequence[Column], *, is_single: bool, is_loose: bool = False) -> None:
        self.columns = tuple(columns)
        self.is_single = is_single
        types = [Any if is_loose else _TYPES[column.kind] for column in self.columns]
        fields: list[Any] = [
            (f"c{number}", types[number], msgspec.field(name=_known_as(column.field), default=None))
            for number, column in enumerate(self.columns)
        ]
        self._has_odd = any(_ODD.search(column.field) for column in self.columns) and not is_single
        kind: Any
        if is_single:
            kind = types[0]
        else:
            kind = msgspec.defstruct("Result", fields, forbid_unknown_fields=True, gc=False) | None
        self._decode = msgspec.json.Decoder(kind).decode
        self._places = [
            number
            for number, column in enumerate(self.columns)
            if column.kind in (ColumnKind.INT, ColumnKind.JSON) and not is_loose
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
        for place in self._places:
            value = values[place]
            if isinstance(value, int):
                limit = 1 << (self.columns[place].bits - 1)
                if not -limit <= value < limit:
                    name = self.columns[place].field
                    raise SchemaMismatch(
                        f"the result does not fit the output's columns: {value} at `$.{name}` "
                        f"is beyond {self.columns[place].bits} bits"
                    )
            elif value is not None:
                raw = bytes(value)
                values[place] = None if raw == b"null" else raw.decode()
        return values


def _known_as(name: str) -> str:
    """A field's name without what msgspec refuses in one."""
    return _ODD.sub(lambda found: f"<{ord(found[0])}>", name)


def _renamed(result: bytes) -> bytes:
    fields = msgspec.json.decode(result, type=dict[str, msgspec.Raw] | None)
    return msgspec.json.encode(fields and {_known_as(name): value for name, value in fields.items()})


class Table:
    """Takes results row by row, settles the columns, and gives rows of values.

    What comes before the columns are settled is held as it is.
    """

    def __init__(self, annotation: Any, *, is_loose: bool = False) -> None:
        self._is_loose = is_loose
        self._annotated = self.columns = of_annotation(annotation)
        if self.columns is not None and is_loose:
            self.columns = self._annotated = self._made(self.columns.columns, self.columns.is_single)
        self._first: list[tuple[int, bytes]] = []
        self._rows: list[list[Any]] = []
        self.waiting = 0

    def _made(self, columns: Sequence[Column], is_single: bool) -> Columns:
        return Columns(columns, is_single=is_single, is_loose=self._is_loose)

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
        found = of_results(result for _, result in self._first)
        self.columns = self._made(found.columns, found.is_single)
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


# ── from an annotation ──────────────────────────────────────────────────────────


def of_annotation(annotation: Any) -> Columns | None:
    """The columns that a flow's last step says it returns; None if it does not say."""
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
        return Columns(named(Column(f.encode_name, _kind_of(f.type)) for f in fields), is_single=False)
    if isinstance(info, msgspec.inspect.AnyType | msgspec.inspect.DictType | msgspec.inspect.UnionType):
        kept = _optional_of(annotation)
        return None if kept is None else of_annotation(kept)
    return Columns([Column(RESULT, _kind_of(info))], is_single=True)


def _optional_of(annotation: Any) -> Any:
    """T for `T | None`."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    kept = [member for member in get_args(annotation) if member is not type(None)]
    return kept[0] if len(kept) == 1 else None


def _kind_of(info: msgspec.inspect.Type) -> ColumnKind:
    if isinstance(info, msgspec.inspect.UnionType):
        kinds = {_kind_of(kind) for kind in info.types if not isinstance(kind, msgspec.inspect.NoneType)}
        if kinds == {ColumnKind.INT, ColumnKind.FLOAT}:
            return ColumnKind.FLOAT
        return kinds.pop() if len(kinds) == 1 else ColumnKind.JSON
    simple = {
        msgspec.inspect.IntType: ColumnKind.INT,
        msgspec.inspect.FloatType: ColumnKind.FLOAT,
        msgspec.inspect.BoolType: ColumnKind.BOOL,
        msgspec.inspect.StrType: ColumnKind.TEXT,
        msgspec.inspect.DateTimeType: ColumnKind.TEXT,
        msgspec.inspect.DateType: ColumnKind.TEXT,
        msgspec.inspect.TimeType: ColumnKind.TEXT,
        msgspec.inspect.UUIDType: ColumnKind.TEXT,
        msgspec.inspect.DecimalType: ColumnKind.TEXT,
        msgspec.inspect.BytesType: ColumnKind.TEXT,
    }
    return simple.get(type(info), ColumnKind.JSON)


# ── from results ────────────────────────────────────────────────────────────────


def of_results(results: Iterable[bytes]) -> Columns:
    """The columns that all of these results fit."""
    decoded = [msgspec.json.decode(result) for result in results]
    objects = [value for value in decoded if isinstance(value, dict)]
    if not objects or any(not isinstance(value, dict) and value is not None for value in decoded):
        return Columns(
            [Column(RESULT, _common({_kind_of_value(value) for value in decoded}))], is_single=True
        )
    kinds: dict[str, set[ColumnKind | None]] = {}
    for value in objects:
        for name, item in value.items():
            kinds.setdefault(name, set()).add(_kind_of_value(item))
    return Columns(named(Column(name, _common(found)) for name, found in kinds.items()), is_single=False)


def _kind_of_value(value: Any) -> ColumnKind | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return ColumnKind.BOOL
    if isinstance(value, int):
        return ColumnKind.INT if value in _INT64 else ColumnKind.JSON
    if isinstance(value, float):
        return ColumnKind.FLOAT
    return ColumnKind.TEXT if isinstance(value, str) else ColumnKind.JSON


def _common(kinds: set[ColumnKind | None]) -> ColumnKind:
    known = kinds - {None}
    if known == {ColumnKind.INT, ColumnKind.FLOAT}:
        return ColumnKind.FLOAT
    return next(iter(known)) or ColumnKind.JSON if len(known) == 1 else ColumnKind.JSON
