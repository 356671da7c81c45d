"""Columns of results against columns of a table: what fits, and how a table is made."""

from collections.abc import Mapping

import msgspec

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column, Columns
from yelpaze.io.database import Place, quoted
from yelpaze.model.errors import InputError


def check_key(place: Place, columns: Columns) -> None:
    """The results have the column that is their key. Raises InputError."""
    if place.key is not None and place.key not in columns.names:
        raise InputError(
            f"{place.shown}: the results have no field {place.key!r} for key=; "
            f"fields are: {', '.join(columns.names)}"
        )


def adopted(place: Place, table: list[Column], annotated: Columns | None) -> Columns:
    """The columns of results for a table that was there. Raises InputError if they do not fit it."""
    if place.key is not None and place.key not in [column.field for column in table]:
        raise InputError(
            f"{place.shown}: the table has no column {place.key!r}; "
            f"columns are: {', '.join(column.field for column in table)}"
        )
    kinds = {column.field: column for column in table if column.field != "row"}
    if annotated is None:
        return Columns(list(kinds.values()), is_single=list(kinds) == ["result"])
    check_key(place, annotated)
    for column in annotated.columns:
        found = kinds.get(column.name)
        if found is None:
            raise InputError(
                f"{place.shown}: the table has no column {column.name!r}, which the flow's results have; "
                f"columns are: {', '.join(kinds)}"
            )
        if not _may_hold(found.kind, column.kind):
            raise InputError(
                f"{place.shown}: the column {column.name!r} holds {found.kind}, "
                f"the flow's results {column.kind}"
            )
    return Columns(
        [_fitted(column, kinds[column.name]) for column in annotated.columns],
        is_single=annotated.is_single,
    )


def creation(place: Place, name: str, columns: Columns, types: Mapping[ColumnKind, str]) -> str:
    """The statement that makes the table; `name` is quoted. Raises InputError, see `check_key`."""
    check_key(place, columns)
    parts = [f"{quoted('row')} {types[ColumnKind.INT]}" + ("" if place.key else " PRIMARY KEY")]
    for column in columns.columns:
        primary = " PRIMARY KEY" if column.name == place.key else ""
        parts.append(f"{quoted(column.name)} {types[column.kind]}{primary}".rstrip())
    return f"CREATE TABLE {name} ({', '.join(parts)})"


def _may_hold(column: ColumnKind, result: ColumnKind) -> bool:
    if column in (ColumnKind.INT, ColumnKind.BOOL):
        return result is column
    return column is not ColumnKind.FLOAT or result not in (ColumnKind.JSON, ColumnKind.BOOL)


def _fitted(result: Column, column: Column) -> Column:
    """What results say, as the column that is there takes it."""
    kind = ColumnKind.JSON if column.kind is ColumnKind.JSON else result.kind
    return msgspec.structs.replace(result, kind=kind, bits=column.bits)
