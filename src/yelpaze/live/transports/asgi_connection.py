"""A connection behind ASGI: what is written waits in an outbox, for the task that sends."""

import asyncio
from typing import Any, Final

from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import WENT_AWAY, Ending
from yelpaze.live.sessions.centrifugo import PING
from yelpaze.live.transports.connection import Connection
from yelpaze.live.transports.event_stream import COMMENT
from yelpaze.live.transports.heartbeat import OVER

_CLOSE_SECONDS: Final = 5.0
_HIGH: Final = 64 << 10


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
        """See Connection. A plain WebSocket's pings are sent by the ASGI server (see `asgi`)."""
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
