"""What a column holds, as a type or as values say it: a kind of value, and how many lists are around it."""

from collections.abc import Iterable
from enum import StrEnum
from functools import reduce
from typing import Any

import msgspec
from msgspec import inspect

_INT64 = range(-(2**63), 2**63)
_DEEPEST = 8  # lists in lists; what is deeper is JSON text


class ColumnKind(StrEnum):
    """What a column holds; every one may also hold nothing (null)."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TEXT = "text"
    JSON = "json"
    """JSON text, of texts too."""
    PLAIN = "plain"
    """Texts as they are, anything else as JSON text: of which nothing is known but that it may be a text."""
    ANY = "any"
    """Texts, numbers and booleans as they are, anything else as JSON text."""


class ColumnType(msgspec.Struct, frozen=True):
    """`kind` within so many lists; None where nothing says which, as for a null or an empty list."""

    kind: ColumnKind | None = None
    lists: int = 0


_NOTHING = ColumnType()
_JSON = ColumnType(ColumnKind.JSON)
_NUMBERS = frozenset({ColumnKind.INT, ColumnKind.FLOAT})


def common(shapes: Iterable[ColumnType]) -> ColumnType:
    """What holds the values of all of these."""
    return reduce(_both, shapes, _NOTHING)


def _both(one: ColumnType, other: ColumnType) -> ColumnType:
    if one.kind is None or other.kind is None:
        less, more = (one, other) if one.kind is None else (other, one)
        if more.kind is None:
            return max(one, other, key=lambda shape: shape.lists)
        return more if more.lists >= less.lists else _JSON
    if one.lists == other.lists and {one.kind, other.kind} == _NUMBERS:
        return ColumnType(ColumnKind.FLOAT, one.lists)
    return one if one == other else _JSON


def _list_of(shapes: Iterable[ColumnType]) -> ColumnType:
    """A list whose elements have these shapes."""
    inner = common(shapes)
    if inner.kind in (ColumnKind.JSON, ColumnKind.PLAIN) or inner.lists >= _DEEPEST:
        return _JSON
    return ColumnType(inner.kind, inner.lists + 1)


_OF_VALUES: dict[type, ColumnKind] = {
    bool: ColumnKind.BOOL,
    int: ColumnKind.INT,
    float: ColumnKind.FLOAT,
    str: ColumnKind.TEXT,
}


def column_type_of(value: Any) -> ColumnType:
    """The shape of a value as JSON has it."""
    if value is None:
        return _NOTHING
    if isinstance(value, list):
        return _list_of(map(column_type_of, value))
    if isinstance(value, dict):
        return _JSON if value else ColumnType(ColumnKind.PLAIN)  # an empty one says as little as nothing does
    if type(value) is int and value not in _INT64:
        return _JSON
    return ColumnType(_OF_VALUES.get(type(value), ColumnKind.JSON))


_SIMPLE: dict[type[inspect.Type], ColumnKind] = {
    inspect.IntType: ColumnKind.INT,
    inspect.FloatType: ColumnKind.FLOAT,
    inspect.BoolType: ColumnKind.BOOL,
    inspect.StrType: ColumnKind.TEXT,
    inspect.DateTimeType: ColumnKind.TEXT,
    inspect.DateType: ColumnKind.TEXT,
    inspect.TimeType: ColumnKind.TEXT,
    inspect.UUIDType: ColumnKind.TEXT,
    inspect.DecimalType: ColumnKind.TEXT,
    inspect.BytesType: ColumnKind.TEXT,
}


def column_type_of_annotation(info: inspect.Type) -> ColumnType:
    """The shape of the values that a type has in JSON."""
    match info:
        case inspect.NoneType():
            found = _NOTHING
        case inspect.UnionType():
            found = common(map(column_type_of_annotation, info.types))
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            found = _list_of([column_type_of_annotation(info.item_type)])
        case inspect.TupleType():
            found = _list_of(map(column_type_of_annotation, info.item_types))
        case inspect.LiteralType():
            found = common(map(column_type_of, info.values))
        case inspect.EnumType():
            found = common(column_type_of(member.value) for member in info.cls)
        case _:
            found = ColumnType(_SIMPLE.get(type(info), ColumnKind.JSON))
    return found
