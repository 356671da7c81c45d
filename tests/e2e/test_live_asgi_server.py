"""`Live` and the uvicorn that runs it, in a thread: the end of the one is the end of the other; pings."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from support.live import PING, PONG, TEXT, WebSocket, Wire, request
from support.needed import needs
from support.uvicorn_thread import UvicornThread
from support.waiting import until

CONFIG = {
    "client": {"insecure": True},
    "channel": {"without_namespace": {"history_size": 5, "history_ttl": "60s"}},
}


@pytest.fixture
def lives():
    """A factory of `Live`, and applications that have it at /live."""
    needs("uvicorn", "starlette", "uvloop", "httptools")
    from starlette.applications import Starlette

    from yelpaze import Live

    def make(config=CONFIG, *, has_lifespan=True):
        live = Live(config)

        @asynccontextmanager
        async def lifespan(_):
            async with live:
                yield

        app = Starlette(lifespan=lifespan if has_lifespan else None)
        app.mount("/live", live.asgi())
        return live, app

    return make


def stream(port, root="/live"):
    wire = Wire(port)
    wire.send(f"GET {root}/sse/news HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert wire.head()[0] == 200
    return wire


@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_streams_end_when_a_server_in_a_thread_is_told_to_stop(lives, has_lifespan, loop):
    _, app = lives(has_lifespan=has_lifespan)
    with UvicornThread(app, loop=loop) as server, stream(server.port) as events:
        plain = WebSocket(server.port, "/live/ws/news")
        server.server.should_exit = True
        assert server.ended()
        assert events.rest().endswith(b"\r\n0\r\n\r\n")  # in good order
        assert plain.closed()[0] in (1012, 3001)  # uvicorn's word, or ours
        plain.close()


def test_streams_end_when_a_server_has_served_its_requests(lives):
    """`limit_max_requests` sets no flag: uvicorn stops listening, and waits."""
    _, app = lives()
    with UvicornThread(app, limit_max_requests=2) as server, stream(server.port):
        for _ in range(2):
            assert request(server.port, "GET", "/live/health")[0] == 200
        assert server.ended()
        assert not server.server.should_exit


def test_streams_end_when_a_program_awaits_the_server_itself(lives):
    import uvicorn

    _, app = lives()
    made = UvicornThread(app)
    server = made.server = uvicorn.Server(made.server.config)

    async def program():
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve())

    made._thread = threading.Thread(target=lambda: asyncio.run(program()), daemon=True)
    with made, stream(made.port):
        pass


def test_a_live_that_is_the_application_itself_ends_with_its_server(lives):
    live, _ = lives()
    with UvicornThread(live.asgi()) as server, stream(server.port, ""):
        node = live._starting.result()
    assert node.clients.is_draining
    assert live._stack is None  # so it can be used again, in another loop

    async def use():
        async with live:
            return await live.publish("news", 1)

    assert asyncio.run(use()).offset == 1


def test_without_uvicorn_there_is_no_server_to_look_at():
    from yelpaze.app.host_server import host_server

    async def look():
        return host_server()

    assert asyncio.run(look()) is None


# ── pings ───────────────────────────────────────────────────────────────────────────


def pinged(client, count):
    """Answer so many pings; what else comes is a failure."""
    for _ in range(count):
        opcode, payload = client.receive()
        assert opcode == PING
        client.say(payload, PONG)


def test_plain_clients_are_pinged_at_the_interval_of_the_settings(lives):
    config = {**CONFIG, "websocket": {"plain_ping_interval": "50ms"}}
    _, app = lives(config)
    with UvicornThread(app) as server, WebSocket(server.port, "/live/ws/news") as plain:
        pinged(plain, 3)


def test_who_does_not_answer_a_ping_in_time_is_closed(lives):
    config = {
        "client": {"insecure": True, "pong_timeout": "50ms"},
        "websocket": {"plain_ping_interval": "50ms"},
    }
    live, app = lives(config)
    with UvicornThread(app) as server, WebSocket(server.port, "/live/ws/news") as plain:
        assert plain.closed()[0] in (1011, 1006)
        node = live._starting.result()
        until(lambda: not node.clients.connections)


def test_an_interval_of_0_is_no_pings_whatever_the_server_says(lives):
    config = {**CONFIG, "websocket": {"plain_ping_interval": "0s"}}
    _, app = lives(config)
    with (
        UvicornThread(app, ws_ping_interval=0.05) as server,
        WebSocket(server.port, "/live/connection/websocket") as other,  # its pings are the server's
        WebSocket(server.port, "/live/ws/news") as plain,
    ):
        pinged(other, 3)
        plain.say("hello")
        assert plain.receive() == (TEXT, b"hello")


def test_clients_of_the_protocol_get_its_pings_only(lives):
    config = {**CONFIG, "websocket": {"plain_ping_interval": "50ms"}}
    _, app = lives(config)
    with UvicornThread(app) as server, WebSocket(server.port, "/live/ws/news") as plain:
        client = WebSocket(server.port, "/live/connection/websocket")
        client.say('{"id":1,"connect":{}}')
        assert client.receive()[0] == TEXT
        pinged(plain, 3)
        client.say('{"id":2,"ping":{}}')
        assert client.receive() == (TEXT, b'{"id":2,"ping":{}}')
        client.close()
