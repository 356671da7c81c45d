"""Answers in memory are bounded: younger transfers wait, the oldest goes on, nothing is lost or timed out for it."""

import asyncio

import pytest

from support.nginx import Nginx
from yelpaze import Engine, Flow, MisuseError, Response, Timeout, get

MB = 1 << 20
BODY = bytes(2 * MB)


async def whole(peer) -> None:
    while await peer.request():
        await peer.answer(BODY)


class Halves:
    """A server that sends half of an answer, and the rest once `more` is set."""

    def __init__(self) -> None:
        self.more = asyncio.Event()

    async def __call__(self, peer) -> None:
        while await peer.request():
            half = len(BODY) // 2
            await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:half])
            await self.more.wait()
            await peer.send(BODY[half:])


class Held:
    """The most bytes of bodies that the transport had at once, looked at after each piece."""

    def __init__(self, engine: Engine) -> None:
        self.most = 0
        self.transport = transport = engine._core.transport
        weigh = transport._weigh

        def weighed() -> None:
            self.most = max(self.most, sum(len(handle.body) for handle in transport._active.values()))
            weigh()

        transport._weigh = weighed


async def test_many_large_answers_take_turns(raw):
    server = await raw(whole)
    async with Engine(memory=16 * MB, per_host=100, timeout=Timeout(attempt=60)) as engine:
        held = Held(engine)
        outcomes = await asyncio.gather(*(engine.send(get(f"{server.url}/{n}")) for n in range(100)))
        assert [len(outcome.body) for outcome in outcomes] == [len(BODY)] * 100
        assert all(len(outcome.attempts) == 1 for outcome in outcomes)
        # 200 MB in all. A piece may come before the next look: a socket's buffer for each connection.
        assert held.most < 60 * MB
        assert not held.transport._paused


async def test_time_spent_paused_is_not_the_servers(raw):
    """A younger transfer waits for longer than its attempt time-out, and goes on once there is room."""
    loop = asyncio.get_running_loop()
    halves = Halves()
    server = await raw(halves)
    async with Engine(memory=MB, clock=loop.time) as engine:
        engine.hold(engine.next_order(), 4 * MB)
        older = asyncio.ensure_future(engine.send(get(server.url)))
        call = asyncio.ensure_future(engine.send(get(server.url, timeout=2.0, retry=False)))
        while len(engine._core.transport._paused) < 1:
            await asyncio.sleep(0.01)
        loop.advance(2.3)
        await asyncio.sleep(0.01)
        assert not call.done()
        halves.more.set()
        for outcome in await asyncio.gather(older, call):
            assert outcome.ok, outcome.error
            assert len(outcome.body) == len(BODY)


async def test_a_paused_call_can_be_cancelled_and_the_engine_closed(raw):
    halves = Halves()
    server = await raw(halves)
    async with Engine(memory=MB) as engine:
        engine.hold(engine.next_order(), 4 * MB)
        calls = [asyncio.ensure_future(engine.send(get(server.url))) for _ in range(3)]
        while len(engine._core.transport._paused) < 2:  # the oldest goes on
            await asyncio.sleep(0.01)
        calls[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[2]
        assert len(engine._core.transport._paused) == 1
    outcomes = await asyncio.gather(*calls[:2])
    assert {outcome.error.kind for outcome in outcomes} == {"cancelled"}
    halves.more.set()  # the server's side ends, too


async def test_streams_of_one_http2_connection_wait_each_by_itself(nginx: Nginx, ca_file):
    text = nginx.folder / "text"
    text.mkdir(exist_ok=True)
    (text / "large").write_bytes(BODY)
    async with Engine(memory=4 * MB, http_version="2", ca_file=ca_file, compressed=False) as engine:
        url = nginx.url("http2", "/text/large")
        outcomes = await asyncio.gather(*(engine.send(get(url)) for _ in range(30)))
        assert [outcome.status for outcome in outcomes] == [200] * 30
        assert {outcome.http_version for outcome in outcomes} == {"2"}
        assert {len(outcome.body) for outcome in outcomes} == {len(BODY)}


def test_memory_is_a_number_of_bytes():
    for wrong in (0, -1, 1.5, "1M"):
        with pytest.raises(MisuseError, match="memory takes a number of bytes"):
            Engine(memory=wrong)


async def test_rows_that_wait_for_slots_of_paused_transfers_get_on(raw):
    """The oldest rows hold their first answers and wait for slots, which paused transfers have."""
    server = await raw(whole)
    flow = Flow("two", engine={"memory": 4 * MB, "per_host": 4})

    @flow.request
    def first(row):
        return get(f"{server.url}/{row}/first")

    @flow.request
    def second(row, first):
        return get(f"{server.url}/{row}/second")

    @flow.compute
    def size(first: Response, second: Response):
        return len(first.body) + len(second.body)

    results = await flow.run(range(24), concurrency=16)
    assert [result.value for result in results] == [2 * len(BODY)] * 24
