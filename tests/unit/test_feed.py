"""A feed ends with its input, or when it is stopped, and not otherwise."""

import asyncio

import pytest

from yelpaze.io.feed import Feed


async def blocks(*values, silent=False):
    for value in values:
        yield value
    if silent:
        await asyncio.Event().wait()


async def test_it_ends_with_its_input():
    feed = Feed(blocks([1], [2]))
    assert [await feed.next(), await feed.next(), await feed.next()] == [[1], [2], None]


async def test_stopping_ends_a_read_that_waits():
    feed = Feed(blocks([1], silent=True))
    assert await feed.next() == [1]
    asyncio.get_running_loop().call_soon(feed.stop)
    assert await asyncio.wait_for(feed.next(), 10) is None
    assert await feed.next() is None


async def test_who_cancels_the_reader_still_cancels_it():
    feed = Feed(blocks(silent=True))
    task = asyncio.ensure_future(feed.next())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
