"""The common part of all connections: a session, a transport, and a backlog while the reader is too slow."""

import asyncio
from typing import Any, Final

from yelpaze.live.core.backlog import Backlog
from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import SLOW, WENT_AWAY, Ending
from yelpaze.live.protocol.values import ClientInfo
from yelpaze.live.sessions.client import Session
from yelpaze.live.transports.heartbeat import GREETING, OVER, QUIET, delay, due, ponged

NAMES: Final = ("centrifugo", "plain", "sse", "centrifugo", "plain")  # of the kinds of `encoding`


class Connection(asyncio.Protocol):
    """A client's connection after its handshake; `kind` is one of `encoding`."""

    __slots__ = ("backlog", "bucket", "code", "ip", "kind", "node", "session", "state", "transport")

    def __init__(self, node: Node, transport: Any, kind: int, ip: str) -> None:
        self.node = node
        self.transport = transport
        self.kind = kind
        self.ip = ip if node.config.client.ip_connection_limit else ""
        self.session: Any = None
        self.state = GREETING
        self.backlog: Backlog | None = None
        self.bucket: Any = None
        self.code = WENT_AWAY
        node.clients.opened(self, NAMES[kind], ip)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.backlog = None
        self.node.wheel.drop(self)
        session: Session = self.session
        session.client.closed()
        self.node.clients.closed(self, NAMES[self.kind], self.ip, self.code)

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
        """Its client has missed publications."""
        session: Session = self.session
        session.insufficient(channel)

    @property
    def seen(self) -> ClientInfo:
        """What others see of its client."""
        session: Session = self.session
        return session.client.seen

    def end(self, ending: Ending) -> None:
        """Say why, and close."""
        raise NotImplementedError

    # ── pings ───────────────────────────────────────────────────────────────────

    @property
    def ping_interval(self) -> float:
        """Seconds between two pings; 0 for none."""
        raise NotImplementedError

    def ping(self) -> None:
        """Send a ping."""
        raise NotImplementedError

    def greeted(self) -> None:
        """The client is connected: it is pinged from now on."""
        if self.state == GREETING:
            self.state = QUIET
            if self.ping_interval > 0:
                self.node.wheel.put(self, self.ping_interval, spread=True)
            else:
                self.node.wheel.drop(self)

    def ponged(self) -> None:
        """The client has answered a ping."""
        self.state = ponged(self.state)

    def wake(self) -> None:
        """The greeting or the pong has not come in time, or the next ping is due."""
        if self.state >= OVER:
            return
        is_answered = self.kind != encoding.EVENTS
        step = due(self.state, is_answered=is_answered)
        if step.ending is not None:
            self.end(step.ending)
            return
        self.state = step.state
        if step.sends_ping:
            self.ping()
            if self.state != step.state:  # it was one too many for a slow reader
                return
        timeout = self.node.config.client.pong_timeout
        self.node.wheel.put(self, delay(self.state, self.ping_interval, timeout, is_answered=is_answered))

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Close it at once."""
        self.transport.abort()
