"""Readers that are left early close what they read, without the garbage collector's help."""

import gc
import os
import warnings

import pytest

from yelpaze.io.delimited import DelimitedSource
from yelpaze.io.iterable import IterableSource
from yelpaze.io.jsonl import JsonlSource
from yelpaze.io.sampled import Sampled
from yelpaze.model.closing import closing


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    gc.enable()


def open_files(path):
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    names = (os.path.join(folder, name) for name in os.listdir(folder))
    return [name for name in names if os.path.exists(name) and os.path.samefile(name, path)]


@pytest.mark.parametrize(
    ("kind", "ending", "line"),
    [(JsonlSource, "jsonl", b'{"n":1}\n'), (DelimitedSource, "csv", b"a,b\n"), (Sampled, "jsonl", b"[1]\n")],
)
async def test_a_reader_that_is_left_in_the_middle_closes_its_file(tmp_path, kind, ending, line):
    path = tmp_path / f"in.{ending}"
    path.write_bytes(line * 200_000)
    source = Sampled(JsonlSource([str(path)]), 5) if kind is Sampled else kind([str(path)])
    blocks = source.blocks()
    async with closing(blocks) as opened:
        async for _ in opened:
            break
    assert open_files(path) == []
    kept = [blocks, source]  # nothing is closed because it is forgotten
    assert len(kept) == 2


async def test_what_cannot_be_closed_is_left_alone():
    class Numbers:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return 1

    async with closing(Numbers()) as opened:
        async for one in opened:
            assert one == 1
            break


async def test_rows_of_the_callers_own_generator_end_with_the_source():
    source = IterableSource([1, 2, 3], None)
    async with closing(source.blocks()) as opened:
        async for block in opened:
            assert [value for _, _, value in block.rows] == [1, 2, 3]
            break
