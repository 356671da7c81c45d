"""A small HTTP/1.1 server for the demo services: asyncio's Protocol, nothing between.

Fast enough that a client under test is the slower side. It reads Content-Length bodies
and pipelined requests, answers in order, and keeps connections open.
"""

import asyncio
import contextlib
import ssl
import time
from collections import Counter, deque
from typing import cast

import msgspec

from yelpaze.demo.faults import FAULTS, Fault, Faults, RateLimit
from yelpaze.demo.services import BadBodyError, NotFoundError, answer

_MAX_HEAD, _MAX_BODY = 64 * 1024, 16 * 1024 * 1024
_HEALTH = ("/healthz", "/readyz")
_LOOK_SECONDS = 0.02
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}
_PHRASES |= {500: "Internal Server Error", 503: "Service Unavailable"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the services behave. `latency` in seconds is added to every answer."""

    latency: float = 0.0
    error_rate: float = 0.0
    faults: tuple[Fault, ...] = ("500", "503", "reset")
    rate_limit: int = 0
    seed: int = 1


class _Connection(asyncio.Protocol):
    """One client. Requests are answered one after the other."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._buffer = bytearray()
        self._waiting: deque[tuple[str, str, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transports inherit from asyncio's (uvloop's don't).
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._timer is not None or (bool(self._waiting) and not self._stalled)

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._parse():
            pass
        if self._timer is None:
            self._next()

    def _parse(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > _MAX_HEAD:
                self._transport.abort()
            return False
        head = bytes(buffer[:end])
        length = _content_length(head)
        if length < 0 or length > _MAX_BODY:
            self._respond(400, b'{"error":"Content-Length needed, 16 MiB at most"}')
            self._transport.close()
            buffer.clear()
            return False
        total = end + 4 + length
        if len(buffer) < total:
            return False
        body = bytes(buffer[end + 4 : total])
        del buffer[:total]
        method, _, rest = head.partition(b" ")
        target = rest.split(b" ", 1)[0].decode("latin-1")
        self._waiting.append((method.decode("latin-1"), target, body))
        return True

    def _next(self) -> None:
        self._timer = None
        while self._waiting and self._timer is None and not self._stalled:
            method, target, body = self._waiting.popleft()
            self._serve(method, target, body)

    def _serve(self, method: str, target: str, body: bytes) -> None:
        server = self._server
        path, _, query = target.partition("?")
        if path in _HEALTH:
            good = path == "/healthz" or not server.is_draining
            self._respond(200 if good else 503, b'{"status":"ok"}' if good else b"{}", method)
            return
        wait = server.limit.retry_after(time.monotonic())
        if wait:
            self._respond(429, b'{"error":"rate limit"}', method, f"Retry-After: {wait}\r\n")
            return
        forced = query.removeprefix("fault=") if query.startswith("fault=") else ""
        fault = forced if forced in FAULTS else server.faults.draw(target, body)
        if fault is not None:
            self._fail(fault)
            return
        try:
            content, seconds = answer(method, path, body)
            status = 200
        except NotFoundError:
            status, content, seconds = 404, b'{"error":"no such service"}', 0.0
        except BadBodyError as error:
            status, content, seconds = 400, msgspec.json.encode({"error": str(error)}), 0.0
        delay = seconds + server.options.latency
        if not delay:
            self._respond(status, content, method)
            return
        self._timer = server.loop.call_later(delay, self._respond_late, status, content, method)

    def _respond_late(self, status: int, content: bytes, method: str) -> None:
        self._respond(status, content, method)
        self._next()

    def _respond(self, status: int, content: bytes, method: str = "", extra: str = "") -> None:
        self._server.answered[status] += 1
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n{extra}\r\n"
        )
        self._transport.write(head.encode() + (b"" if method == "HEAD" else content))

    def _fail(self, fault: str) -> None:
        if fault == "reset":
            self._transport.abort()
        elif fault == "stall":
            self._stalled = True  # never answers; the client gives up
        elif fault == "truncate":
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            self._transport.close()
        else:
            self._respond(int(fault), b'{"error":"made on purpose"}')


def _content_length(head: bytes) -> int:
    """0 without the field, -1 if it is no number or the body is chunked."""
    lower = head.lower()
    if b"\r\ntransfer-encoding:" in lower:
        return -1
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    value = lower[at + 17 :].split(b"\r\n", 1)[0].strip()
    return int(value) if value.isdigit() else -1


class Server:
    """The services behind one address. `answered` counts answers by status."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = Faults(options.error_rate, options.faults, options.seed)
        self.limit = RateLimit(options.rate_limit)
        self.loop = asyncio.get_running_loop()
        self.connections: set[_Connection] = set()
        self.answered: Counter[int] = Counter()
        self.is_draining = False
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Listen; return the address. Raises OSError."""
        self._listener = await self.loop.create_server(
            lambda: _Connection(self), host, port, backlog=4096, ssl=tls
        )
        address = self._listener.sockets[0].getsockname()
        return address[0], address[1]

    @property
    def under_way(self) -> int:
        """Requests that wait for their answer."""
        return sum(connection.is_busy for connection in self.connections)

    async def drain(self, seconds: float) -> None:
        """Take no more connections, and let answers go out for so long at most."""
        self.is_draining = True
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.under_way:  # noqa: ASYNC110  no cost to any answer for this
                    await asyncio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        """Close every connection."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.abort()
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
