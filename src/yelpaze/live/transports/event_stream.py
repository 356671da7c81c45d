"""One stream of server-sent events (WHATWG HTML, section 9.2).

Comments keep it open through proxies. Nothing comes back from the reader, so that it is gone is known only
when the kernel gets no acknowledgement: it is told to give up after the pong timeout.
"""

import asyncio
import socket
from typing import Final

from yelpaze.live.core import eager
from yelpaze.live.core.node import Node
from yelpaze.live.core.stream import Joined
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import NORMAL, WENT_AWAY, Ending
from yelpaze.live.protocol.handshake import Rejected, Request
from yelpaze.live.sessions.plain import EventsSession
from yelpaze.live.transports.connection import Connection
from yelpaze.live.transports.cors import cors
from yelpaze.live.transports.heartbeat import OVER
from yelpaze.live.transports.responses import (
    RETRY,
    check_limits,
    head,
    last_event_id,
    refusal,
    rejection_of,
)

COMMENT: Final = b":\n\n"
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
_TEMPORARY: Final = (429, 503)
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
HEADERS: Final = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),  # nginx passes each event on at once
)


class EventStream(Connection):
    """A reader of one channel."""

    __slots__ = ()

    def __init__(self, node: Node, transport: asyncio.Transport, ip: str) -> None:
        super().__init__(node, transport, encoding.EVENTS, ip)

    def begin(self, joined: Joined, last_event_id: str, retry: int) -> None:
        """Send what the reader has missed; it is pinged from now on."""
        self.put(opening(joined, last_event_id, retry))
        self.release()
        seconds = self.node.config.client.pong_timeout
        found = self.transport.get_extra_info("socket")
        if found is not None and found.family in _TCP and _TCP_USER_TIMEOUT is not None:
            found.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(seconds * 1000))
        self.greeted()

    @property
    def ping_interval(self) -> float:
        return self.node.config.sse.ping_interval

    def ping(self) -> None:
        """Send a comment."""
        self.put(COMMENT)

    def send(self, message: bytes) -> None:
        """A reader gets publications only."""

    def end(self, ending: Ending) -> None:
        """Close it; the reader reconnects by itself."""
        if self.state >= OVER:
            return
        self.state = OVER
        if self.code == WENT_AWAY:
            self.code = ending.code
        self.backlog = None
        self.transport.close()
        self.node.wheel.drop(self)
        self.session.client.closed()


def open_stream(node: Node, transport: asyncio.Transport, request: Request, channel: str) -> None:
    """Answer a request with a stream, or refuse it; HEAD gets the head of the same answer."""
    try:
        check_limits(node, request)
    except Rejected as rejected:
        _refuse(node, transport, request, rejected)
        return
    stream = EventStream(node, transport, request.ip)
    transport.set_protocol(stream)
    session = stream.session = EventsSession(node, stream, channel)
    stream.hold()
    token, last = request.query.get("token", ""), last_event_id(request)

    def begin(joined: Joined | None) -> None:
        headers = [*HEADERS, *cors(request, node.config.client.allowed_origins)]
        transport.write(head(200, headers, is_last=True))
        if joined is None:
            stream.end(Ending(NORMAL, "HEAD"))
        else:
            stream.begin(joined, last, node.between(*RETRY))

    def refuse(error: Exception) -> None:
        rejected = rejection_of(error)
        if rejected is None:
            node.defect(error)
            rejected = Rejected(500, "internal server error")
        _refuse(node, transport, request, rejected)

    if request.method == "HEAD":
        eager.start(session.check(token), begin, refuse)
    else:
        eager.start(session.enter(token, last), begin, refuse)


def _refuse(node: Node, transport: asyncio.Transport, request: Request, rejected: Rejected) -> None:
    node.statistics.rejected[rejected.status] += 1
    if transport.is_closing():
        return
    allowed = cors(request, node.config.client.allowed_origins)
    is_head = request.method == "HEAD"
    answer = refusal(rejected, allowed, is_last=True, is_head=is_head)
    if comes_back(request, rejected):
        answer = head(200, [*HEADERS, *allowed], is_last=True)
        answer += b"" if is_head else farewell(rejected, node.between(*RETRY))
    transport.write(answer)
    transport.close()


def comes_back(request: Request, rejected: Rejected) -> bool:
    """Whether it is a browser's EventSource that is refused for now only.

    At any status but 200 it gives up for good (section 9.2.3), so it is answered by a stream that ends.
    """
    return rejected.status in _TEMPORARY and "text/event-stream" in request.headers.get("accept", "")


def farewell(rejected: Rejected, retry: int) -> bytes:
    """All of a stream that only says when to come back."""
    return b": %b\nretry: %d\n\n" % (rejected.reason.encode(), retry)


def opening(joined: Joined, last_event_id: str, retry: int) -> bytes:
    """The first lines of a stream: when to come back, from where, and what was missed.

    A reader whose place is not in the history any more gets the event `missed`, with our position.
    """
    position = joined.position
    parts = [b"retry: %d\n" % retry]
    if position.epoch:
        if last_event_id and not joined.recovered:
            parts.append(b'event: missed\ndata: {"recovered":false}\n')
        if not joined.publications:
            parts.append(b"id: %d:%b\n" % (position.offset, position.epoch.encode()))
    parts.append(b"\n")
    parts += [encoding.event(one, position.epoch) for one in joined.publications]
    return b"".join(parts)
