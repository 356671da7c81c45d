"""`Live` in somebody's FastAPI application, by uvicorn: the same sessions as in `yelpaze live`."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from support.live import KEY, SECONDS, Centrifugo, WebSocket, request, settings, token
from support.needed import needs
from support.nginx import free_port, wait_for_port

TESTS = Path(__file__).parents[1]
CHAT = {
    "history_size": 10,
    "history_ttl": "5m",
    "force_recovery": True,
    "presence": True,
    "join_leave": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
DENIED = (
    "ASGI callable returned without completing handshake.\n"  # what uvicorn says of each refusal by status
)
NAMESPACES = [
    {"name": "chat", **CHAT},
    {"name": "ticker", "allow_subscribe_for_client": True, "slow_consumer": "latest"},
    {"name": "strict", "allow_subscribe_for_client": True},
]
CONFIG = {"channel": {"namespaces": NAMESPACES}}


class Application:
    """The application, in a process of its own."""

    def __init__(self, config, *flags, **environment) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--app-dir", str(TESTS), "support.live_app:app",
             "--port", str(self.port), "--log-level", "warning", *flags],
            env={**os.environ, "SETTINGS": json.dumps(settings(config)), **environment},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self._reader.start()
        try:
            wait_for_port(self.port, self.process)
        except RuntimeError:
            self._reader.join(SECONDS)
            raise AssertionError("".join(self.said)) from None

    def do(self, name, **arguments):
        return self._asked(200, name, arguments)

    def refusal(self, name, **arguments):
        return self._asked(409, name, arguments)["detail"]

    def _asked(self, expected, name, arguments):
        body = json.dumps(arguments).encode()
        headers = {"Content-Type": "application/json"}
        status, _, answer = request(self.port, "POST", f"/do/{name}", body, headers)
        assert status == expected, answer
        return json.loads(answer)

    def api(self, method, key=KEY, **body):
        status, _, answer = request(
            self.port, "POST", f"/live/api/{method}", json.dumps(body).encode(), {"X-API-Key": key}
        )
        return status, json.loads(answer)

    def centrifugo(self, user="ada", **options):
        return Mounted(self.port, connect={"token": token(user)}, **options)

    def plain(self, channel, user="ada", **options):
        return Below(self.port, f"/ws/{channel}?token={token(user)}", **options)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self._reader.join(SECONDS)
            self.process.stderr.close()
        meant = "Redis is", "a token was refused", DENIED
        unexpected = [line for line in self.said if not any(text in line for text in meant)]
        assert not unexpected, "".join(unexpected)


class Below(WebSocket):
    """Paths are below the mount."""

    def __init__(self, port, path, *arguments, **options) -> None:
        super().__init__(port, f"/live{path}", *arguments, **options)


class Mounted(Centrifugo, Below):
    """A client of Centrifugo's protocol there."""


class Stream:
    """A reader of events below the mount."""

    def __init__(self, port, channel, query="", last="") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._connection.request(
            "GET",
            f"/live/sse/{channel}?token={token('ada')}{query}",
            headers={"Last-Event-ID": last} if last else {},
        )
        self.answer = self._connection.getresponse()

    def lines(self, count):
        """So many lines that say something."""
        found = []
        while len(found) < count:
            line = self.answer.readline().strip().decode()
            if line and not line.startswith((":", "retry:")):
                found.append(line)
        return found

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def applications():
    needs("uvloop", "httptools", "jwt", "yaml")
    with ExitStack() as stack:

        def start(config=None, *flags, **environment):
            application = Application(config or CONFIG, *flags, **environment)
            stack.callback(application.stop)
            return application

        yield start


@pytest.fixture(scope="module")
def app(applications):
    return applications()


def test_centrifugos_protocol_below_a_mount(app):
    with app.centrifugo("ada") as ada, app.centrifugo("bob") as bob:
        ada.ask("subscribe", channel="chat:a", join_leave=True)
        assert bob.ask("subscribe", channel="chat:a")["recoverable"]
        assert app.do("publish", channel="chat:a", data={"n": 1})["offset"] == 1
        ada.ask("publish", channel="chat:a", data={"n": 2})
        assert [bob.data(), bob.data()] == [{"n": 1}, {"n": 2}]
        there = app.do("presence", channel="chat:a")
        assert {one["user"] for one in there.values()} == {"ada", "bob"}
        assert app.do("history", channel="chat:a") == [{"n": 1}, {"n": 2}]
        assert app.do("history", channel="chat:a", limit=1) == [{"n": 1}]
        app.do("unsubscribe", user="bob", channel="chat:a")
        assert bob.push()["unsubscribe"]["code"] == 2000
        app.do("disconnect", user="bob")
        assert bob.closed() == (3503, "force disconnect")


def test_plain_websockets_below_a_mount(app):
    with app.plain("chat:b") as one, app.plain("chat:b") as two:
        one.say("not JSON, so it is a text")
        assert two.hear() == one.hear() == "not JSON, so it is a text"
        app.do("publish", channel="chat:b", data=[1, 2])
        assert two.hear() == "[1,2]"
    with Below(app.port, "/ws/chat:b?token=bad") as bad:
        assert bad.closed() == (4001, "bad token")
    with Below(app.port, "/ws/chat:b") as late:
        late.say(token("ada"))
        late.say("hello")
        assert late.hear() == "hello"
    with app.plain("nowhere:b") as lost:
        assert lost.closed()[0] == 3507


def test_events_below_a_mount_go_on_where_they_were(app):
    app.do("publish", channel="chat:c", data={"n": 1})
    with closing(Stream(app.port, "chat:c")) as stream:
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        (first,) = stream.lines(1)
        app.do("publish", channel="chat:c", data={"n": 2})
        identity, data = sorted(stream.lines(2), reverse=True)
        assert data == 'data: {"n":2}'
    assert first.startswith("id: 1:")
    last = first.removeprefix("id: ")
    for options in ({"last": last}, {"query": f"&lastEventId={last}"}):
        with closing(Stream(app.port, "chat:c", **options)) as stream:
            assert sorted(stream.lines(2), reverse=True) == [identity, data]
    with closing(Stream(app.port, "chat:c", last="1:another")) as stream:
        assert "event: missed" in stream.lines(3)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live/sse/chat:c?token=bad", 401),
        ("/live/sse/nowhere:c", 401),
        (f"/live/sse/nowhere:c?token={token('ada')}", 404),
        (f"/live/sse/strict:c?token={token('')}", 403),
        ("/live/", 404),
        ("/live/nothing", 404),
        ("/live/api/publish", 401),
    ],
)
def test_what_is_refused_is_refused_by_status(app, path, status):
    found, headers, body = request(app.port, "GET", path)
    assert found == status
    assert json.loads(body)["error"]["code"] == status
    assert headers["content-type"] == "application/json"


def test_a_handshake_is_refused_by_status_too(app):
    with app.plain("chat:d", headers={"Origin": "https://elsewhere.example"}) as foreign:
        assert foreign.status == 403
    with app.plain("chat:d", headers={"Origin": f"http://127.0.0.1:{app.port}"}) as own:
        assert own.status == 101
    with Below(app.port, "/nothing") as lost:
        assert lost.status == 404


def test_the_server_api_below_a_mount(app):
    assert app.api("publish", channel="chat:e", data=1)[1]["result"]["offset"] == 1
    assert app.api("history", channel="chat:e", limit=5)[1]["result"]["publications"] == [
        {"data": 1, "offset": 1}
    ]
    assert app.api("publish", channel="nowhere:e", data=1)[1]["error"]["code"] == 102
    assert app.api("info", key="wrong")[0] == 401
    assert app.api("nothing")[0] == 404
    assert app.api("publish", channel=7, data=1)[0] == 400


def test_what_a_program_does_wrong_is_told(app):
    told = app.refusal("publish", channel="nowhere:f", data=1)
    assert told == "MisuseError: channel 'nowhere:f': unknown channel"
    assert app.refusal("history", channel="").startswith("MisuseError: channel ''")


@pytest.mark.parametrize(("message", "code"), [("x" * 70_000, 1009), ('{"id":1}', 3501)])
def test_bad_messages_end_a_connection(app, message, code):
    with Mounted(app.port) as client:
        client.say(message)
        assert client.closed()[0] == code


def test_bytes_are_no_text(app):
    with app.plain("chat:g") as plain:
        plain.say(b"\x00\x01", 2)
        assert plain.closed()[0] == 1003


def test_who_reads_too_slowly_gets_the_latest_or_is_sent_away(app):
    """By the namespace's policy; others are not held up."""
    with app.plain("ticker:h") as slow, app.plain("strict:h") as strict, app.plain("ticker:h") as fast:
        filler = "x" * 50_000
        for number in range(200):
            for channel in ("ticker:h", "strict:h"):
                app.do("publish", channel=channel, data={"n": number, "filler": filler})
            assert json.loads(fast.hear())["n"] == number
        heard = [json.loads(slow.hear())["n"]]
        while heard[-1] < 199:
            heard.append(json.loads(slow.hear())["n"])
        assert heard == sorted(set(heard))
        assert len(heard) < 190
        assert strict.closed()[0] in (3008, 1006)


def test_parts_that_are_switched_off_are_not_there(applications):
    app = applications(
        {
            **CONFIG,
            "sse": {"disabled": True},
            "websocket": {"plain_disabled": True},
            "http_api": {"disabled": True},
        }
    )
    assert request(app.port, "GET", f"/live/sse/chat:a?token={token('ada')}")[0] == 404
    with app.plain("chat:a") as plain:
        assert plain.status == 404
    assert app.api("info")[0] == 404
    with app.centrifugo() as client:
        assert client.status == 101


def test_it_starts_when_it_is_first_used(applications):
    app = applications(NO_LIFESPAN="1")
    with app.plain("chat:a") as plain:
        plain.say("1")
        assert plain.hear() == "1"


def test_pings_and_who_does_not_answer_them(applications):
    app = applications({**CONFIG, "client": {"ping_interval": "2s", "pong_timeout": "1s"}})
    with app.centrifugo() as client:
        while client.receive() != (1, b"{}"):
            pass
        assert client.closed() == (3012, "no pong")


def test_open_streams_end_with_the_server(applications):
    app = applications()
    with closing(Stream(app.port, "chat:a")) as stream, app.centrifugo() as client:
        app.process.send_signal(signal.SIGTERM)
        assert client.closed()[0] in (1012, 3001)  # uvicorn's word, or ours
        stream.answer.read()
    app.process.wait(SECONDS)


def test_two_processes_are_one_gateway(applications, redis):
    one, two = (applications(BROKER=redis.url) for _ in range(2))
    with one.centrifugo("ada") as ada, two.centrifugo("bob") as bob:
        for client in (ada, bob):
            client.ask("subscribe", channel="chat:two")
        one.do("publish", channel="chat:two", data="from one")
        two.do("publish", channel="chat:two", data="from two")
        assert [[client.data() for _ in range(2)] for client in (ada, bob)] == [["from one", "from two"]] * 2
        assert len(one.do("presence", channel="chat:two")) == 2
        one.do("disconnect", user="bob")
        assert bob.closed()[0] == 3503
    redis.kill()
    try:
        assert one.refusal("publish", channel="chat:two", data=1).startswith(
            "StoppedError: the broker is away"
        )
    finally:
        redis.start()


# ── without a server ────────────────────────────────────────────────────────────

OPEN = {"client": {"insecure": True}, "channel": {"namespaces": [{"name": "chat", **CHAT}]}}


def scope_of(kind, path):
    headers = [(b"host", b"here")]
    return {"type": kind, "method": "GET", "path": f"/live{path}", "root_path": "/live", "headers": headers}


@pytest.mark.parametrize(
    ("kind", "path", "blocks_at"),
    [
        ("websocket", "/ws/chat:a", None),
        ("http", "/sse/chat:a", None),
        ("http", "/sse/chat:a", "http.response.start"),
        ("http", "/sse/chat:a", "http.response.body"),
        ("websocket", "/ws/chat:a", "websocket.send"),
    ],
)
async def test_what_is_cancelled_leaves_nothing_behind(kind, path, blocks_at):
    """As by anyio, again and again: under Starlette's middleware, and in its test client."""
    from yelpaze import Live

    came = asyncio.Queue()
    blocked = asyncio.Event()
    begin = [{"type": "websocket.connect"}] if kind == "websocket" else []

    async def receive():
        return begin.pop() if begin else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == blocks_at:
            blocked.set()
            await asyncio.Event().wait()
        await came.put(message)

    async with Live(OPEN) as live:
        node = await live.node()
        task = asyncio.create_task(live.asgi()(scope_of(kind, path), receive, send))
        while not node.hub.streams:
            await asyncio.sleep(0)
        await live.publish("chat:a", 1)
        await (blocked.wait() if blocks_at else came.get())
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert (node.clients.connections, node.hub.streams, node.clients.users) == ({}, {}, {})
        assert await live.presence("chat:a") == {}


def test_it_can_be_opened_again_in_another_loop():
    from yelpaze import Live

    live = Live(OPEN)

    async def use():
        async with live:
            await live.publish("chat:a", 1)
            return await live.history("chat:a")

    assert [asyncio.run(use()) for _ in range(2)] == [[1], [1]]
