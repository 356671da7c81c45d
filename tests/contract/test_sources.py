"""The contract of every source: all rows, each under its number, and the rest again from any cursor."""

import asyncio
import csv
import gzip
import io
import json
import os
import sqlite3
import tempfile
import threading
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.inputs import INPUTS, ROWS
from support.needed import needs
from yelpaze.io import delimited, jsonl, reading
from yelpaze.io.backends import open_source
from yelpaze.io.protocol import BadRow
from yelpaze.io.sampled import Sampled
from yelpaze.model.errors import InputError


@pytest.fixture
def opened():
    """Opens sources, and lets their databases go afterwards."""
    sources = []

    def open_(*texts):
        sources.append(open_source(tuple(map(str, texts))))
        return sources[-1]

    yield open_
    for source in sources:
        if hasattr(source, "close"):
            source.close()


@pytest.fixture
def small(monkeypatch):
    """Pages and blocks of some rows; a line is longer than what is read at a time."""
    monkeypatch.setattr("yelpaze.io.reading._READ", 64)
    monkeypatch.setattr("yelpaze.io.sql_source._PAGE", 4)
    with_parquet = pytest.MonkeyPatch()
    try:
        with_parquet.setattr("yelpaze.io.parquet._BATCH", 4)
    except Exception:  # without pyarrow its tests are skipped
        with_parquet.undo()
    yield
    with_parquet.undo()


def value_of(row):
    _, raw, value = row
    return value if raw is None else msgspec.json.decode(raw)


async def blocks_of(source, cursor=None):
    """(cursor, [(number, value), …]) of each block."""
    return [
        (cursor, [(row[0], value_of(row)) for row in rows]) async for cursor, rows in source.blocks(cursor)
    ]


async def rows_of(source, cursor=None):
    return [row for _, rows in await blocks_of(source, cursor) for row in rows]


def shorten(patch, length):
    """Lines may be that long."""
    for module in (reading, jsonl, delimited):
        patch.setattr(module, "MAX_LINE", length)
    patch.setattr("yelpaze.io.reading._SHOWN", 10)


def bad(rows):
    return {number: value.message for number, value in rows if isinstance(value, BadRow)}


def good(rows):
    return {number: value for number, value in rows if not isinstance(value, BadRow)}


# ── every source ────────────────────────────────────────────────────────────────


@pytest.fixture(params=INPUTS)
def made(request, tmp_path):
    return INPUTS[request.param](tmp_path, lambda: request.getfixturevalue("postgres"))


async def test_all_rows_come_with_their_numbers(made, opened):
    assert await rows_of(opened(*made.texts)) == made.rows


async def test_the_rest_comes_again_from_every_mark(made, opened, small):
    blocks = await blocks_of(opened(*made.texts))
    assert [row for _, rows in blocks for row in rows] == made.rows
    assert len(blocks) > 4
    for cursor, rows in blocks:
        kept = msgspec.json.decode(msgspec.json.encode(cursor))  # as the sink keeps it
        again = await rows_of(opened(*made.texts), kept)
        assert again == made.rows[len(made.rows) - len(again) :]
        if rows:
            assert rows[0] in again
            if not made.texts[0].endswith(".parquet"):  # there a cursor is where a group of rows begins
                assert rows[0] == again[0]


async def test_size_and_position_tell_how_far_it_is(made, opened, small):
    source = opened(*made.texts)
    size, before = source.size, -1
    async for _ in source.blocks():
        assert before <= source.position
        before = source.position
    if size is not None:
        assert 0 < before <= source.position == size
    again = opened(*made.texts)
    assert again.size == size
    assert again.identity() == source.identity()
    assert msgspec.json.encode(source.identity())


async def test_a_change_of_the_input_is_seen(made, opened):
    source = opened(*made.texts)
    identity = source.identity()
    path = identity[0].get("file")
    if path is None:
        return
    os.utime(path, ns=(1, 1))
    assert opened(*made.texts).identity() != identity


async def test_a_sample_is_the_same_each_time(made, opened):
    source = opened(*made.texts)
    sampled = Sampled(source, 5)
    first = await rows_of(sampled)
    assert (sampled.size, sampled.position) == (source.size, source.position)
    assert first == await rows_of(Sampled(opened(*made.texts), 5))
    assert len(first) == 5
    assert first == [row for row in made.rows if row in first]
    assert await rows_of(Sampled(opened(*made.texts), 1000)) == made.rows


# ── CSV, against the standard library ───────────────────────────────────────────


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r")
    | st.sampled_from('",;\t|\n '),
    max_size=12,
)


@given(
    rows=st.lists(st.lists(TEXT, min_size=3, max_size=3), max_size=12),
    read=st.integers(3, 40),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    is_cut=st.booleans(),
)
@settings(max_examples=150)
def test_csv_is_read_as_csv_dictreader_reads_it(tmp_path_factory, rows, read, quoting, end, is_cut):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    content = text.getvalue().removesuffix(end) if is_cut else text.getvalue()
    path = tmp_path_factory.getbasetemp() / "hypothesis.csv"
    path.write_bytes(content.encode())
    expected = list(csv.DictReader(io.StringIO(content, newline="")))

    async def check():
        blocks = await blocks_of(open_source((str(path),)))
        got = [row for _, rows in blocks for row in rows]
        assert [value for _, value in got] == expected
        for cursor, block in blocks:
            again = await rows_of(open_source((str(path),)), cursor)
            assert again == got[len(got) - len(again) :]
            assert not block or again[0] == block[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yelpaze.io.reading._READ", read)
        asyncio.run(check())


BYTES = st.lists(
    st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"bb", b"\xff", b"\xc5\x9f", b"\x00", b"1,2\n", b'""']),
    max_size=40,
).map(b"".join)


@given(content=BYTES, first=st.integers(3, 9), second=st.integers(10, 60))
@example(content=b'"\n1,2\n', first=3, second=50)
@settings(max_examples=200)
def test_any_bytes_are_the_same_rows_in_whatever_pieces_they_are_read(
    tmp_path_factory, content, first, second
):
    path = tmp_path_factory.getbasetemp() / "hypothesis2.csv"
    path.write_bytes(b"a,b\n" + content)

    async def read(size, cursor=None):
        patch.setattr("yelpaze.io.reading._READ", size)
        return await blocks_of(open_source((str(path),)), cursor)

    async def check():
        blocks = await read(first)
        rows = [row for _, block in blocks for row in block]
        assert [row for _, block in await read(second) for row in block] == rows
        assert all(one < other for (one, _), (other, _) in pairwise(rows))
        for cursor, _ in blocks:
            again = [row for _, block in await read(second, cursor) for row in block]
            assert again == rows[len(rows) - len(again) :]

    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, 20)
        asyncio.run(check())


# ── bad rows: the run goes on ───────────────────────────────────────────────────


async def test_ragged_rows_of_csv(tmp_path, opened):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,2\n3\n4,5,6\n\n"7\n",8\n9,10,\n')
    rows = await rows_of(opened(path))
    assert good(rows) == {2: {"a": "1", "b": "2"}, 6: {"a": "7\n", "b": "8"}}
    assert bad(rows) == {
        3: "has 1 fields, but the header has 2",
        4: "has 3 fields, but the header has 2",
        8: "has 3 fields, but the header has 2",
    }
    assert [value.text for _, value in rows if isinstance(value, BadRow)] == [
        {"a": "3", "": []},
        {"a": "4", "b": "5", "": ["6"]},
        {"a": "9", "b": "10", "": [""]},
    ]


async def test_a_quote_that_is_never_closed_costs_one_row(tmp_path, opened, small):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,2\n"3,4\n5,6\n' + "7,8\n" * 50)
    rows = await rows_of(opened(path))
    assert list(bad(rows)) == [3]
    assert "a quoted field begins here and is not closed" in bad(rows)[3]
    assert list(good(rows)) == [2, *range(4, 55)]


async def test_bytes_that_are_no_utf8_are_a_bad_row(tmp_path, opened):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,\xff\n2,ok\n"3\n\xfe,\n",x\n4,ok\n')
    rows = await rows_of(opened(path))
    assert bad(rows) == {
        2: "is not UTF-8: invalid start byte at byte 2 of line 2",
        4: "is not UTF-8: invalid start byte at byte 0 of line 5",
    }
    assert good(rows) == {3: {"a": "2", "b": "ok"}, 7: {"a": "4", "b": "ok"}}


async def test_nul_bytes_in_csv_are_kept(tmp_path, opened):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,x\x00y\n2,z\n")
    assert good(await rows_of(opened(path))) == {2: {"a": "1", "b": "x\0y"}, 3: {"a": "2", "b": "z"}}


@pytest.mark.parametrize("read", [16, 17, 20, 33, 64, 4096])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
async def test_a_line_that_is_too_long_costs_one_row(tmp_path, opened, monkeypatch, name, read):
    shorten(monkeypatch, 50)
    monkeypatch.setattr("yelpaze.io.reading._READ", read)
    path = tmp_path / name
    lines = ["1", "x" * 50, "3", "y" * 51, "5", "z" * 500, "w" * 501, *map(str, range(8, 20)), "v" * 99]
    if name == "rows.jsonl":
        lines = [line if line.isdigit() else f'"{line[2:]}"' for line in lines]
    text = "\n".join(["0", *lines] if name == "rows.csv" else lines)
    for end in ("", "\n"):
        path.write_text(text + end)
        blocks = await blocks_of(opened(path))
        rows = [row for _, block in blocks for row in block]
        shift = 1 if name == "rows.csv" else 0
        assert sorted(bad(rows)) == [4 + shift, 6 + shift, 7 + shift, 20 + shift]
        assert "the line is longer than" in bad(rows)[4 + shift]
        assert [number for number, _ in rows] == list(range(1 + shift, 21 + shift))
        for cursor, block in blocks:
            again = await rows_of(opened(path), cursor)
            assert again == rows[len(rows) - len(again) :]
            assert not block or again[0] == block[0]


async def test_a_line_that_is_too_long_inside_of_quotes(tmp_path, opened, monkeypatch):
    shorten(monkeypatch, 50)
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,2\n3,"x\n' + "y" * 100 + '\nz"\n4,5\n')
    for read in (16, 1000):
        monkeypatch.setattr("yelpaze.io.reading._READ", read)
        rows = await rows_of(opened(path))
        assert {2, 3, 4, 5} <= {number for number, _ in rows}
        assert {3, 4} <= set(bad(rows))
        assert good(rows)[2] == {"a": "1", "b": "2"}


# ── inputs that cannot be used ──────────────────────────────────────────────────


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a":1}'.encode("utf-16"), "is UTF-16, but must be UTF-8; convert it: iconv -f UTF-16 -t UTF-8"),
        ("a.csv", b"\xfe\xff" + "a,b".encode("utf-16-be"), "iconv -f UTF-16 -t UTF-8"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: the column 'a' is there twice: rename one"),
        ("a.csv", b"a,\xff\n1,2\n", "line 1: is not UTF-8"),
        ("a.csv", b"\n1,2\n", "line 1: is no header: it is empty"),
        ("a.csv", b'"a\n1,2\n', "line 1: is no header: a quoted name is not closed"),
        ("a.csv", b"a,b\r1,2\r3,4\r", "line 1: is no header: new-line character seen in unquoted field"),
        ("a.jsonl.gz", gzip.compress(b"1\n" * 9999, mtime=0)[:-9], "is damaged or cut short"),
        ("a.jsonl.gz", b"1\n2\n", "is damaged or cut short: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-5] + b"wrong", "is damaged or cut short"),
        ("a.jsonl.zst", b"1\n2\n", "is damaged or cut short"),
    ],
)  # fmt: skip
async def test_files_that_cannot_be_read(tmp_path, opened, name, content, message):
    if name.endswith("zst"):
        needs("backports.zstd")
    path = written(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        await rows_of(opened(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize("left", [1, 5, 100, 3000])
async def test_a_zstd_file_that_is_cut_short(tmp_path, opened, left):
    needs("backports.zstd")
    from backports import zstd

    text = b"".join(b"%d\n" % (number * 7919 % 10_000) for number in range(9999))
    packed = zstd.compress(text)
    path = written(tmp_path, "a.jsonl.zst", packed[:-left])
    with pytest.raises(InputError, match="is damaged or cut short"):
        await rows_of(opened(path))
    path.write_bytes(packed)
    assert len(await rows_of(opened(path))) == 9999


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_a_folder_or_nothing_is_no_file(tmp_path, opened, name):
    if name == "a.parquet":
        needs("pyarrow")
    with pytest.raises(InputError, match=r"there is no such file|No such file"):
        opened(tmp_path / name)
    (tmp_path / name).mkdir()
    if name != "a.parquet":
        with pytest.raises(InputError, match="is a folder; give a file"):
            opened(tmp_path / name)
    with pytest.raises(InputError, match="no file matches"):
        opened(tmp_path / "*.none")
    with pytest.raises(InputError, match="several formats"):
        opened(written(tmp_path, "x.csv", b"a\n"), written(tmp_path, "y.jsonl", b"1\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.jsonl", b"\n\n"), ("a.csv", b""), ("a.csv", b"a,b\n"), ("a.csv", b"a,b"), ("a.tsv", b"a\tb\r\n\n"),
     ("a.jsonl.gz", gzip.compress(b"", mtime=0)), ("a.csv", b"\xef\xbb\xbfa,b\n")],
)  # fmt: skip
async def test_files_without_rows(tmp_path, opened, name, content):
    assert await rows_of(opened(written(tmp_path, name, content))) == []


async def test_a_bom_is_no_part_of_the_first_name(tmp_path, opened):
    path = written(tmp_path, "a.csv", b"\xef\xbb\xbfa,b\n1,2\n")
    assert await rows_of(opened(path)) == [(2, {"a": "1", "b": "2"})]


async def test_a_header_of_several_lines_that_comes_in_pieces(tmp_path, opened, monkeypatch):
    monkeypatch.setattr("yelpaze.io.reading._READ", 4)
    path = written(tmp_path, "a.csv", b'"a\nb\nc",d\n1,2\n')
    assert await rows_of(opened(path)) == [(4, {"a\nb\nc": "1", "d": "2"})]


async def test_a_pipe_is_read_once_and_as_it_comes(tmp_path, opened):
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"1\n2"), daemon=True)
    writer.start()
    source = opened(path)
    assert source.size is None
    assert source.identity() is None
    assert await rows_of(source) == [(1, 1), (2, 2)]
    writer.join()


# ── Parquet ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def arrow():
    needs("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa, pq


async def test_nested_types_of_parquet(tmp_path, opened, arrow):
    pa, pq = arrow
    rows = [
        {"a": [{"b": [1, None]}, None], "m": {"x": None}, "t": "ş"},
        {"a": None, "m": {"x": 1.5}, "t": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert await rows_of(opened(tmp_path / "a.parquet")) == [(1, rows[0]), (2, rows[1])]


async def test_values_of_parquet_that_python_has_no_type_for(tmp_path, opened, arrow):
    pa, pq = arrow
    table = pa.table({
        "id": [1, 2, 3],
        "at": pa.array([0, 2**62, 1], pa.timestamp("us")),
        "far": pa.array([0, 1, 2], pa.date32()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    rows = await rows_of(opened(tmp_path / "a.parquet"))
    assert list(good(rows)) == [1, 3]
    assert "has a value that cannot be read" in bad(rows)[2]


async def test_parquet_that_cannot_be_read(tmp_path, opened, arrow):
    pa, pq = arrow
    path = written(tmp_path, "a.parquet", b"PAR1 and no more")
    with pytest.raises(InputError, match="is no Parquet file that can be read"):
        opened(path)
    pq.write_table(pa.table({"a": list(range(20_000))}), path, row_group_size=5000)
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data[middle : middle + 60] = b"\xff" * 60
    path.write_bytes(data)
    source, seen = opened(path), []
    with pytest.raises(InputError, match="is damaged or cannot be read"):
        async for _, rows in source.blocks():
            seen += rows
    assert len(seen) >= 10_000
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(InputError, match="the column 'a' is there twice"):
        opened(path)


# ── databases ───────────────────────────────────────────────────────────────────


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """A function that runs SQL in it; `.url` and `.table` are for the source."""
    if request.param == "sqlite":
        path = tmp_path / "rows.db"

        def run(text):
            connection = sqlite3.connect(path)
            with connection:
                connection.executescript(text.replace("TABLE_", run.table))
            connection.close()

        run.url, run.table = f"sqlite:///{path}", "t"
        run("CREATE TABLE other (x integer)")
        return run
    needs("psycopg")
    import psycopg

    server = request.getfixturevalue("postgres").url

    def run(text):
        with psycopg.connect(server) as connection:
            connection.execute(text.replace("TABLE_", run.table))

    run.url, run.table = server, f"bad_{request.node.name.partition('[')[0][:50]}".lower()
    return run


async def test_keys_that_are_there_twice(database, opened, small):
    database("CREATE TABLE TABLE_ (k integer, v integer)")
    database("INSERT INTO TABLE_ VALUES (1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (5, 1)")  # at a page's edge
    source, seen = opened(f"{database.url}?table={database.table}&key=k"), []
    with pytest.raises(InputError, match="the key 'k' is not unique: 4 is there twice"):
        async for _, rows in source.blocks():
            seen += rows
    assert len(seen) <= 4


async def test_keys_that_are_null(database, opened):
    database("CREATE TABLE TABLE_ (k integer, v integer)")
    database("INSERT INTO TABLE_ VALUES (1, 1), (NULL, 2)")
    with pytest.raises(InputError, match="the key 'k' is null in some rows"):
        await rows_of(opened(f"{database.url}?table={database.table}&key=k"))


async def test_keys_that_json_cannot_keep(database, opened, small):
    kind = "bytea" if database.url.startswith("postgres") else "blob"
    database(f"CREATE TABLE TABLE_ (k {kind})")
    for number in range(1, 8):
        text = f"'\\x0{number}'" if kind == "bytea" else f"x'0{number}'"
        database(f"INSERT INTO TABLE_ VALUES ({text})")
    with pytest.raises(InputError, match="the key 'k' cannot hold b'"):
        await rows_of(opened(f"{database.url}?table={database.table}&key=k"))


async def test_tables_without_rows(database, opened):
    database("CREATE TABLE TABLE_ (k integer PRIMARY KEY)")
    assert await rows_of(opened(f"{database.url}?table={database.table}")) == []


def test_what_a_database_does_not_have(database, opened):
    database("CREATE TABLE TABLE_ (k integer, v integer)")
    table = database.table
    for options, message in (
        ("table=nowhere&key=k", "nowhere"),
        (f"table={table}&key=none", "has no column 'none'; columns are: k, v"),
        (f"table={table}", "rows are read in the order of a unique column: name it with key=COLUMN"),
        (f"query=SELECT%20*%20FROM%20{table}", "name it with key=COLUMN"),
        (f"query=SELECT%20nope%20FROM%20{table}&key=k", "nope"),
        ("query=SELECT%20FROM%20,&key=k", "syntax error"),
        (f"table={table}&query=SELECT%201&key=k", "give one of table=NAME and query=SELECT"),
        ("key=k", "give one of table=NAME and query=SELECT"),
        (f"table={table}&key=", "need a value"),
        (f"table={table}&key=k#x", "write # as %23"),
    ):
        with pytest.raises(InputError) as caught:
            opened(f"{database.url}?{options}")
        assert message in str(caught.value)


async def test_columns_that_are_there_twice(database, opened):
    url = f"{database.url}?key=k&query=SELECT%201%20AS%20k,%202%20AS%20v,%203%20AS%20v"
    if "postgres" in url:
        with pytest.raises(InputError, match="the column 'v' is there twice"):
            opened(url)
    else:  # it gives the second another name
        assert await rows_of(opened(url)) == [(1, {"k": 1, "v": 2, "v:1": 3})]


async def test_a_query_that_fails_in_the_middle(database, opened, small):
    database("CREATE TABLE TABLE_ (k integer PRIMARY KEY)")
    database(f"INSERT INTO TABLE_ VALUES {', '.join(f'({number})' for number in range(1, 30))}")
    # The server must not look at all rows to sort them.
    database.url += (
        "?options=-c%20enable_sort%3Doff%20-c%20enable_seqscan%3Doff" if "postgres" in database.url else "?"
    )
    fails = (
        "10 / (k - 14)"
        if "postgres" in database.url
        else "abs(CASE WHEN k = 14 THEN -9223372036854775808 ELSE k END)"
    )
    query = f"SELECT k, {fails} AS v FROM {database.table}".replace(" ", "%20")
    source, seen = opened(f"{database.url}&query={query}&key=k"), []
    with pytest.raises(InputError, match=r"division by zero|integer overflow"):
        async for _, rows in source.blocks():
            seen += rows
    assert [row[0] for row in seen] == list(range(1, len(seen) + 1))
    assert 4 <= len(seen) < 14


def test_databases_that_are_not_there(tmp_path, opened, postgres):
    base = postgres.url.rpartition("/")[0]
    text = written(tmp_path, "text.db", b"no database, but long enough to look at" * 9)
    for url, message in (
        (f"{base}/nowhere?table=t&key=k", 'no connection: .*database "nowhere" does not exist'),
        ("postgresql://127.0.0.1:1/x?table=t&key=k", "no connection: "),
        (f"sqlite:///{tmp_path}/none.db?table=t", "there is no such file"),
        (f"sqlite:///{tmp_path}?table=t", "there is no such file|is a folder"),
        (f"sqlite:///{text}?table=t", "file is not a database"),
        ("sqlite://?table=t", "give the file"),
        ("mysql://x/y?table=t", "rows come from files or from sqlite://, postgresql://"),
    ):
        with pytest.raises(InputError, match=message):
            opened(url)
    with pytest.raises(InputError, match="one URL can be the input"):
        opened("sqlite:///a.db?table=t", "b.jsonl")


async def test_a_password_is_in_no_message(postgres, opened):
    base = postgres.url.replace("tester@", "tester:hunter2@").rpartition("/")[0]
    with pytest.raises(InputError) as caught:
        opened(f"{base}/nowhere?table=t&key=k")
    assert "hunter2" not in str(caught.value)
    source = opened(f"{base}/postgres?query=SELECT%201%20AS%20k&key=k")
    assert "hunter2" not in json.dumps(source.identity())


async def test_a_connection_that_is_lost_between_two_pages(postgres, opened, small):
    import psycopg

    query = "SELECT k FROM generate_series(1, 11) AS k".replace(" ", "%20")
    source, seen = opened(f"{postgres.url}?query={query}&key=k"), []
    async for _, rows in source.blocks():
        seen += [row[2]["k"] for row in rows]
        with psycopg.connect(postgres.url) as other:
            other.execute(
                "SELECT pg_terminate_backend(%s, 5000)", [source._database._connection.info.backend_pid]
            )
    assert seen == list(range(1, 12))
    assert len(ROWS) > len(seen)


@given(
    st.sampled_from(",;\t|"),
    st.lists(st.text('ab,;|\t" ', min_size=1, max_size=8), min_size=2, max_size=4, unique=True),
)
@settings(max_examples=150)
def test_delimiters_inside_of_quoted_names_are_none(delimiter, names):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "in.csv")
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerow(names)
            writer.writerow([str(number) for number in range(len(names))])
        rows = asyncio.run(rows_of(open_source((path,))))
    assert [value for _, value in rows] == [{name: str(number) for number, name in enumerate(names)}]


@pytest.mark.parametrize("name", ["IN.CSV", "In.Csv.GZ", "in.csv.Gz", "IN.TSV.gz"])
async def test_endings_are_read_in_any_case(opened, tmp_path, name):
    text = b"a\tb\n1\t2\n" if "tsv" in name.lower() else b"a,b\n1,2\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith(".gz") else text)
    assert [value for _, value in await rows_of(opened(tmp_path / name))] == [{"a": "1", "b": "2"}]
