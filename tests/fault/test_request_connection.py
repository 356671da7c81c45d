"""What one request can say of its connection: redirects, family, certificate, key groups, guarded look-ups."""

import asyncio
import contextlib
import datetime as dt
import ssl

import pytest
import uvloop
from dnslib import QTYPE, RCODE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from support.ports import free_port
from yelpaze import AddressGuard, Connect, Engine, MisuseError, Tls, get
from yelpaze.http.resolver import Answer, AsyncResolver
from yelpaze.testing import MockTransport, Reply

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def closed(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Server:
    """Waits for its handlers at the end, which asyncio's does not."""

    def __init__(self):
        self.tasks = set()

    def handled(self, handle):
        async def run(reader, writer):
            self.tasks.add(asyncio.current_task())
            await handle(reader, writer)

        return run

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def serving(answer, context=None, handle=None):
    async def reply(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client gave up in the handshake
        finally:
            await closed(writer)

    server = Server()
    handled = server.handled(handle or reply)
    server.server = await asyncio.start_server(handled, "127.0.0.1", 0, ssl=context)
    return server, server.server.sockets[0].getsockname()[1]


class Names(BaseResolver):
    """Answers by the name's first label."""

    def __init__(self):
        self.asked = []

    def resolve(self, request, handler):
        reply, name = request.reply(), request.q.qname
        label = str(name).split(".")[0]
        self.asked.append((label, QTYPE[request.q.qtype]))
        if label == "missing":
            reply.header.rcode = RCODE.NXDOMAIN
        elif label == "broken":
            reply.header.rcode = RCODE.SERVFAIL
        elif label == "refused":
            reply.header.rcode = RCODE.REFUSED
        elif label != "empty" and request.q.qtype == QTYPE.A:
            reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.1"), ttl=60))
        return reply


@pytest.fixture
def names():
    names = Names()
    server = DNSServer(names, port=free_port(), address="127.0.0.1", logger=DNSLogger(logf=lambda _: None))
    server.start_thread()
    names.address = f"127.0.0.1:{server.server.server_address[1]}"
    yield names
    server.stop()
    server.server.server_close()


async def test_a_request_says_how_many_redirects_are_followed():
    server, port = await serving(
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    async with server, Engine() as engine:
        url = f"http://127.0.0.1:{port}/"
        assert (await engine.send(get(url, redirects=0))).status == 302
        outcome = await engine.send(get(url, redirects=2))
        assert "one more than 2 redirects" in outcome.error.message
        assert len(outcome.attempts) == 3
    with pytest.raises(MisuseError, match="redirects"):
        get(url, redirects=-1)


async def test_the_expiry_of_the_certificate_is_data(ca, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expires = dt.datetime(2030, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    ca.issue_cert("127.0.0.1", not_after=expires).configure_cert(context)
    server, port = await serving(GOOD, context)
    async with server, Engine(ca_file=ca_file, connections=0, tls_sessions=False) as engine:
        url = f"https://127.0.0.1:{port}/"
        asked = await engine.send(get(url, connect=Connect(certificate=True)))
        assert asked.ok
        assert asked.certificate_expires == expires.timestamp()
        assert (await engine.send(get(url))).certificate_expires is None  # on the same handle


async def test_key_groups_are_those_that_were_asked_for(ca, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server, port = await serving(GOOD, context)
    hellos = []

    async def relay(reader, writer):
        hellos.append(await reader.read(65536))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        inner_writer.write(hellos[-1])

        async def pump(source, target):
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        await closed(inner_writer)
        await closed(writer)

    front, front_port = await serving(b"", handle=relay)
    url = f"https://127.0.0.1:{front_port}/"
    async with server, front:
        for groups in ("X25519:prime256v1", None):
            async with Engine(ca_file=ca_file, tls_groups=groups, connections=0) as engine:
                assert (await engine.send(get(url))).ok
    short, whole = hellos
    assert len(short) < 700 < len(whole)  # a post-quantum share has 1,216 bytes
    with pytest.raises(MisuseError, match="groups"):
        Tls(groups="X25519; rm")


@pytest.mark.parametrize(
    ("label", "code"),
    [("missing", "NXDOMAIN"), ("broken", "SERVFAIL"), ("empty", "NODATA"), ("refused", "REFUSED")],
)
async def test_a_failed_look_up_has_the_name_servers_code(names, label, code):
    async with Engine(resolver=lambda: AsyncResolver([names.address]), retry=None) as engine:
        outcome = await engine.send(get(f"http://{label}.test/"))
    assert (outcome.error.kind, outcome.error.code) == ("dns", code)


async def test_a_request_says_which_addresses_it_wants(names):
    server, port = await serving(GOOD)
    async with server, Engine(resolver=lambda: AsyncResolver([names.address]), retry=None) as engine:
        url = f"http://site.test:{port}/"
        assert (await engine.send(get(url, connect=Connect(ip_family=4)))).ok
        outcome = await engine.send(get(url, connect=Connect(ip_family=6)))
        assert outcome.error.code == "NODATA"
        assert "no IPv6 address" in outcome.error.message
    with pytest.raises(MisuseError, match="ip_family"):
        Connect(ip_family=5)


async def test_addresses_are_guarded_before_the_call(names):
    server, port = await serving(GOOD)
    resolver = lambda: AsyncResolver([names.address])  # noqa: E731
    guard = AddressGuard()
    async with (
        server,
        Engine(resolver=resolver, address_guard=guard, guard_at="look_up", retry=None) as engine,
    ):
        for host in (f"site.test:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"2130706433:{port}"):
            outcome = await engine.send(get(f"http://{host}/"))
            assert outcome.error.kind == "blocked_address", host
    allowed = AddressGuard(allow=["127.0.0.0/8"])
    async with Engine(resolver=resolver, address_guard=allowed, guard_at="look_up") as engine:
        server, port = await serving(GOOD)
        async with server:
            assert (await engine.send(get(f"http://site.test:{port}/"))).ok
    with pytest.raises(MisuseError, match="guard_at"):
        Engine(guard_at="look_up")


async def test_look_ups_are_bounded_in_number(names):
    resolver = AsyncResolver([names.address], at_once=2)
    loop = asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(20)]
    for number, one in enumerate(done):
        resolver.look_up(f"n{number}.test", one.set_result, 10.0)
    answers = await asyncio.gather(*done)
    await resolver.close()
    assert all(answer.addresses == ("127.0.0.1",) for answer in answers)


def test_a_timer_that_is_due_at_once_is_armed_again_on_uvloop():
    async def work():
        async with Engine() as engine:
            transport = engine._core.transport
            transport._new_shard_at(0)
            for late in (0.0, -1.0, 0.5):
                transport._shards[0].due = asyncio.get_running_loop().time() + late
                transport._arm()
            server, port = await serving(GOOD)
            async with server:
                return await engine.send(get(f"http://127.0.0.1:{port}/"))

    assert uvloop.run(work()).ok


class OneAddress:
    """A resolver that knows every name."""

    def cached(self, host):
        return Answer(("127.0.0.1",), "", float("inf"))

    async def close(self):
        pass


async def test_libcurl_knows_few_names_at_a_time_however_many_there_are():
    server, port = await serving(GOOD)
    async with server, Engine(resolver=OneAddress, connections=0, retry=None) as engine:
        urls = [f"http://n{number}.test:{port}/" for number in range(1500)]
        outcomes = [outcome async for outcome in engine.stream(map(get, [*urls, *urls[:20]]))]
        assert [one.error for one in outcomes if not one.ok] == []
        shards = engine._core.transport._shards
        assert all(len(shard.known_addresses) <= 512 for shard in shards)


def test_hosts_that_are_all_in_use_are_not_looked_through_for_each_new_one():
    async def work():
        async with Engine(transport=MockTransport({"*": Reply(delay=float("inf"))}), concurrency=1) as engine:
            looked = []
            core = engine._core
            forget = core._forget_idle
            core._forget_idle = lambda: looked.append(1) or forget()
            for number in range(14_000):
                engine.submit(get(f"http://h{number}.test/"), lambda _: None)
            return len(looked)

    assert asyncio.run(work()) <= 5
