"""Columns: whatever results they were settled by fit them, in whichever order these came."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.io.column_kinds import ColumnKind, column_type_of, common
from yelpaze.io.columns import Table

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
LISTS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(st.lists(LISTS | VALUES, max_size=6), st.randoms())
def test_a_columns_shape_does_not_depend_on_the_order_of_its_values(values, rng):
    shapes = [column_type_of(value) for value in values]
    found = common(shapes)
    rng.shuffle(shapes)
    assert common(shapes) == found
    assert common([common(shapes[:2]), common(shapes[2:])]) == found
    assert common([*shapes, found]) == found


@pytest.mark.parametrize(
    "options",
    [
        {"has_lists": True},
        {"unknown": ColumnKind.ANY},
        {"unknown": ColumnKind.PLAIN},
    ],
)
@given(st.lists(LISTS | VALUES, min_size=1, max_size=6))
def test_what_the_columns_were_settled_by_fits_them(options, values):
    table = Table(None, **options)
    for row, value in enumerate(values, 1):
        table.add(row, msgspec.json.encode({"v": value}))
    rows = table.take()
    assert [row for row, _ in rows] == list(range(1, len(values) + 1))
    (column,) = table.columns.columns
    for value, (_, kept) in zip(values, rows, strict=True):
        is_text = column.kind in (ColumnKind.JSON, ColumnKind.PLAIN, ColumnKind.ANY) and not column.lists
        if (
            is_text
            and isinstance(kept, str)
            and not (column.kind != ColumnKind.JSON and isinstance(value, str))
        ):
            assert json.loads(kept) == value
        else:
            assert kept == value


@given(st.lists(LISTS, min_size=1, max_size=6), st.lists(LISTS, max_size=6))
def test_parquet_takes_what_its_columns_take(values, later):
    pa = pytest.importorskip("pyarrow")
    from yelpaze.io.parquet import _type_of
    from yelpaze.io.protocol import SchemaMismatch

    table = Table(None, has_lists=True)
    for row, value in enumerate(values, 1):
        table.add(row, msgspec.json.encode({"v": value}))
    kept = [value for _, value in table.take()]
    for value in later:
        try:
            kept += table.columns.values(msgspec.json.encode({"v": value}))
        except SchemaMismatch:
            continue
    (column,) = table.columns.columns
    assert pa.array(kept, type=_type_of(column)).to_pylist() == kept
