"""The commit contract: after a crash each row is wholly there and in the progress, or neither."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.io.jsonl import JsonlSink, JsonlSource
from yelpaze.io.protocol import Progress
from yelpaze.model.errors import InputError


def sink_in(folder, *, fresh=False) -> JsonlSink:
    return JsonlSink(folder / "out.jsonl", folder / "out.failures.jsonl", fresh=fresh)


def lines(path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def take(sink, row: int) -> None:
    if row % 5 == 0:
        sink.fail({"row": row})
    else:
        sink.write(row, b'{"value":%d}' % row)


def test_what_was_not_committed_is_undone(tmp_path):
    sink = sink_in(tmp_path)
    assert sink.recover() == Progress()
    for row in (1, 2, 3, 5, 7):
        take(sink, row)
    sink.commit(Progress(3, (5, 7)))
    for row in (4, 6, 10):
        take(sink, row)
    sink.flush()
    assert len(lines(tmp_path / "out.jsonl")) == 6
    # The process dies here: nothing is closed. A new one goes on.
    again = sink_in(tmp_path)
    assert again.recover() == Progress(3, (5, 7))
    assert [line["row"] for line in lines(tmp_path / "out.jsonl")] == [1, 2, 3, 7]
    assert [line["row"] for line in lines(tmp_path / "out.failures.jsonl")] == [5]
    for row in (4, 6):
        take(again, row)
    again.finish()
    again.close()
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.failures.jsonl", "out.jsonl"]


LIVES = st.lists(
    st.tuples(st.lists(st.booleans(), max_size=12), st.booleans(), st.booleans()), min_size=1, max_size=4
)


@given(LIVES)
def test_any_crash_leaves_exactly_what_was_committed(tmp_path_factory, lives):
    folder = tmp_path_factory.mktemp("sink")
    committed = 0
    for commits, flushes, tears in lives:
        sink = sink_in(folder)
        assert sink.recover().through == committed
        done = committed
        for commit in commits:
            done += 1
            take(sink, done)
            if commit:
                sink.commit(Progress(done))
                committed = done
        if flushes:
            sink.flush()
        sink.close()
        # A write that a power cut tore: part of a line at the end of every file.
        for path in folder.iterdir() if tears else ():
            with path.open("ab") as file:
                file.write(b'{"row":99')
    sink = sink_in(folder)
    assert sink.recover().through == committed
    sink.close()
    seen = [line["row"] for path in ("out.jsonl", "out.failures.jsonl") for line in lines(folder / path)]
    assert sorted(seen) == list(range(1, committed + 1))


def test_a_fresh_sink_forgets(tmp_path):
    sink = sink_in(tmp_path)
    sink.recover()
    take(sink, 1)
    take(sink, 5)
    sink.commit(Progress(5))
    sink.close()
    fresh = sink_in(tmp_path, fresh=True)
    assert fresh.recover() == Progress()
    fresh.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == b""


async def rows_of(path, **options) -> list:
    source = JsonlSource(str(path), **options)
    rows = [row for block in [b async for b in source.blocks()] for row in block]
    assert source.rows == len(rows)
    return [(number, raw) for number, raw, _ in rows]


async def test_lines_are_numbered_from_one_and_blank_ones_count(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\n\n  \r\n2\r\n3")
    assert await rows_of(path) == [(1, b"1"), (4, b"2\r"), (5, b"3")]
    assert await rows_of(path, limit=2) == [(1, b"1"), (4, b"2\r")]
    path.write_bytes(b"")
    assert await rows_of(path) == []
    path.write_bytes(b"1\n")
    assert await rows_of(path) == [(1, b"1")]


async def test_rows_longer_than_a_read_stay_whole(tmp_path):
    path = tmp_path / "in.jsonl"
    long = b'"' + b"x" * 700_000 + b'"'
    path.write_bytes(b"\n".join([long, b"1", long, b"2"]))
    assert await rows_of(path) == [(1, long), (2, b"1"), (3, long), (4, b"2")]


async def test_a_pipe_is_a_source(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    os.write(writer, b"1\n2")
    import asyncio

    source = JsonlSource(str(path))
    blocks = source.blocks()
    assert await anext(blocks) == [(1, b"1", None)]
    asyncio.get_running_loop().call_soon(os.close, writer)
    assert await anext(blocks) == [(2, b"2", None)]


def test_inputs_that_cannot_be_used(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=str(path)):
            JsonlSource(str(path))
