"""The gateway inside somebody's ASGI application: the same sessions, at ASGI's price.

    app.mount("/live", live.asgi())

ASGI has no write that returns at once, so each connection has a task that sends, and a bounded queue before
it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from yelpaze.live.config import Config
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
from yelpaze.live.sessions.centrifugo import CentrifugoSession
from yelpaze.live.sessions.plain import EventsSession, PlainSession
from yelpaze.live.transports.asgi_connection import AsgiConnection
from yelpaze.live.transports.cors import cors, options
from yelpaze.live.transports.event_stream import HEADERS, comes_back, farewell, opening
from yelpaze.live.transports.responses import (
    RETRY,
    check_limits,
    error_body,
    joined_headers,
    last_event_id,
    rejection_of,
)
from yelpaze.live.transports.routes import READ, RouteKind, require, route_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[str, str]]

_PROTOCOL: Final = "centrifuge-json"


class AsgiApp:
    """An ASGI application over one node, which it starts when it is first used.

    `close` is awaited at the end of a server that runs this application alone, mounted in no other.
    """

    def __init__(self, node: Callable[[], Awaitable[Node]], close: Callable[[], Awaitable[None]]) -> None:
        self._node = node
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection or request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        node = await self._node()
        request = _request(scope)
        is_websocket = scope["type"] == "websocket"
        if request.method == "HEAD":
            send = _without_body(send)
        try:
            kind, name = route_of(request.path, node.config, is_websocket=is_websocket)
            if kind in (RouteKind.API, RouteKind.OPENAPI):
                Api(node).check_key(request.headers)
            if request.method == "OPTIONS" and kind in READ:
                await _start(send, 204, options(request, node.config.client.allowed_origins))
                await send({"type": "http.response.body", "body": b""})
                return
            require(request.method, kind)
            await _ANSWERS[kind](node, request, name, receive, send)
        except Rejected as rejected:
            node.statistics.rejected[rejected.status] += 1
            await _refuse(node, request, scope, send, rejected)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            is_end = message["type"] == "lifespan.shutdown"
            if is_end:
                await self._close()
            await send({"type": f"{message['type']}.complete"})
            if is_end:
                return


def _without_body(send: Send) -> Send:
    """Send the heads of answers only (RFC 9110, section 9.3.2)."""

    async def send_head(message: MutableMapping[str, Any]) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


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
    if not is_centrifugo:
        _set_pings(receive, node.config)
    await send({"type": "websocket.accept", "subprotocol": _PROTOCOL if _PROTOCOL in asked else None})
    kind = encoding.CENTRIFUGO_TEXT if is_centrifugo else encoding.PLAIN_TEXT
    connection = AsgiConnection(node, kind, request.ip)
    if is_centrifugo:
        connection.session = CentrifugoSession(node, connection)
    else:
        session = connection.session = PlainSession(node, connection, channel)
        session.open(request.query.get("token", ""))
    await _both(connection, _read(connection, receive), _write(connection, send))


def _set_pings(receive: Receive, config: Config) -> None:
    """Have uvicorn ping this connection as our own server would.

    ASGI has no message for a ping, so the server sends them. `receive` is a method of uvicorn's connection,
    which looks at these when it is accepted (`--ws-ping-interval` sets them for all connections). A server
    or a middleware that hides it pings as it is told to.
    """
    server_connection: Any = getattr(receive, "__self__", None)
    if hasattr(server_connection, "ping_interval"):
        server_connection.ping_interval = config.websocket.plain_ping_interval or None
        server_connection.ping_timeout = config.client.pong_timeout


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
        await _start(send, 200, [*HEADERS, *_cors(node, request)])
        await send({"type": "http.response.body", "body": farewell(rejected, node.between(*RETRY))})


async def _events(node: Node, request: Request, channel: str, receive: Receive, send: Send) -> None:
    check_origin(request, node.config.client.allowed_origins)
    check_limits(node, request)
    connection = AsgiConnection(node, encoding.EVENTS, request.ip)
    session = connection.session = EventsSession(node, connection, channel)
    connection.hold()
    token, last = request.query.get("token", ""), last_event_id(request)
    is_head = request.method == "HEAD"
    try:
        joined = await (session.check(token) if is_head else session.enter(token, last))
        await _start(send, 200, [*HEADERS, *_cors(node, request)])
    except BaseException as error:
        connection.connection_lost(None)
        rejected = rejection_of(error) if isinstance(error, Exception) else None
        if rejected is None:
            raise
        raise rejected from None
    if joined is None:
        connection.connection_lost(None)
        await send({"type": "http.response.body", "body": b""})
        return
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
    await _respond(node, request, send, 200, await Api(node).answer(method, bytes(body)))


async def _openapi(node: Node, request: Request, _: str, __: Receive, send: Send) -> None:
    await _respond(node, request, send, 200, msgspec.json.encode(schema()))


async def _health(node: Node, request: Request, _: str, __: Receive, send: Send) -> None:
    await _respond(node, request, send, 200, b"{}")


async def _readiness(node: Node, request: Request, _: str, __: Receive, send: Send) -> None:
    await _respond(node, request, send, 503 if node.clients.is_draining else 200, b"{}")


_ANSWERS: Final[dict[RouteKind, Callable[[Node, Request, str, Receive, Send], Awaitable[None]]]] = {
    RouteKind.CENTRIFUGO: _websocket,
    RouteKind.PLAIN: _websocket,
    RouteKind.EVENTS: _stream,
    RouteKind.API: _api,
    RouteKind.OPENAPI: _openapi,
    RouteKind.HEALTH: _health,
    RouteKind.READINESS: _readiness,
}


async def _refuse(node: Node, request: Request, scope: Scope, send: Send, rejected: Rejected) -> None:
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if prefix not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": BAD_COMMAND.code, "reason": rejected.reason})
            return
    body = error_body(rejected)
    await _respond(node, request, send, rejected.status, body, rejected.headers, prefix=prefix)


def _cors(node: Node, request: Request) -> Headers:
    return cors(request, node.config.client.allowed_origins)


async def _respond(
    node: Node,
    request: Request,
    send: Send,
    status: int,
    body: bytes,
    headers: Headers = (),
    *,
    prefix: str = "http.response",
) -> None:
    about = ("content-type", "application/json"), ("content-length", str(len(body)))
    await _start(send, status, [*about, *_cors(node, request), *headers], prefix=prefix)
    await send({"type": f"{prefix}.body", "body": body})


async def _start(send: Send, status: int, headers: Headers, *, prefix: str = "http.response") -> None:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": f"{prefix}.start", "status": status, "headers": encoded})
