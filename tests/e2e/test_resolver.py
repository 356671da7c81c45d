"""Names: a hundred dead ones beside a good one, and one look-up for many calls."""

import asyncio
import socket
import threading

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from support.raw import answers
from yelpaze import Engine, HostPolicy, get
from yelpaze.http.resolver import AsyncResolver
from yelpaze.model.url import origin_of


class NameServer:
    """Answers `good.test`, says no to `none.test`, and is silent about `dead…`."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self.socket.recvfrom(4096)
            except OSError:
                return
            query = DNSRecord.parse(data)
            name = str(query.q.qname).rstrip(".")
            self.asked.append(f"{name} {QTYPE[query.q.qtype]}")
            if name.startswith("dead") or name == "stop.test":
                continue
            reply = query.reply()
            if name == "none.test":
                reply.header.rcode = 3
            elif query.q.qtype == QTYPE.A:
                reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.1"), ttl=60))
            self.socket.sendto(reply.pack(), sender)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def names():
    server = NameServer()
    yield server
    server.close()


def engine_with(names: NameServer, **options) -> Engine:
    return Engine(resolver=lambda: AsyncResolver([f"127.0.0.1:{names.port}"]), **options)


async def test_a_hundred_dead_names_do_not_hold_up_a_good_one(names, raw):
    server = await raw(answers)
    async with engine_with(names, retry=None) as engine:
        dead = [asyncio.create_task(engine.send(get(f"http://dead{n}.test/"))) for n in range(100)]
        while len(names.asked) < 50:
            await asyncio.sleep(0.01)
        good = await asyncio.wait_for(engine.send(get(f"http://good.test:{server.port}/")), 30)
        assert good.ok
        assert good.remote_ip == "127.0.0.1"
        assert good.timings.dns > 0
        assert not any(task.done() for task in dead)
    assert {(await task).error.kind for task in dead} == {"cancelled"}


async def test_many_calls_share_one_look_up(names, raw):
    server = await raw(answers)
    async with engine_with(names) as engine:
        requests = [get(f"http://good.test:{server.port}/") for _ in range(200)]
        assert all([outcome.ok async for outcome in engine.stream(requests)])
    assert names.asked.count("good.test A") == 1


async def test_a_name_that_does_not_exist_is_a_dns_error(names):
    async with engine_with(names, retry=None) as engine:
        outcome = await engine.send(get("http://none.test/"))
    assert outcome.error.kind == "dns"
    assert "none.test" in outcome.error.message


async def test_localhost_and_the_system_resolver(raw):
    server = await raw(answers)
    for resolver in ("auto", "system"):
        async with Engine(resolver=resolver) as engine:
            outcome = await engine.send(get(f"http://localhost:{server.port}/"))
            assert outcome.ok, outcome.error


async def test_a_name_with_a_final_dot_is_whole_and_the_same_name(names, raw):
    server = await raw(answers)
    async with engine_with(names, hosts={"good.test": HostPolicy(deadline=7)}) as engine:
        dotted = [f"http://{name}.:{server.port}/" for name in ("good.test", "localhost")]
        outcomes = [await engine.send(get(url)) for url in dotted]
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert engine.policies.of(origin_of(dotted[0]))[0].deadline == 7
    assert {question.partition(" ")[0] for question in names.asked} == {"good.test"}
