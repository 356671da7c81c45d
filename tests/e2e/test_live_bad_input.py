"""Clients that mean no good, over sockets: each gets the protocol's own answer, and costs little."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import json
import socket
import struct
import threading
import time

import pytest

from support.live import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    SECONDS,
    TEXT,
    Centrifugo,
    Events,
    WebSocket,
    Wire,
    frame,
    request,
    settings,
    token,
)
from support.needed import needs

OPEN = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
OPENED = {"channel": {"without_namespace": OPEN}}


class Inside:
    """A gateway in a thread of this process, so that its patience can be short and its state looked at."""

    def __init__(self, config):
        from yelpaze.live.settings import LIVE

        self.lines = []
        self._config = LIVE.of(settings(config))
        self._ready = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self):
        import uvloop

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()

    async def _serve(self):
        from yelpaze.app.live_node import opened_node
        from yelpaze.live.transports.server import Server
        from yelpaze.process.listening import listening

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self.lines.append(f"a defect: {context}"))
        sock = listening("127.0.0.1", 0)
        self.port = sock.getsockname()[1]
        async with (
            opened_node(self._config, lambda notice: self.lines.append(str(notice))) as self.node,
            Server(self.node, sock),
        ):
            self._ready.set()
            await self._stop.wait()

    def inside(self, call):
        """Do it in the gateway's loop; its result."""

        async def called():
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(SECONDS)

    def until(self, holds):
        """Wait until something holds there."""
        end = time.monotonic() + SECONDS
        while not self.inside(holds):
            assert time.monotonic() < end, "it never came to pass"
            time.sleep(0.01)

    def publish(self, channel, data):
        status, _, body = request(
            self.port,
            "POST",
            "/api/publish",
            json.dumps({"channel": channel, "data": data}).encode(),
            {"X-API-Key": KEY},
        )
        assert status == 200, body

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert self._error is None, self._error


@pytest.fixture(scope="module")
def gateways_inside():
    """A factory of gateways; at the end nothing of ours may have gone wrong."""
    needs("uvloop", "httptools", "jwt", "yaml")
    thresholds = gc.get_threshold()
    made = []

    def start(config=None):
        made.append(Inside(config or OPENED))
        return made[-1]

    yield start
    for gateway in made:
        gateway.stop()
        assert not gateway.node.clients.connections
        assert not gateway.node.clients.handshaking
        assert not [line for line in gateway.lines if "defect" in line], gateway.lines
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture(scope="module")
def gateway(gateways_inside):
    return gateways_inside(
        {
            "client": {"allowed_origins": ["https://*.example.com"]},
            "channel": {
                "without_namespace": OPEN,
                "namespaces": [{"name": "closed"}, {"name": "read", "allow_subscribe_for_client": True}],
            },
        }
    )


@pytest.fixture
def impatient(monkeypatch):
    """Seconds become hundredths for gateways that are started now."""
    monkeypatch.setattr("yelpaze.live.core.node._TICK", 0.02)
    monkeypatch.setattr("yelpaze.live.transports.http._HEADER_SECONDS", 0.2)
    monkeypatch.setattr("yelpaze.live.transports.http._IDLE_SECONDS", 0.3)
    monkeypatch.setattr("yelpaze.live.transports.websocket._CLOSE_SECONDS", 0.2)


@pytest.fixture
def held():
    """Connections that are closed at the end of a test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


# ── handshakes ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws/news"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "WebSocket, h2c"}, 101),
        ({"Connection": None}, 400),
        ({"Connection": "close"}, 400),
        ({"Connection": "keep-alive, Upgrade"}, 101),
        ({"Host": None}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        ({"Sec-WebSocket-Key": "not base64 at all!!!!!!!"}, 400),
        ({"Sec-WebSocket-Key": "ğ".encode().decode("latin-1")}, 400),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": "13, 8"}, 426),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "https://example.com.evil.example"}, 403),
        ({"Origin": "https://evil.example/.example.com"}, 403),
        ({"Origin": "http://www.example.com"}, 403),
        ({"Origin": "https://www.example.com"}, 101),
        ({"X-Long": "x" * 20_000}, 431),
    ],
)
def test_a_handshake_is_right_or_told_what_is_wrong(gateway, held, path, headers, status):
    client = held(WebSocket(gateway.port, path, headers))
    assert client.status == status
    if status == 426 and "Upgrade" not in headers:
        assert client.headers["sec-websocket-version"] == "13"
    if status != 101:
        body = json.loads(client.read(int(client.headers["content-length"])))
        assert body["error"]["code"] == status
        with pytest.raises(EOFError):
            client.read(1)


def test_a_page_of_the_same_host_may_connect(gateway, held):
    headers = {"Origin": f"http://127.0.0.1:{gateway.port}"}
    assert held(WebSocket(gateway.port, "/ws/news", headers)).status == 101


@pytest.mark.parametrize(("asked", "status"), [("centrifuge-json", 101), ("x, y", 400)])
def test_only_what_we_speak_is_agreed_on(gateway, held, asked, status):
    client = held(WebSocket(gateway.port, "/connection/websocket", {"Sec-WebSocket-Protocol": asked}))
    assert client.status == status
    assert client.headers.get("sec-websocket-protocol") == (asked if status == 101 else None)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50, 400),
        (b"GET /ws/news HTTP/1.0\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        (b"POST /ws/news HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 405),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /ws/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000, 431),
        (b"GET /" + b"x" * 20_000, 431),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 401),
        (b"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\r\nContent-Length: 99\r\n\r\n", 401),
        (b"GET /sse/news HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"POST /sse/news HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /sse/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
    ],
    ids=range(18),
)
def test_whatever_is_sent_instead_of_a_handshake_gets_an_answer(gateway, held, sent, status):
    wire = held(Wire(gateway.port))
    wire.send(sent)
    assert wire.head()[0] == status


def test_a_handshake_may_come_a_byte_at_a_time(gateway, held):
    wire = held(Wire(gateway.port))
    key = base64.b64encode(b"k" * 16)
    text = (
        b"GET /ws/news?token=%b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        % token("42").encode()
    )
    text += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
    wire._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in text + frame(TEXT, b"hello"):
        wire.send(bytes([byte]))
    status, headers = wire.head()
    assert status == 101
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
    assert wire.read(7) == b"\x81\x05hello"


def test_who_is_slow_to_ask_is_sent_away(impatient, gateways_inside, held):
    gateway = gateways_inside()
    silent, slow, done = held(Wire(gateway.port)), held(Wire(gateway.port)), held(Wire(gateway.port))
    slow.send(b"GET / HTTP/1.1\r\nHost:")
    done.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert done.head()[0] == 200
    assert slow.head()[0] == 408
    for wire in (silent, slow, done):
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                wire.read(1)
    gateway.until(lambda: not gateway.node.clients.handshaking)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/connection/websocket", {"Sec-WebSocket-Protocol": "centrifuge-protobuf"}),
        ("/connection/websocket?format=protobuf", {}),
        ("/connection/websocket?cf_protocol=protobuf", {}),
    ],
)
def test_protobuf_is_refused_for_good_in_words_that_a_library_hears(gateway, held, path, headers):
    client = held(WebSocket(gateway.port, path, headers))
    assert client.status == 101
    assert client.closed() == (3501, "JSON only: Protobuf is not spoken here")


def test_who_asks_whether_to_send_its_body_is_told_so(gateway, held):
    """As curl asks for a large one: it would wait a second."""
    wire = held(Wire(gateway.port))
    head = f"POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n"
    wire.send(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert wire.head()[0] == 100
    wire.send(b"{}")
    assert wire.head()[0] == 200
    refused = held(Wire(gateway.port))
    refused.send(head.replace(KEY, "wrong").encode() + b"Expect: 100-continue\r\n\r\n")
    assert refused.head()[0] == 401


def test_pings_that_nobody_reads_the_answers_of_are_answered_once(gateways_inside, held):
    gateway = gateways_inside({"channel": {"without_namespace": OPEN}})
    slow = held(sleepy(gateway, f"/ws/news?token={token('42')}"))
    gateway.until(lambda: gateway.node.hub.subscriptions == 1)
    (peer,) = gateway.inside(lambda: list(gateway.node.clients.connections))
    while gateway.inside(lambda: peer.backlog is None):
        gateway.inside(lambda: gateway.node.hub.on_publication("news", publication(1), ""))
    before = gateway.inside(lambda: len(peer.backlog))
    slow.send(frame(PING, b"x") * 5000 + frame(PING, b"last"))
    gateway.until(lambda: any(b"last" in (one.frame or b"") for one in peer.backlog._entries))
    assert gateway.inside(lambda: len(peer.backlog)) <= before + 1


def test_answers_that_nobody_reads_are_not_piled_up(gateway, held):
    """The gateway reads no more requests, so the client cannot send any."""
    wire = held(Wire(gateway.port))
    wire._socket.settimeout(0.5)
    asked = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 200 << 20:
            sent += wire._socket.send(asked)
    (connection,) = gateway.inside(lambda: list(gateway.node.clients.handshaking))
    assert gateway.inside(lambda: connection._transport.get_write_buffer_size()) < 4 << 20
    wire._socket.settimeout(SECONDS)
    assert wire.head()[0] == 200  # and goes on when it reads


# ── frames ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws/news"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"{}", mask=None), 1002),
        (b"\xc1\x80aaaa", 1002),
        (b"\x83\x80aaaa", 1002),
        (b"\x8b\x80aaaa", 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(CLOSE, struct.pack("!H", 999)), 1002),
        (frame(CLOSE, struct.pack("!H", 5000)), 1002),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (frame(CLOSE), 1000),
        (frame(CLOSE, struct.pack("!H", 3000)), 3000),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28", fin=False), 1007),
        (frame(TEXT, b"x" * 65_537), 1009),
        (b"\x81\xff" + struct.pack("!Q", 1 << 62), 1009),
        (b"\x81\xff" + b"\xff" * 8, 1009),
        (frame(TEXT, b"x" * 40_000, fin=False) + frame(CONTINUATION, b"x" * 40_000), 1009),
        (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"", fin=False) * 10_000, 1009),
        (frame(BINARY, b"x"), 1003),
    ],
    ids=range(24),
)
def test_frames_that_must_not_be_close_with_their_code(gateway, held, path, sent, code):
    client = held(WebSocket(gateway.port, f"{path}?token={token('42')}"))
    with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
        client.send(sent)
    assert client.closed()[0] == code


def test_what_follows_a_broken_frame_is_not_kept(impatient, gateways_inside, held):
    gateway = gateways_inside()
    client = held(WebSocket(gateway.port, "/ws/news"))
    gateway.until(lambda: gateway.node.clients.connections)
    (peer,) = gateway.inside(lambda: list(gateway.node.clients.connections))
    client.send(frame(TEXT, b"x", mask=None))
    client._socket.settimeout(0.2)
    with contextlib.suppress(OSError):
        for _ in range(50):
            client.send(b"\x81" * (1 << 16))
            reader = peer._reader
            assert reader is None or not reader._rest
    gateway.until(lambda: not gateway.node.clients.connections)


def test_a_message_that_never_ends_is_bounded_and_its_client_pinged_away(impatient, gateways_inside, held):
    gateway = gateways_inside(
        {**OPENED, "websocket": {"plain_ping_interval": "200ms"}, "client": {"pong_timeout": "100ms"}}
    )
    client = held(WebSocket(gateway.port, f"/ws/news?token={token('42')}"))
    client.send(b"\x81\xfe\xff\xff" + b"mask" + b"x" * 60_000)
    assert client.closed()[0] == 3012
    gateway.until(lambda: not gateway.node.clients.connections)


# ── tokens ──────────────────────────────────────────────────────────────────────────


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(algorithm, secret):
    header, payload = {"alg": algorithm, "typ": "JWT"}, {"sub": "root"}
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, payload))
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest() if secret else b""
    return f"{text}.{b64(digest)}"


@pytest.fixture(scope="module")
def keyed(gateways_inside):
    """A gateway that has a public key only, and the key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    return gateways_inside(
        {**OPENED, "client": {"token": {"hmac_secret_key": "", "rsa_public_key": pem}}}
    ), pem


def test_forged_tokens_let_nobody_in_and_are_never_told(gateway, keyed, held):
    confused, pem = keyed
    given = [
        (gateway, forged("none", "")),
        (gateway, forged("None", "x")),
        (gateway, forged("RS256", "x")),
        (gateway, forged("HS256", "x")),
        (gateway, "junk"),
        (gateway, "x" * 10_000),
        (confused, forged("HS256", pem)),
        (confused, forged("HS256", pem.strip())),
        (confused, forged("none", "")),
    ]
    for where, made in given:
        client = held(Centrifugo(where.port))
        client.send_command("connect", token=made)
        assert client.closed()[0] == 3500
        assert held(WebSocket(where.port, f"/ws/news?token={made}")).closed() == (4001, "bad token")
        late = held(WebSocket(where.port, "/ws/news"))
        late.say(made)
        assert late.closed()[0] == 4001
        assert held(Events(where.port, "news", token=made)).status == 401
        assert not [
            line
            for line in where.lines
            if made in line or any(part[:20] in line for part in made.split(".") if part)
        ]


def test_tokens_are_not_in_what_the_gateway_says(gateways, held):
    gateway = gateways({**OPENED, "client": {"trusted_proxies": ["127.0.0.1"]}})
    secret = token("42", jti="very secret")
    held(WebSocket(gateway.port, f"/ws/news?token={secret}"))
    held(WebSocket(gateway.port, f"/ws/news?token={secret}x")).closed()
    held(Events(gateway.port, "news", token=secret))
    held(Centrifugo(gateway.port, connect={"token": secret}))
    gateway.request("GET", f"/nowhere?token={secret}")
    held(Wire(gateway.port)).send(f"GET /ws/news?token={secret} HTTP/9.9\r\n\r\n".encode())
    gateway.stop()
    said = "\n".join(gateway.lines)
    assert said
    for part in secret.split("."):
        assert part not in said


# ── commands ────────────────────────────────────────────────────────────────────────


def connected(gateway, user="42"):
    return Centrifugo(gateway.port, connect={"token": token(user)})


@pytest.mark.parametrize(
    "text",
    [
        '{"id":1,"subscribe":{"channel":"news"}}',
        '{"id":1,"publish":{"channel":"news","data":1}}',
        "hello",
        "[" * 60_000,
        '{"id":1,"connect":{}}{"id":2}',
        "\n".join(['{"id":1}'] * 5),
    ],
    ids=range(6),
)
def test_whatever_comes_before_connect_is_a_bad_request(gateway, held, text):
    client = held(Centrifugo(gateway.port))
    client.say(text)
    assert client.closed() == (3501, "bad request")


def test_two_connects_are_a_bad_request(gateway, held):
    client = held(connected(gateway))
    client.send_command("connect", token=token("42"))
    assert client.closed()[0] == 3501


def test_what_cannot_be_is_an_error_and_the_connection_goes_on(gateway, held):
    client = held(connected(gateway))
    assert client.refused("nonsense") == 104
    assert client.refused("rpc", method="x", data={}) == 108
    assert client.refused("subscribe", channel="x" * 60_000) == 107
    assert client.refused("subscribe", channel="") == 107
    assert client.refused("subscribe", channel="unknown:x") == 102
    assert client.refused("subscribe", channel="closed:x") == 103
    assert client.refused("publish", channel="closed:x", data=1) == 103
    assert client.refused("presence", channel="news") == 103
    client.ask("subscribe", channel="news")
    assert client.refused("subscribe", channel="news") == 105
    for number in (7, 3, 3):
        client.say(json.dumps({"id": number, "ping": {}}))
        assert client.reply(number) == {"id": number, "ping": {}}


def test_data_that_nests_too_deeply_is_a_bad_request(gateway, held):
    client = held(connected(gateway))
    client.say('{"id":9,"publish":{"channel":"news","data":' + "[" * 20_000 + "]" * 20_000 + "}}")
    assert client.closed()[0] == 3501


def test_a_plain_text_that_nests_too_deeply_is_a_text(gateway, held):
    client = held(WebSocket(gateway.port, f"/ws/deep?token={token('42')}"))
    client.say("[" * 20_000)
    assert client.hear() == "[" * 20_000


def test_publishing_without_the_right_closes_a_plain_client(gateway, held):
    client = held(WebSocket(gateway.port, f"/ws/read:x?token={token('42')}"))
    client.say("hello")
    assert client.closed()[0] == 3507


@pytest.mark.parametrize(
    "body",
    [
        b'{"channel":"api","data":"\xff"}',
        b'{"channel":"api","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"[" * 50_000,
        b"",
        b"{",
        b'{"channel":5,"data":1}',
        b'{"channel":"api","data":"\\ud800"}',
    ],
    ids=range(7),
)
def test_bodies_that_make_no_sense_are_refused_and_reach_nobody(gateway, held, body):
    reader = held(WebSocket(gateway.port, f"/ws/api?token={token('42')}"))
    status, _, answer = request(gateway.port, "POST", "/api/publish", body, {"X-API-Key": KEY})
    assert status == 400, answer
    gateway.publish("api", "on")
    assert reader.hear() == "on"


# ── who does not read ───────────────────────────────────────────────────────────────


def sleepy(gateway, path):
    """A client with small buffers; it reads nothing unless told."""
    client = WebSocket.__new__(WebSocket)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(SECONDS)
    sock.connect(("127.0.0.1", gateway.port))
    client._socket, client._file = sock, sock.makefile("rb")
    key = base64.b64encode(b"k" * 16).decode()
    client.send(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    client.status, client.headers = client.head()
    return client


@pytest.mark.parametrize("policy", ["close", "drop_oldest", "latest"])
def test_who_does_not_read_delays_nobody_and_costs_little(impatient, gateways_inside, held, policy):
    gateway = gateways_inside(
        {
            "client": {"queue_max_size": 100_000},
            "channel": {"without_namespace": {**OPEN, "slow_consumer": policy}},
        }
    )
    path = f"/ws/news?token={token('42')}"
    slow, quick = held(sleepy(gateway, path)), held(WebSocket(gateway.port, path))
    gateway.until(lambda: gateway.node.hub.subscriptions == 2)
    for number in range(1000):
        gateway.inside(lambda number=number: gateway.node.hub.on_publication("news", publication(number), ""))
        assert quick.hear().startswith(f"{number} ")
    peers = gateway.inside(lambda: list(gateway.node.clients.connections))
    if policy == "close":
        assert slow.closed()[0] in (3008, 1006)
        gateway.until(lambda: len(gateway.node.clients.connections) == 1)
        assert gateway.inside(lambda: dict(gateway.node.statistics.closed)) == {3008: 1}
        return
    (backlog,) = [peer.backlog for peer in peers if peer.backlog is not None]
    assert backlog._size <= 100_000
    assert len(backlog) <= (2 if policy == "latest" else 50)  # one, and maybe a ping
    heard = []
    while not heard or heard[-1] != 999:
        heard.append(int(slow.hear().split()[0]))
    assert heard == sorted(heard)
    assert len(heard) < 1000
    gateway.until(lambda: all(peer.backlog is None for peer in gateway.node.clients.connections))


def publication(number):
    import msgspec

    from yelpaze.live.protocol.values import Publication

    return Publication(msgspec.Raw(json.dumps(f"{number} " + "x" * 4000).encode()))


def test_a_reader_of_events_that_does_not_read_is_gone(impatient, gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"queue_max_size": 50_000, "pong_timeout": "500ms"}})
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", gateway.port))
    held(contextlib.closing(sock))
    sock.sendall(f"GET /sse/news?token={token('42')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    gateway.until(lambda: gateway.node.hub.subscriptions == 1)
    for number in range(200):
        gateway.inside(lambda number=number: gateway.node.hub.on_publication("news", publication(number), ""))
    gateway.until(lambda: gateway.node.hub.subscriptions == 0)
    gateway.until(lambda: not gateway.node.clients.connections)


def test_who_publishes_too_fast_is_not_read(gateways_inside, held):
    gateway = gateways_inside({"channel": {"without_namespace": {**OPEN, "publish_rate_limit": 50}}})
    client = held(WebSocket(gateway.port, f"/ws/news?token={token('42')}"))
    gateway.until(lambda: gateway.node.hub.subscriptions == 1)
    (peer,) = gateway.inside(lambda: list(gateway.node.clients.connections))
    client._socket.settimeout(0.3)
    data = frame(TEXT, b"x" * 1000) * 100
    with pytest.raises(TimeoutError):
        for _ in range(1000):
            client.send(data)
    assert gateway.inside(lambda: peer._is_read) is False
    assert gateway.inside(lambda: len(peer.session._queue._waiting)) < 2000
    assert gateway.inside(lambda: gateway.node.statistics.published) < 500


# ── who is not there ────────────────────────────────────────────────────────────────


def test_who_does_not_answer_a_ping_is_gone_and_who_does_stays(impatient, gateways_inside, held):
    gateway = gateways_inside(
        {
            **OPENED,
            "client": {"ping_interval": "200ms", "pong_timeout": "100ms"},
            "websocket": {"plain_ping_interval": "200ms"},
        }
    )
    dead = held(WebSocket(gateway.port, f"/ws/news?token={token('42')}"))
    dead_too = held(Centrifugo(gateway.port))
    dead_too.say(json.dumps({"id": 1, "connect": {"token": token("42")}}))
    alive = held(WebSocket(gateway.port, f"/ws/news?token={token('42')}"))
    gateway.until(lambda: len(gateway.node.clients.connections) == 3)
    for _ in range(6):
        opcode, payload = alive.receive()
        assert opcode == PING
        alive.send(frame(10, payload))
    assert dead.closed() == (3012, "no pong")
    assert dead_too.closed() == (3012, "no pong")
    gateway.until(lambda: len(gateway.node.clients.connections) == 1)
    gateway.publish("news", "still")
    assert alive.hear() == "still"


def test_who_does_not_say_who_it_is_is_sent_away(impatient, gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"stale_close_delay": "200ms"}})
    clients = [held(Centrifugo(gateway.port)), held(WebSocket(gateway.port, "/ws/news"))]
    clients[0].say("{}")
    for client in clients:
        assert client.closed() == (3502, "stale")


def test_who_does_not_close_is_cut_off(impatient, gateways_inside, held):
    """The other side never answers the close, nor reads."""
    gateway = gateways_inside()
    client = held(sleepy(gateway, "/ws/news"))
    client.send(frame(BINARY, b"x"))
    gateway.until(lambda: not gateway.node.clients.connections)
    assert client.closed()[0] == 1003


def test_an_upgrade_that_is_not_ours_to_take_up_is_left(gateway, held):
    """As curl --http2 and Java's HttpClient ask for it; they go on in HTTP/1.1."""
    for method, path, body in (("GET", "/health", b""), ("POST", "/api/info", b"{}")):
        wire = held(Wire(gateway.port))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        wire.send(head.encode() + body)
        status, headers = wire.head()
        assert status == 200
        assert headers["connection"] == "close"


# ── limits ──────────────────────────────────────────────────────────────────────────


def test_only_so_many_connections(gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"connection_limit": 2}})
    first = held(connected(gateway))
    held(Events(gateway.port, "news", token=token("42")))
    third = held(WebSocket(gateway.port, "/ws/news"))
    assert third.status == 503
    assert "retry-after" in third.headers
    assert held(Events(gateway.port, "news", token=token("42"), headers={"Accept": "*/*"})).status == 503
    # A browser's EventSource gives up for good at any other status: it is told when to come again.
    refused = held(Events(gateway.port, "news", token=token("42")))
    assert refused.status == 200
    assert refused.line() == b": no more connections are taken"
    assert refused.line().startswith(b"retry: ")
    with pytest.raises(EOFError):
        refused.next()
    first.close()
    gateway.until(lambda: len(gateway.node.clients.connections) == 1)
    held(connected(gateway))


def test_only_so_many_connections_of_a_user(gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"user_connection_limit": 1}})
    held(connected(gateway))
    again = held(Centrifugo(gateway.port))
    again.send_command("connect", token=token("42"))
    assert again.closed()[0] == 3504
    held(connected(gateway, "43"))


def test_only_so_many_connections_of_an_address_wherever_it_says_it_is(gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"ip_connection_limit": 1}})
    held(WebSocket(gateway.port, "/ws/news", {"X-Forwarded-For": "1.1.1.1"}))
    assert held(WebSocket(gateway.port, "/ws/news", {"X-Forwarded-For": "2.2.2.2"})).status == 503


def test_a_proxy_of_ours_is_believed_but_not_what_its_client_says(gateways_inside, held):
    gateway = gateways_inside(
        {**OPENED, "client": {"ip_connection_limit": 1, "trusted_proxies": ["127.0.0.1", "10.0.0.1"]}}
    )
    for address, status in (
        ("1.1.1.1", 101),
        ("2.2.2.2, 10.0.0.1", 101),
        ("9.9.9.9, 1.1.1.1", 503),
        ("9.9.9.8, 2.2.2.2, 10.0.0.1", 503),
        ("3.3.3.3", 101),
    ):
        assert held(WebSocket(gateway.port, "/ws/news", {"X-Forwarded-For": address})).status == status


def test_only_so_many_new_connections_a_second(gateways_inside, held):
    gateway = gateways_inside({**OPENED, "client": {"connection_rate_limit": 5}})
    found = [held(WebSocket(gateway.port, "/ws/news")).status for _ in range(20)]
    assert found[0] == 101
    assert 429 in found
    assert found.count(101) < 15
