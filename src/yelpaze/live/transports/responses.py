"""Checks and answers that the gateway's own HTTP server and its ASGI application share."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

import msgspec

from yelpaze.live.brokers.broker import BrokerUnavailable
from yelpaze.live.core.node import Node
from yelpaze.live.protocol.codes import CONNECTION_LIMIT, PERMISSION_DENIED, Ended, Refused
from yelpaze.live.protocol.handshake import Rejected, Request

RETRY = (1000, 4000)  # milliseconds after which event sources come back, spread


def check_limits(node: Node, request: Request) -> None:
    """Raise Rejected if there are too many connections, or too many new ones."""
    if node.clients.is_too_fast():
        raise Rejected(429, "too many new connections", [("Retry-After", "1")])
    if not node.clients.accepts(request.ip):
        raise Rejected(503, "no more connections are taken", [("Retry-After", "5")])


def rejection_of(error: Exception) -> Rejected | None:
    """How an event stream is refused; None for a defect of ours."""
    if isinstance(error, Ended):
        if error.ending == CONNECTION_LIMIT:
            return Rejected(503, "this user has too many connections", [("Retry-After", "5")])
        return Rejected(401, error.ending.reason)
    if isinstance(error, Refused):
        denied = error.failure == PERMISSION_DENIED
        return Rejected(403 if denied else 404, error.failure.message)
    if isinstance(error, BrokerUnavailable):
        return Rejected(503, "the broker is away", [("Retry-After", "1")])
    return None


def head(
    status: int, headers: Sequence[tuple[str, str]], length: int | None = None, *, is_last: bool = False
) -> bytes:
    """The head of an answer."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if is_last:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def refusal(rejected: Rejected, headers: Sequence[tuple[str, str]], *, is_last: bool, is_head: bool) -> bytes:
    """An answer that says what is wrong; to HEAD without its body."""
    body = error_body(rejected)
    every = [("Content-Type", "application/json"), *headers, *rejected.headers]
    found = head(rejected.status, every, len(body), is_last=is_last)
    return found if is_head else found + body


def error_body(rejected: Rejected) -> bytes:
    """The JSON of a refused request."""
    return msgspec.json.encode({"error": {"code": rejected.status, "message": rejected.reason}})


def last_event_id(request: Request) -> str:
    """Where an event source wants to continue; polyfills send it in the query."""
    return request.headers.get("last-event-id", "") or request.query.get("lastEventId", "")


def joined_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields by lower-case name; values of one name joined by commas (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
