"""One stream of server-sent events (WHATWG HTML, section 9.2).

Comments keep it open through proxies. Nothing comes back from the reader, so that it is gone is known only
when the kernel gets no acknowledgement: it is told to give up after the pong timeout.
"""

import asyncio
import socket
from typing import Final

from yelpaze.live.core.node import Node
from yelpaze.live.core.stream import Joined
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import WENT_AWAY, Ending
from yelpaze.live.protocol.handshake import Rejected, Request
from yelpaze.live.transports.connection import Connection
from yelpaze.live.transports.heartbeat import OVER

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
