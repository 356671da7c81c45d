"""The address guard against names, notations, redirects and a name server that changes its answer."""

import asyncio
import os
import socket
import threading

import pytest
from dnslib import AAAA, QTYPE, RR, A, DNSRecord

from support.raw import Peer, answers
from yelpaze import AddressGuard, Breaker, Engine, ErrorKind, HostPolicy, get
from yelpaze.http.resolver import AsyncResolver


class Rebinding:
    """A name server whose answers for a name come one after the other, the last one again and again."""

    def __init__(self, **names: list[str]) -> None:
        self._names = {name.replace("_", "."): list(addresses) for name, addresses in names.items()}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            query = DNSRecord.parse(data)
            name, reply = str(query.q.qname).rstrip("."), query.reply()
            addresses = self._names[name]
            wanted = "." if query.q.qtype == QTYPE.A else ":"
            if wanted in addresses[0]:
                for one in addresses[0].split():
                    rdata = A(one) if wanted == "." else AAAA(one)
                    reply.add_answer(RR(name, query.q.qtype, rdata=rdata, ttl=0))
                if len(addresses) > 1:
                    addresses.pop(0)
            self._socket.sendto(reply.pack(), sender)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def names():
    started = []

    def start(**names: list[str]):
        server = Rebinding(**names)
        started.append(server)
        return lambda: AsyncResolver([server.address])

    yield start
    for server in started:
        server.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "localhost",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
    ],
)
@pytest.mark.parametrize("resolver", ["auto", "system"])
async def test_no_notation_gets_round_it(raw, host, resolver):
    server = await raw(answers)
    async with Engine(address_guard=AddressGuard(), resolver=resolver, timeout=10) as engine:
        outcome = await engine.send(get(f"http://{host}:{server.port}/"))
    assert outcome.error.kind is ErrorKind.BLOCKED_ADDRESS, outcome.error
    assert "address_guard refuses it" in outcome.error.message
    assert len(outcome.attempts) == 1  # final
    assert server.connections == 0


async def test_what_is_allowed_is_called(raw):
    server = await raw(answers)
    async with Engine(address_guard=AddressGuard(allow=["127.0.0.0/8"])) as engine:
        for _ in range(3):
            assert (await engine.send(get(server.url))).ok
    assert server.connections == 1


async def test_a_name_that_changes_its_address(raw, names):
    """The first look-up gives a good address, the second one a private one (DNS rebinding)."""
    server = await raw(answers)
    resolver = names(bound_test=["127.0.0.1", "127.0.0.2"])
    guard = AddressGuard(allow=["127.0.0.1"])
    async with Engine(address_guard=guard, resolver=resolver, connections=0) as engine:
        url = f"http://bound.test:{server.port}/"
        assert (await engine.send(get(url))).ok
        engine._core.resolver._cache.clear()  # as time does
        outcome = await engine.send(get(url))
    assert outcome.error.kind == "blocked_address"
    assert "127.0.0.2" in outcome.error.message


async def test_a_kept_connection_is_not_a_way_round_it(raw, names):
    server = await raw(answers)
    resolver = names(bound_test=["127.0.0.1"])
    async with Engine(address_guard=AddressGuard(), resolver=resolver) as engine:
        for _ in range(3):
            outcome = await engine.send(get(f"http://bound.test:{server.port}/"))
            assert outcome.error.kind == "blocked_address"
    assert server.connections == 0


async def test_a_name_with_a_good_and_a_bad_address_is_called_at_the_good_one(raw, names):
    server = await raw(answers)
    resolver = names(both_test=["127.0.0.9 127.0.0.1"])
    async with Engine(address_guard=AddressGuard(allow=["127.0.0.1"]), resolver=resolver) as engine:
        outcome = await engine.send(get(f"http://both.test:{server.port}/"))
    assert outcome.ok, outcome.error
    assert outcome.remote_ip == "127.0.0.1"


async def test_what_happens_at_the_good_address_is_not_the_guards_doing(raw, names):
    """A private record beside a public one must not switch off retries and breaker."""

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

    server = await raw(cut)
    resolver = names(both_test=["10.1.2.3 127.0.0.1"])
    async with Engine(address_guard=AddressGuard(allow=["127.0.0.1"]), resolver=resolver) as engine:
        outcome = await engine.send(get(f"http://both.test:{server.port}/"))
        assert (outcome.error.kind, len(outcome.attempts)) == ("protocol", 3)
        outcome = await engine.send(get("http://both.test:1/"))
        assert (outcome.error.kind, len(outcome.attempts)) == ("connect", 3)
        assert sum(host.failures for host in engine.statistics().hosts.values()) == 6


async def test_guarded_sockets_are_not_inherited_and_cannot_run_out_loudly(raw, monkeypatch, capfd):
    server = await raw(answers)
    real = socket.socket
    async with Engine(address_guard=AddressGuard(allow=["127.0.0.1"]), retry=None) as engine:
        assert (await engine.send(get(server.url))).ok
        fds = engine._core.transport._connected
        assert fds
        assert not any(os.get_inheritable(fd) for fd in fds)

        def none_left(*arguments, **options):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("yelpaze.http.guarded_socket.socket.socket", none_left)
        outcome = await engine.send(get("http://127.0.0.1:1/"))
        monkeypatch.setattr("yelpaze.http.guarded_socket.socket.socket", real)
        assert outcome.error.kind == "connect"
    assert capfd.readouterr().err == ""


async def test_a_call_that_cannot_be_sent_after_its_look_up_ends(raw, names):
    server = await raw(answers)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    async with Engine(resolver=names(some_test=["127.0.0.1"]), per_host=1) as engine:
        start = engine._core.transport.start

        def broken(attempt, on_done):
            engine._core.transport.start = start
            raise OSError("no more handles")

        engine._core.transport.start = broken
        outcome = await engine.send(get(f"http://some.test:{server.port}/"))
        assert (outcome.error.kind, len(outcome.attempts)) == ("protocol", 0)
        assert "no more handles" in outcome.error.message
        assert (await engine.send(get(f"http://some.test:{server.port}/"))).ok  # its slot is free
    assert reported == ["a call could not be sent"]


async def test_redirects_are_guarded(raw):
    async def redirects(peer: Peer) -> None:
        await peer.request()
        await peer.answer(status="302 Found", headers="Location: http://127.0.0.2:9/\r\n")

    server = await raw(redirects)
    async with Engine(address_guard=AddressGuard(allow=["127.0.0.1"])) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error.kind == "blocked_address"
    assert "127.0.0.2" in outcome.error.message


async def test_it_is_not_the_hosts_fault(raw):
    """Neither breaker nor parking hears of it: one customer's bad endpoint is that customer's alone."""
    server = await raw(answers)
    async with Engine(address_guard=AddressGuard(), breaker=Breaker(calls=1)) as engine:
        outcomes = [outcome async for outcome in engine.stream([get(server.url)] * 30)]
        assert {outcome.error.kind for outcome in outcomes} == {"blocked_address"}
        (host,) = engine.statistics().hosts.values()
    assert (host.failures, host.state, host.retries) == (0, "closed", 0)


# ── pauses of one call ──────────────────────────────────────────────────────────────


async def test_without_pauses_one_calls_retry_after_delays_no_other(raw):
    async def busy(peer: Peer) -> None:
        while True:
            line = (await peer.request()).split(b"\r\n", 1)[0]
            if b"/busy" in line:
                await peer.answer(status="429 Too Many Requests", headers="Retry-After: 300\r\n")
            else:
                await peer.answer(headers="RateLimit-Remaining: 0\r\nRateLimit-Reset: 300\r\n")

    server = await raw(busy)
    hosts = {"*": HostPolicy(pauses=False, retry=None)}
    async with Engine(hosts=hosts, deadline=20) as engine:
        assert (await engine.send(get(f"{server.url}/busy"))).status == 429
        for _ in range(3):
            assert (await engine.send(get(f"{server.url}/other"))).ok
        assert not engine.troubles()
