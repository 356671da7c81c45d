"""`Engine(truncate=True)`: no more than `max_body` is read, and the answer counts as whole."""

import pytest

from support.raw import Peer
from yelpaze import Engine, MisuseError, get


async def long_answers(peer: Peer) -> None:
    while await peer.request():
        await peer.answer(b"x" * 100_000)


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not peer.writer.is_closing():
        await peer.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")


@pytest.mark.parametrize(("script", "status"), [(long_answers, 200), (endless, 201)])
async def test_a_longer_answer_is_cut_and_good(raw, script, status):
    server = await raw(script)
    async with Engine(truncate=True, compressed=False, max_body=1000) as engine:
        for _ in range(3):  # the handle is used again
            outcome = await engine.send(get(f"{server.url}/"))
            assert (outcome.ok, outcome.status, outcome.body) == (True, status, b"x" * 1000)


async def test_the_status_of_a_cut_answer_counts(raw):
    async def refuse(peer):
        await peer.request()
        await peer.answer(b"x" * 100_000, "500 Oh")

    server = await raw(refuse)
    async with Engine(truncate=True, compressed=False, max_body=10, retry=None) as engine:
        outcome = await engine.send(get(f"{server.url}/"))
        assert (outcome.status, outcome.body, outcome.error.kind) == (500, b"x" * 10, "status")


async def test_an_answer_of_just_that_length_is_whole_and_keeps_its_connection(raw):
    async def fitting(peer):
        while await peer.request():
            await peer.answer(b"x" * 1000)

    server = await raw(fitting)
    async with Engine(truncate=True, compressed=False, max_body=1000) as engine:
        outcomes = [await engine.send(get(f"{server.url}/")) for _ in range(3)]
    assert all(outcome.body == b"x" * 1000 for outcome in outcomes)
    assert [outcome.timings.connect > 0 for outcome in outcomes] == [True, False, False]


def test_what_is_coded_cannot_be_cut():
    with pytest.raises(MisuseError, match="compressed=False"):
        Engine(truncate=True)
