"""The gateway behind ASGI, with a server that does what a test says."""

import asyncio
import contextlib
import itertools
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from yelpaze import InputError, Live, MisuseError
from yelpaze.live.brokers.memory import MemoryBroker
from yelpaze.live.core.node import Node
from yelpaze.live.protocol.codes import SHUTDOWN
from yelpaze.live.protocol.values import ClientInfo, Publication, raw
from yelpaze.live.sessions.plain import EventsSession
from yelpaze.live.settings import LIVE
from yelpaze.live.transports import asgi_connection
from yelpaze.live.transports.asgi import AsgiApp
from yelpaze.live.transports.event_stream import EventStream

SECONDS = 20
OPEN = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_subscriber": True,
    "allow_publish_for_anonymous": True,
}


@pytest.fixture
async def node():
    epochs = itertools.count()
    config = LIVE.of(
        {
            "client": {"allow_anonymous_connect_without_token": True, "queue_max_size": 100_000},
            "channel": {"without_namespace": OPEN},
        }
    )
    clock = asyncio.get_running_loop().time
    node = Node(config, MemoryBroker(clock, lambda: f"e{next(epochs)}"))
    await node.broker.start(node)
    yield node
    await node.broker.close()


class Server:
    """An ASGI server with one client, which may stop reading."""

    def __init__(self, node, scope, *received):
        self.node = node
        self.received = list(received)
        self.sent = []
        self.is_closed = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.task = asyncio.ensure_future(AsgiApp(self.get_node, self.close)(scope, self.receive, self.send))

    async def get_node(self):
        return self.node

    async def close(self):
        self.is_closed = True

    async def receive(self):
        if self.received:
            return self.received.pop(0)
        await asyncio.Event().wait()
        return None

    async def send(self, message):
        await self.reads.wait()
        self.sent.append(message)

    async def until(self, holds):
        async with asyncio.timeout(SECONDS):
            while not holds():
                await asyncio.sleep(0)


def websocket(path):
    return {"type": "websocket", "path": path, "headers": [(b"host", b"x")], "query_string": b""}


def events(path):
    return {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"x")], "query_string": b""}


@pytest.mark.parametrize(
    ("scope", "received"),
    [(websocket("/ws/news"), {"type": "websocket.connect"}), (events("/sse/news"), {"type": "http.request"})],
    ids=["websocket", "events"],
)
async def test_who_does_not_read_is_gone_soon_after_its_end(node, monkeypatch, scope, received):
    monkeypatch.setattr(asgi_connection, "_CLOSE_SECONDS", 0)
    server = Server(node, scope, received)
    await server.until(lambda: node.hub.subscriptions == 1)
    await server.until(lambda: server.sent)
    server.reads.clear()
    for number in range(100):
        await node.broker.publish("news", Publication(raw("x" * 10_000 + str(number))), None)
        await asyncio.sleep(0)
    await server.until(lambda: not node.clients.connections)
    async with asyncio.timeout(SECONDS):
        await server.task
    assert node.statistics.closed == {3008: 1}
    assert node.clients.connected == 0


async def test_the_end_is_sent_to_who_reads(node):
    server = Server(node, websocket("/ws/news"), {"type": "websocket.connect"})
    await server.until(lambda: node.hub.subscriptions == 1)
    for peer in list(node.clients.connections):
        peer.end(SHUTDOWN)
    async with asyncio.timeout(SECONDS):
        await server.task
    assert server.sent[-1] == {"type": "websocket.close", "code": 3001, "reason": "shutdown"}
    assert not node.clients.connections


async def test_a_connection_that_is_cancelled_leaves_nothing(node):
    server = Server(node, events("/sse/news"), {"type": "http.request"})
    await server.until(lambda: node.hub.subscriptions == 1)
    server.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await server.task
    assert not node.clients.connections
    assert node.hub.streams == {}


class Transport:
    """What a connection writes to, without a socket."""

    def __init__(self):
        self.written = []
        self.is_closed = False

    def write(self, data):
        self.written.append(data)

    def close(self):
        self.is_closed = True


async def test_an_event_stream_is_pinged_until_its_end(node):
    stream = EventStream(node, Transport(), "")
    stream.session = EventsSession(node, stream, "news")
    stream.greeted()
    assert stream.seen == ClientInfo("", "")
    for count in (1, 2):
        stream.wake()
        assert stream.transport.written == [b":\n\n"] * count
    stream.end(SHUTDOWN)
    stream.wake()
    assert (stream.transport.is_closed, len(stream.transport.written)) == (True, 2)


async def test_a_ping_that_is_too_much_for_a_slow_reader_ends_it(node):
    stream = EventStream(node, Transport(), "")
    stream.session = EventsSession(node, stream, "news")
    stream.greeted()
    stream.pause_writing()
    for _ in range(100_000):
        stream.wake()
        if stream.transport.is_closed:
            break
    assert (stream.transport.is_closed, stream.code) == (True, 3008)
    stream.wake()
    assert stream.transport.written == []


async def test_who_sends_faster_than_the_broker_takes_is_read_later(node, monkeypatch):
    opened, publish = asyncio.Event(), node.broker.publish

    async def slowly(*arguments, **options):
        await opened.wait()
        return await publish(*arguments, **options)

    monkeypatch.setattr(node.broker, "publish", slowly)
    commands = [
        {"id": 1, "connect": {}},
        {"id": 2, "subscribe": {"channel": "news"}},
        {},  # a pong that nobody asked for
        *({"id": 3 + n, "publish": {"channel": "news", "data": n}} for n in range(40)),
    ]
    received = [{"type": "websocket.receive", "text": json.dumps(command)} for command in commands]
    server = Server(node, websocket("/connection/websocket"), {"type": "websocket.connect"}, *received)
    await server.until(lambda: node.hub.subscriptions == 1)
    for _ in range(200):
        await asyncio.sleep(0)
    unread = len(server.received)
    assert unread > 10
    opened.set()
    await server.until(lambda: any('"id":42' in str(message.get("text")) for message in server.sent))
    assert server.received == []
    server.task.cancel()
    await asyncio.wait([server.task])


async def test_keys_for_tokens_are_fetched_over_http(service, capsys):
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    token = jwt.encode({"sub": "42"}, key, "ES256", {"kid": "k"})
    keys = {"keys": [{**public, "kid": "k"}]}
    for answer, is_connected in ((keys, True), ((404, {}), False)):
        service.answer = lambda call, answer=answer: answer
        settings = {"client": {"token": {"jwks_public_endpoint": f"{service.url}/keys"}}}
        async with Live(settings) as live:
            connect = {
                "type": "websocket.receive",
                "text": json.dumps({"id": 1, "connect": {"token": token}}),
            }
            node = await live.node()
            server = Server(node, websocket("/connection/websocket"), {"type": "websocket.connect"}, connect)
            await server.until(lambda server=server: len(server.sent) > 1)
            assert ('"client":' in str(server.sent[1])) is is_connected
            server.task.cancel()
            await asyncio.wait([server.task])
        assert ("no keys for tokens from" in capsys.readouterr().err) is not is_connected


async def test_live_takes_a_file_or_what_stands_in_it(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text("channel: {without_namespace: {history_size: 5, history_ttl: 1m}}")
    for settings in (
        path,
        str(path),
        {"channel": {"without_namespace": {"history_size": 5, "history_ttl": "1m"}}},
    ):
        async with Live(settings) as live:
            assert (await live.publish("news", 1)).offset == 1
            assert await live.history("news") == [1]


def test_live_refuses_what_cannot_be_before_it_is_used():
    for settings, said in (
        ("missing.yaml", "missing.yaml: cannot be read"),
        ({"chanel": {}}, "did you mean channel"),
        ({"client": {"token": {"rsa_public_key": "no key"}}}, "not a public key in PEM"),
    ):
        with pytest.raises(InputError, match=said):
            Live(settings)
    with pytest.raises(InputError, match="broker takes memory or redis://host:port, not 'foo'"):
        Live(broker="foo")


async def test_what_is_no_json_is_not_published():
    async with Live() as live:
        with pytest.raises(MisuseError, match="the data can't be written as JSON"):
            await live.publish("news", object())
