"""The gateway's HTTP server: one port for handshakes, event streams and the server API (see `routes`).

    HttpConnection ──Upgrade──→ WebSocket
                   ──────────→ EventStream
                   ──────────→ an answer, and the next request

A connection stays an HttpConnection until a request turns it into something else; then its transport gets
another protocol. Requests are answered one after the other; nothing is read while one is being answered.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import httptools
import msgspec

from yelpaze.live.core import eager
from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import BAD_COMMAND, Ending
from yelpaze.live.protocol.handshake import (
    Rejected,
    Request,
    accept,
    check_origin,
    client_ip,
    wants_websocket,
)
from yelpaze.live.server_api.api import Api
from yelpaze.live.server_api.openapi import schema
from yelpaze.live.sessions.centrifugo import CentrifugoSession
from yelpaze.live.sessions.plain import PlainSession
from yelpaze.live.transports.cors import cors, options
from yelpaze.live.transports.event_stream import open_stream
from yelpaze.live.transports.responses import check_limits, head, joined_headers, refusal
from yelpaze.live.transports.routes import READ, WEBSOCKETS, RouteKind, require, route_of
from yelpaze.live.transports.websocket import WebSocket

_MOST_HEADERS: Final = 16 << 10
_MOST_BODY: Final = 64 << 10  # where none is wanted
_HEADER_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 60.0
_PROTOCOLS: Final = ("centrifuge-json",)
_PROTOBUF: Final = "centrifuge-protobuf"  # taken, to say that it is not spoken in words that SDKs hear
_JSON_ONLY: Final = Ending(BAD_COMMAND.code, "JSON only: Protobuf is not spoken here")


class _PipelinedError(Exception):
    """The next request has come before this one was answered."""


class HttpConnection(asyncio.Protocol):
    """A connection that has not become something else."""

    __slots__ = (
        "_api",
        "_body",
        "_body_limit",
        "_headers",
        "_is_answering",
        "_is_full",
        "_is_last",
        "_is_over",
        "_node",
        "_parser",
        "_request",
        "_rest",
        "_seen",
        "_transport",
        "_url",
        "bucket",
    )

    def __init__(self, node: Node, api: Api) -> None:
        self._node = node
        self._api = api
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.bucket: Any = None
        self._rest = b""
        self._is_answering = False
        self._is_over = False
        self._is_last = False
        self._is_full = False  # of answers that the client does not read
        self._clear()

    def _clear(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._seen = 0
        self._body: list[bytes] = []
        self._body_limit = _MOST_BODY
        self._request: Request | None = None

    # ── asyncio's side ──────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's doesn't inherit from asyncio's
        self._node.clients.handshaking[self] = None
        self._node.wheel.put(self, _HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leave()

    def pause_writing(self) -> None:
        self._is_full = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        if not self._is_answering and not self._transport.is_closing():
            self._transport.resume_reading()

    def _leave(self) -> None:
        self._is_over = True
        self._node.clients.handshaking.pop(self, None)
        self._node.wheel.drop(self)

    def wake(self) -> None:
        """It took too long."""
        if self._headers or self._url:
            self._reject(Rejected(408, "the request was not complete in time"))
        else:
            self._transport.abort()

    def stop(self) -> None:
        """The gateway ends: what is being answered is, nothing else."""
        if not self._is_answering:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_answering:
            self._rest += data
            self._transport.pause_reading()
            return
        self._seen += len(data)
        if self._request is None and self._seen > _MOST_HEADERS and not self._has_head(data):
            self._reject(Rejected(431, f"the head of a request has at most {_MOST_HEADERS} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except Rejected as rejected:
            self._reject(rejected)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _PipelinedError):  # the first is answered, and the connection ends
                self._is_last = True
                self._transport.pause_reading()
                return
            self._failed(cause if isinstance(cause, Exception) else error, keep=False)
        except httptools.HttpParserError:
            self._reject(Rejected(400, "no request that can be read"))

    @staticmethod
    def _has_head(data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        return 0 <= end < _MOST_HEADERS

    # ── httptools' side ─────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        if self._request is not None:  # the next one, in the same piece of data
            raise _PipelinedError

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._request = self._head()
        if self._request.path.startswith("/api/"):
            self._body_limit = self._node.config.http_api.message_size_limit
            self._api.check_key(self._request.headers)  # before a body is taken in
            if self._request.headers.get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._body_limit -= len(body)
        if self._body_limit < 0:
            raise Rejected(413, "the body is too large")

    def on_message_complete(self) -> None:
        assert self._request is not None
        if not self._parser.should_upgrade():
            self._answer(self._request)

    # ── what is asked ───────────────────────────────────────────────────────────

    def _head(self) -> Request:
        headers = joined_headers(self._headers)
        try:
            url = urlsplit(self._url.decode("latin-1"))
        except ValueError:
            raise Rejected(400, "no address that can be read") from None
        peer = self._transport.get_extra_info("peername")
        here = peer[0] if isinstance(peer, tuple) else ""
        trusted = self._node.config.client.trusted_proxies
        return Request(
            method=self._parser.get_method().decode("latin-1"),
            path=unquote(url.path),
            query=dict(parse_qsl(url.query, keep_blank_values=True)),
            headers=headers,
            version=self._parser.get_http_version(),
            ip=client_ip(here, headers.get("x-forwarded-for", ""), trusted) if trusted else here,
        )

    def _upgrade(self, rest: bytes) -> None:
        request = self._request
        if request is None:
            self._reject(Rejected(400, "no request that can be read"))
            return
        try:
            if wants_websocket(request):
                self._open(request, rest)
            else:  # to what we don't speak, as h2c: it is not taken up (RFC 9110, section 7.8)
                self._is_last = True
                self._answer(request)
        except Rejected as rejected:
            self._reject(rejected)

    def _open(self, request: Request, rest: bytes) -> None:
        """Make a WebSocket of it. Raises Rejected."""
        config = self._node.config
        kind, channel = route_of(request.path, config, is_websocket=True)
        is_centrifugo = kind is RouteKind.CENTRIFUGO
        answer = accept(request, (*_PROTOCOLS, _PROTOBUF) if is_centrifugo else ())
        check_origin(request, config.client.allowed_origins)
        check_limits(self._node, request)
        self._leave()
        transport = self._transport
        transport.write(answer)
        connection = WebSocket(
            self._node, transport, encoding.CENTRIFUGO if is_centrifugo else encoding.PLAIN, request.ip
        )
        transport.set_protocol(connection)
        if is_centrifugo and _wants_protobuf(request):
            connection.session = CentrifugoSession(self._node, connection)
            connection.end(_JSON_ONLY)
            return
        if is_centrifugo:
            connection.session = CentrifugoSession(self._node, connection)
        else:
            connection.session = session = PlainSession(self._node, connection, channel)
            session.open(request.query.get("token", ""))
        if rest:
            connection.data_received(rest)

    def _answer(self, request: Request) -> None:
        kind, name = route_of(request.path, self._node.config)
        if kind in WEBSOCKETS:
            accept(request)  # says what is missing
            raise Rejected(400, "the header Connection: Upgrade is missing")
        if request.method == "OPTIONS" and kind in READ:
            self._send(204, options(request, self._node.config.client.allowed_origins))
            return
        require(request.method, kind)
        self._answers[kind](self, request, name)

    def _health(self, _: Request, __: str) -> None:
        self._respond(200, b"{}")

    def _readiness(self, _: Request, __: str) -> None:
        self._respond(503 if self._node.clients.is_draining else 200, b"{}")

    def _openapi(self, _: Request, __: str) -> None:
        self._respond(200, msgspec.json.encode(schema()))

    def _call(self, _: Request, method: str) -> None:
        self._is_answering = True
        self._node.wheel.drop(self)
        eager.start(
            self._api.answer(method, b"".join(self._body)),
            lambda body: self._respond(200, body),
            self._failed,
        )

    def _failed(self, error: Exception, *, keep: bool = True) -> None:
        if not isinstance(error, Rejected):
            self._node.defect(error)
            error = Rejected(500, "internal server error")
        self._reject(error, keep=keep)

    def _stream(self, request: Request, channel: str) -> None:
        check_origin(request, self._node.config.client.allowed_origins)
        self._leave()
        open_stream(self._node, self._transport, request, channel)

    # ── answers ─────────────────────────────────────────────────────────────────

    @property
    def _is_head(self) -> bool:
        """Whether no body is wanted, also of a request that came in part."""
        if self._request is not None:
            return self._request.method == "HEAD"
        return bool(self._url) and self._parser.get_method() == b"HEAD"

    def _cors(self) -> list[tuple[str, str]]:
        request = self._request
        return cors(request, self._node.config.client.allowed_origins) if request is not None else []

    def _respond(self, status: int, body: bytes) -> None:
        self._send(status, [("Content-Type", "application/json"), *self._cors()], body)

    def _send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes | None = None) -> None:
        keeps = self._keeps()
        if not self._is_over and not self._transport.is_closing():
            answer = head(status, headers, None if body is None else len(body), is_last=not keeps)
            self._transport.write(answer if body is None or self._is_head else answer + body)
        self._next(keeps=keeps)

    def _reject(self, rejected: Rejected, *, keep: bool = False) -> None:
        self._node.statistics.rejected[rejected.status] += 1
        keeps = keep and self._keeps()
        if not self._is_over and not self._transport.is_closing():
            answer = refusal(rejected, self._cors(), is_last=not keeps, is_head=self._is_head)
            self._transport.write(answer)
        self._next(keeps=keeps)

    def _keeps(self) -> bool:
        return self._parser.should_keep_alive() and not self._is_last and not self._node.clients.is_draining

    def _next(self, *, keeps: bool) -> None:
        """The next request, or none."""
        was_answering, self._is_answering = self._is_answering, False
        self._clear()
        if not keeps or self._is_over:
            self._transport.close()
            return
        self._node.wheel.put(self, _IDLE_SECONDS)
        if was_answering and self._rest:
            rest, self._rest = self._rest, b""
            if not self._is_full:
                self._transport.resume_reading()
            self._node.soon(lambda: None if self._is_over else self.data_received(rest))

    _answers: ClassVar[dict[RouteKind, Callable[["HttpConnection", Request, str], None]]] = {
        RouteKind.EVENTS: _stream,
        RouteKind.API: _call,
        RouteKind.OPENAPI: _openapi,
        RouteKind.HEALTH: _health,
        RouteKind.READINESS: _readiness,
    }


def _wants_protobuf(request: Request) -> bool:
    asked = [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",")]
    named = "protobuf" in (request.query.get("format"), request.query.get("cf_protocol"))
    return named or (_PROTOBUF in asked and _PROTOCOLS[0] not in asked)
