"""The gateway inside somebody's ASGI application: the same sessions, at ASGI's price.

    app.mount("/live", live.asgi())

ASGI has no write that returns at once, so each connection has a task that sends, and a bounded queue before
it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import (
    BAD_COMMAND,
    TOO_BIG,
    UNSUPPORTED_DATA,
    WENT_AWAY,
    Ending,
)
from yelpaze.live.protocol.handshake import Rejected, Request, check_origin
from yelpaze.live.server_api.api import Api
from yelpaze.live.server_api.openapi import schema
from yelpaze.live.sessions.centrifugo import PING, CentrifugoSession
from yelpaze.live.sessions.plain import EventsSession, PlainSession
from yelpaze.live.transports.connection import Connection
from yelpaze.live.transports.event_stream import COMMENT, HEADERS, comes_back, farewell, opening
from yelpaze.live.transports.heartbeat import OVER
from yelpaze.live.transports.responses import (
    RETRY,
    check_limits,
    cors,
    error_body,
    joined_headers,
    last_event_id,
    rejection_of,
)
from yelpaze.live.transports.routes import RouteKind, require, route_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CLOSE_SECONDS: Final = 5.0
_HIGH: Final = 64 << 10
_PROTOCOL: Final = "centrifuge-json"


class _Outbox:
    """What a connection writes to: a transport, as far as it needs one; its task sends."""

    def __init__(self, connection: "AsgiConnection") -> None:
        self._connection = connection
        self._unsent: list[Any] = []
        self._size = 0
        self._has_work = asyncio.Event()

    def write(self, data: Any) -> None:
        """Send it later; past a limit the connection is told to wait."""
        items = data if isinstance(data, list) else [data]
        self._unsent += items
        before, self._size = self._size, self._size + sum(map(len, items))
        self._has_work.set()
        if before <= _HIGH < self._size:
            self._connection.pause_writing()

    async def next(self) -> list[Any]:
        """What is to be sent."""
        await self._has_work.wait()
        self._has_work.clear()
        unsent, self._unsent, self._size = self._unsent, [], 0
        return unsent

    def wake(self) -> None:
        """Let the task look at the connection."""
        self._has_work.set()

    def abort(self) -> None:
        """The server closes what it has opened."""


class AsgiConnection(Connection):
    """A WebSocket or an event stream behind ASGI."""

    __slots__ = ("_is_ending", "_reads", "ending", "outbox")

    def __init__(self, node: Node, kind: int, ip: str) -> None:
        self.outbox = _Outbox(self)
        super().__init__(node, self.outbox, kind, ip)
        self.ending: Ending | None = None
        self._is_ending = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        node.wheel.put(self, node.config.client.stale_close_delay)

    def send(self, message: bytes) -> None:
        """Send a message, as text."""
        if self.ending is None:
            self.put(message.decode())

    @property
    def ping_interval(self) -> float:
        """See Connection. A plain WebSocket's pings are the ASGI server's."""
        config = self.node.config
        if self.kind == encoding.EVENTS:
            return config.sse.ping_interval
        return config.client.ping_interval if self.kind == encoding.CENTRIFUGO_TEXT else 0.0

    def ping(self) -> None:
        self.put(COMMENT if self.kind == encoding.EVENTS else PING.decode())

    def pause(self) -> None:
        """Read no more for now."""
        self._reads.clear()

    def resume(self) -> None:
        """Read on."""
        self._reads.set()

    async def overdue(self) -> None:
        """Wait until it should have been closed."""
        await self._is_ending.wait()
        await asyncio.sleep(_CLOSE_SECONDS)

    async def may_read(self) -> None:
        """Wait until it is read from."""
        await self._reads.wait()

    def end(self, ending: Ending) -> None:
        """Say why, and close: the sending task does."""
        if self.ending is None:
            self.ending = ending
            self.state = OVER
            if self.code == WENT_AWAY:
                self.code = ending.code
            self.backlog = None
            self._is_ending.set()
            self._reads.set()
            self.outbox.wake()
            self.session.client.closed()

    def abort(self) -> None:
        """Close it at once."""
        self.outbox.wake()


class AsgiApp:
    """An ASGI application over one node, which it starts when it is first used."""

    def __init__(self, node: Callable[[], Awaitable[Node]]) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection or request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        node = await self._node()
        request = _request(scope)
        try:
            kind, name = route_of(request.path, node.config, is_websocket=scope["type"] == "websocket")
            await _ANSWERS[kind](node, request, name, receive, send)
        except Rejected as rejected:
            node.statistics.rejected[rejected.status] += 1
            await _refuse(scope, send, rejected)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _request(scope: Scope) -> Request:
    path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
    client = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        path=path,
        query=dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        headers=joined_headers(scope["headers"]),
        version=scope.get("http_version", "1.1"),
        ip=client[0] if client else "",  # behind a proxy the ASGI server knows which address is true
    )


# ── WebSockets ──────────────────────────────────────────────────────────────────


async def _websocket(node: Node, request: Request, channel: str, receive: Receive, send: Send) -> None:
    is_centrifugo = not channel
    check_origin(request, node.config.client.allowed_origins)
    check_limits(node, request)
    await receive()  # websocket.connect
    asked = [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",")]
    await send({"type": "websocket.accept", "subprotocol": _PROTOCOL if _PROTOCOL in asked else None})
    kind = encoding.CENTRIFUGO_TEXT if is_centrifugo else encoding.PLAIN_TEXT
    connection = AsgiConnection(node, kind, request.ip)
    if is_centrifugo:
        connection.session = CentrifugoSession(node, connection)
    else:
        session = connection.session = PlainSession(node, connection, channel)
        session.open(request.query.get("token", ""))
    await _both(connection, _read(connection, receive), _write(connection, send))


async def _both(connection: AsgiConnection, reading: Any, writing: Any) -> None:
    """Read and write until either ends, or the client was told the end and does not read it."""
    tasks = [asyncio.ensure_future(work) for work in (reading, writing, connection.overdue())]
    for task in tasks:
        task.add_done_callback(partial(_look, connection.node))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        connection.connection_lost(None)  # first: who cancels us may do so again and again
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _look(node: Node, task: asyncio.Task[None]) -> None:
    """Tell of a defect, if a task ended by one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        node.defect(error)


async def _read(connection: AsgiConnection, receive: Receive) -> None:
    limit = connection.node.config.websocket.message_size_limit
    while True:
        await connection.may_read()
        message = await receive()
        if message["type"] == "websocket.disconnect":
            connection.code = message.get("code") or WENT_AWAY
            return
        text = message.get("text")
        if connection.ending is not None:
            continue
        if text is None:
            connection.end(Ending(UNSUPPORTED_DATA, "only text is spoken here"))
        elif len(data := text.encode(errors="surrogatepass")) > limit:
            connection.end(Ending(TOO_BIG, f"a message has at most {limit} bytes"))
        else:
            connection.session.receive(data)


async def _write(connection: AsgiConnection, send: Send) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # the client has gone; reading says so, too
        while True:
            for text in await connection.outbox.next():
                await send({"type": "websocket.send", "text": text})
            connection.resume_writing()
            if connection.ending is not None:
                code, reason = connection.ending.code, connection.ending.reason
                await send({"type": "websocket.close", "code": code, "reason": reason})
                return


# ── event streams ───────────────────────────────────────────────────────────────


async def _stream(node: Node, request: Request, channel: str, receive: Receive, send: Send) -> None:
    try:
        await _events(node, request, channel, receive, send)
    except Rejected as rejected:
        if not comes_back(request, rejected):
            raise
        node.statistics.rejected[rejected.status] += 1
        headers = _encoded([*HEADERS, *cors(request, node)])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": farewell(rejected, node.between(*RETRY))})


async def _events(node: Node, request: Request, channel: str, receive: Receive, send: Send) -> None:
    check_origin(request, node.config.client.allowed_origins)
    require(request.method, "GET", "events are read")
    check_limits(node, request)
    connection = AsgiConnection(node, encoding.EVENTS, request.ip)
    session = connection.session = EventsSession(node, connection, channel)
    connection.hold()
    last = last_event_id(request)
    try:
        joined = await session.enter(request.query.get("token", ""), last)
        headers = [*HEADERS, *cors(request, node)]
        await send({"type": "http.response.start", "status": 200, "headers": _encoded(headers)})
    except BaseException as error:
        connection.connection_lost(None)
        rejected = rejection_of(error) if isinstance(error, Exception) else None
        if rejected is None:
            raise
        raise rejected from None
    connection.put(opening(joined, last, node.between(*RETRY)))
    connection.release()
    connection.greeted()
    await _both(connection, _until_gone(receive), _send_events(connection, send))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_events(connection: AsgiConnection, send: Send) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while connection.ending is None:
            data = b"".join(await connection.outbox.next())
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            connection.resume_writing()
        await send({"type": "http.response.body", "body": b""})


# ── the server API ──────────────────────────────────────────────────────────────


async def _api(node: Node, request: Request, method: str, receive: Receive, send: Send) -> None:
    api = Api(node)
    api.check_key(request.headers)
    require(request.method, "POST", "the server API is called")
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > node.config.http_api.message_size_limit:
            raise Rejected(413, "the body is too large")
    await _respond(send, 200, await api.answer(method, bytes(body)), ())


async def _openapi(node: Node, request: Request, _: str, receive: Receive, send: Send) -> None:  # noqa: ARG001
    Api(node).check_key(request.headers)
    require(request.method, "GET", "the description is read", or_head=True)
    await _respond(send, 200, msgspec.json.encode(schema()), ())


async def _health(node: Node, request: Request, _: str, receive: Receive, send: Send) -> None:  # noqa: ARG001
    require(request.method, "GET", "the health is read", or_head=True)
    await _respond(send, 200, b"{}", ())


async def _readiness(node: Node, request: Request, _: str, receive: Receive, send: Send) -> None:  # noqa: ARG001
    require(request.method, "GET", "the readiness is read", or_head=True)
    await _respond(send, 503 if node.clients.is_draining else 200, b"{}", ())


_ANSWERS: Final[dict[RouteKind, Callable[[Node, Request, str, Receive, Send], Awaitable[None]]]] = {
    RouteKind.CENTRIFUGO: _websocket,
    RouteKind.PLAIN: _websocket,
    RouteKind.EVENTS: _stream,
    RouteKind.API: _api,
    RouteKind.OPENAPI: _openapi,
    RouteKind.HEALTH: _health,
    RouteKind.READINESS: _readiness,
}


async def _refuse(scope: Scope, send: Send, rejected: Rejected) -> None:
    body = error_body(rejected)
    if scope["type"] == "http":
        await _respond(send, rejected.status, body, rejected.headers)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await _respond(send, rejected.status, body, rejected.headers, prefix="websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": BAD_COMMAND.code, "reason": rejected.reason})


async def _respond(
    send: Send, status: int, body: bytes, headers: Any, *, prefix: str = "http.response"
) -> None:
    every = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    await send({"type": f"{prefix}.start", "status": status, "headers": _encoded(every)})
    await send({"type": f"{prefix}.body", "body": body})


def _encoded(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
