"""One WebSocket: an `asyncio.Protocol` without task, queue or buffer of its own.

Theory of operation. Frames to the client go straight to the transport, which gathers what is written in one
turn of the loop. Only when the transport says that its buffer is full is there a `Backlog`; it goes when
the client has read. The wheel wakes a connection when its greeting, its next ping or the pong is due: which
of them, its state says. A close is sent, then the sending side is shut; the client has a few seconds to
close its own.
"""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from yelpaze.live.protocol import encoding as framing
from yelpaze.live.protocol.codes import NO_PONG, NORMAL, STALE, UNSUPPORTED_DATA, WENT_AWAY, Ending
from yelpaze.live.protocol.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    close_code,
    close_frame,
    frame,
)
from yelpaze.live.sessions.client import Client
from yelpaze.live.transports.connection import Connection

if TYPE_CHECKING:
    from yelpaze.live.core.node import Node

_GREETING: Final = 0  # the client has not said who it is
_QUIET: Final = 1  # the next ping is to come
_PINGED: Final = 2  # the pong is to come
_ANSWERED: Final = 3  # the pong has come; there is time until the next ping
_CLOSING: Final = 4  # the client's close is to come
_CLOSED: Final = 5

_PONGS: Final = "\0"  # no channel has this name
_PRIVATE: Final = 3000
_CLOSE_SECONDS: Final = 5.0
_CENTRIFUGO_PING: Final = frame(TEXT, b"{}")
_PLAIN_PING: Final = frame(PING, b"")


class Receiving(Protocol):
    """A client that takes messages."""

    def receive(self, message: bytes) -> None:
        """Take one."""


class WebSocket(Connection):
    """A connection after its handshake; `kind` is PLAIN or CENTRIFUGO of `framing`."""

    __slots__ = ("_is_read", "_reader", "_state")

    def __init__(self, node: "Node", transport: asyncio.Transport, kind: int, ip: str) -> None:
        super().__init__(node, transport, kind, ip)
        self._reader: FrameReader | None = None  # while a message is incomplete
        self._state = _GREETING
        self._is_read = True
        node.wheel.put(self, node.config.client.stale_close_delay)

    # ── from the client ─────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        reader = self._reader or FrameReader(self.node.config.websocket.message_size_limit)
        try:
            for opcode, payload in reader.feed(data):
                if self._state >= _CLOSING:
                    if opcode == CLOSE:
                        self._shut()
                    continue
                if opcode == TEXT:
                    cast(Receiving, self.client).receive(payload)
                elif opcode == PING:
                    self._answer(payload)
                elif opcode == PONG:
                    self.ponged()
                elif opcode == CLOSE:
                    self._close_asked(payload)
                else:
                    self.end(Ending(UNSUPPORTED_DATA, "only text is spoken here"))
        except FrameError as error:
            self.end(Ending(error.code, error.reason))
        self._reader = None if reader.is_idle else reader

    def _answer(self, payload: bytes) -> None:
        """Pong: of pings that a client sends without reading, the last is enough (section 5.5.3)."""
        if self.backlog is not None and self.backlog.is_paused:
            self.backlog.add(frame(PONG, payload), _PONGS, "latest")
        else:
            self.transport.write(frame(PONG, payload))

    def _close_asked(self, payload: bytes) -> None:
        code = close_code(payload)
        said = code if payload else NORMAL
        self.code = code if code < _PRIVATE else NORMAL  # what is counted is not the client's to choose
        self.end(Ending(said, ""))
        self._shut()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSED
        super().connection_lost(exc)

    def send(self, message: bytes) -> None:
        """Send a message, as text."""
        if self._state < _CLOSING:
            self.put(frame(TEXT, message))

    # ── pings ───────────────────────────────────────────────────────────────────

    @property
    def _interval(self) -> float:
        if self.kind == framing.CENTRIFUGO:
            return self.node.config.client.ping_interval
        return self.node.config.websocket.plain_ping_interval

    def greeted(self) -> None:
        """The client has said who it is: from now on it is pinged."""
        if self._state == _GREETING:
            self._state = _QUIET
            if self._interval > 0:
                self.node.wheel.put(self, self._interval, spread=True)
            else:
                self.node.wheel.drop(self)

    def ponged(self) -> None:
        """The client is there."""
        if self._state == _PINGED:
            self._state = _ANSWERED

    def wake(self) -> None:
        """What was due has not come, or the next ping is due."""
        if self._state == _GREETING:
            self.end(STALE)
        elif self._state == _QUIET:
            self._ping()
        elif self._state == _ANSWERED:
            self._state = _QUIET
            self.node.wheel.put(self, max(0.0, self._interval - self.node.config.client.pong_timeout))
        elif self._state == _PINGED:
            if self._is_read:
                self.end(NO_PONG)
            else:  # its pong waits behind what we don't read now
                self.node.wheel.put(self, self.node.config.client.pong_timeout)
        else:
            self.transport.abort()

    def _ping(self) -> None:
        self.put(_CENTRIFUGO_PING if self.kind == framing.CENTRIFUGO else _PLAIN_PING)
        self._state = _PINGED
        self.node.wheel.put(self, self.node.config.client.pong_timeout)

    # ── reading, and the end ────────────────────────────────────────────────────

    def pause(self) -> None:
        """Read no more for now."""
        if self._is_read and self._state < _CLOSING:
            self._is_read = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._is_read and self._state < _CLOSING:
            self._is_read = True
            self.transport.resume_reading()

    def end(self, ending: Ending) -> None:
        """Say why, and close."""
        if self._state >= _CLOSING:
            return
        self.resume()
        self._state = _CLOSING
        self.backlog = None
        if self.code == WENT_AWAY:
            self.code = ending.code
        self.transport.write(close_frame(ending.code, ending.reason))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self.node.wheel.put(self, _CLOSE_SECONDS)
        cast(Client, self.client).closed()

    def _shut(self) -> None:
        """Both have said all."""
        self.transport.close()
