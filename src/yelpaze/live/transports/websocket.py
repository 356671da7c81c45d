"""One WebSocket: an `asyncio.Protocol` without task, queue or buffer of its own.

Theory of operation. Frames to the client go straight to the transport, which gathers what is written in one
turn of the loop. Only when the transport says that its buffer is full is there a `Backlog`; it goes when
the client has read. The wheel wakes a connection for what `heartbeat` says is due. A close is sent, then the
sending side is shut; the client has a few seconds to close its own.
"""

import asyncio
from typing import Final

from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import NORMAL, UNSUPPORTED_DATA, WENT_AWAY, Ending
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
from yelpaze.live.transports.connection import Connection
from yelpaze.live.transports.heartbeat import OVER, PINGED

_CLOSING: Final = OVER  # waiting for the client's close
_CLOSED: Final = OVER + 1

_PONGS: Final = "\0"  # no channel has this name
_PRIVATE: Final = 3000
_CLOSE_SECONDS: Final = 5.0
_CENTRIFUGO_PING: Final = frame(TEXT, b"{}")
_PLAIN_PING: Final = frame(PING, b"")


class WebSocket(Connection):
    """A connection after its handshake; `kind` is PLAIN or CENTRIFUGO of `encoding`."""

    __slots__ = ("_is_read", "_reader")

    def __init__(self, node: Node, transport: asyncio.Transport, kind: int, ip: str) -> None:
        super().__init__(node, transport, kind, ip)
        self._reader: FrameReader | None = None  # while a message is incomplete
        self._is_read = True
        node.wheel.put(self, node.config.client.stale_close_delay)

    # ── from the client ─────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        reader = self._reader or FrameReader(self.node.config.websocket.message_size_limit)
        try:
            for opcode, payload in reader.feed(data):
                if self.state >= _CLOSING:
                    if opcode == CLOSE:
                        self._shut()
                    continue
                if opcode == TEXT:
                    self.session.receive(payload)
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
        self.state = _CLOSED
        super().connection_lost(exc)

    def send(self, message: bytes) -> None:
        """Send a message, as text."""
        if self.state < _CLOSING:
            self.put(frame(TEXT, message))

    # ── pings ───────────────────────────────────────────────────────────────────

    @property
    def ping_interval(self) -> float:
        if self.kind == encoding.CENTRIFUGO:
            return self.node.config.client.ping_interval
        return self.node.config.websocket.plain_ping_interval

    def ping(self) -> None:
        self.put(_CENTRIFUGO_PING if self.kind == encoding.CENTRIFUGO else _PLAIN_PING)

    def wake(self) -> None:
        """See Connection. While nothing is read, a pong may be waiting unread: it gets more time."""
        if self.state >= _CLOSING:
            self.transport.abort()
        elif self.state == PINGED and not self._is_read:
            self.node.wheel.put(self, self.node.config.client.pong_timeout)
        else:
            super().wake()

    # ── reading, and the end ────────────────────────────────────────────────────

    def pause(self) -> None:
        """Read no more for now."""
        if self._is_read and self.state < _CLOSING:
            self._is_read = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._is_read and self.state < _CLOSING:
            self._is_read = True
            self.transport.resume_reading()

    def end(self, ending: Ending) -> None:
        """Say why, and close."""
        if self.state >= _CLOSING:
            return
        self.resume()
        self.state = _CLOSING
        self.backlog = None
        if self.code == WENT_AWAY:
            self.code = ending.code
        self.transport.write(close_frame(ending.code, ending.reason))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self.node.wheel.put(self, _CLOSE_SECONDS)
        self.session.client.closed()

    def _shut(self) -> None:
        """Both have said all."""
        self.transport.close()
