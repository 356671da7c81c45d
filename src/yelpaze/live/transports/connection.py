"""What every connection has: a client, a transport, and a backlog while its reader is too slow."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from yelpaze.live.core.backlog import Backlog
from yelpaze.live.protocol.codes import SLOW, WENT_AWAY, Ending
from yelpaze.live.sessions.client import Client

if TYPE_CHECKING:
    from yelpaze.live.core.node import Node

NAMES: Final = ("centrifugo", "plain", "sse", "centrifugo", "plain")  # of the kinds of `framing`


class Connection(asyncio.Protocol):
    """A client's connection after its handshake; `kind` is one of `framing`."""

    __slots__ = ("backlog", "bucket", "client", "code", "ip", "kind", "node", "transport")

    def __init__(self, node: "Node", transport: Any, kind: int, ip: str) -> None:
        self.node = node
        self.transport = transport
        self.kind = kind
        self.ip = ip if node.config.client.ip_connection_limit else ""
        self.client: Any = None
        self.backlog: Backlog | None = None
        self.bucket: Any = None
        self.code = WENT_AWAY
        node.opened(self, NAMES[kind], ip)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.backlog = None
        self.node.wheel.drop(self)
        client: Client = self.client
        client.closed()
        self.node.closed(self, NAMES[self.kind], self.ip, self.code)

    # ── to the client ───────────────────────────────────────────────────────────

    def put(self, data: Any) -> None:
        """Write what is no publication: now, or after what waits already."""
        if self.backlog is not None and self.backlog.is_paused:
            self.backlog.add(data)
        else:
            self.transport.write(data)

    def hold(self) -> None:
        """Keep publications until `release`; what is put goes before them."""
        if self.backlog is None:
            self.backlog = self._new_backlog()
            self.backlog.is_paused = False

    def release(self) -> None:
        """Write what was kept."""
        if self.backlog is not None and not self.backlog.is_paused:
            self._drain(self.backlog)

    def _new_backlog(self) -> Backlog:
        return Backlog(self.node.config.client.queue_max_size, self._overflow)

    def pause_writing(self) -> None:
        if self.backlog is None:
            self.backlog = self._new_backlog()
        self.backlog.is_paused = True

    def resume_writing(self) -> None:
        if self.backlog is not None and self.backlog.is_paused:
            self._drain(self.backlog)

    def _drain(self, backlog: Backlog) -> None:
        if backlog.drain(self.transport):
            self.backlog = None

    def _overflow(self) -> None:
        self.end(SLOW)

    def insufficient(self, channel: str) -> None:
        """Its client has missed something."""
        client: Client = self.client
        client.insufficient(channel)

    def end(self, ending: Ending) -> None:
        """Say why, and close."""
        raise NotImplementedError

    def wake(self) -> None:
        """What it waited for is due."""
        raise NotImplementedError

    def ponged(self) -> None:
        """The client is there."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Close it at once."""
        self.transport.abort()
