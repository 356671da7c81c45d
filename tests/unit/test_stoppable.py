"""A reader ends with its input, or when it is stopped, and not otherwise."""

import asyncio

import pytest

from yelpaze.io.stoppable import StoppableReader


async def blocks(*values, silent=False):
    for value in values:
        yield value
    if silent:
        await asyncio.Event().wait()


async def test_it_ends_with_its_input():
    reader = StoppableReader(blocks([1], [2]))
    assert [await reader.next(), await reader.next(), await reader.next()] == [[1], [2], None]


async def test_stopping_ends_a_read_that_waits():
    reader = StoppableReader(blocks([1], silent=True))
    assert await reader.next() == [1]
    asyncio.get_running_loop().call_soon(reader.stop)
    assert await asyncio.wait_for(reader.next(), 10) is None
    assert await reader.next() is None


async def test_who_cancels_the_reader_still_cancels_it():
    reader = StoppableReader(blocks(silent=True))
    task = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
