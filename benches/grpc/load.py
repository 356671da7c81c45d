"""A load of calls that are all the same: HTTP/2 frames made once and sent again and again.

A gRPC client in Python takes as much CPU as the servers it would measure; this one takes a sixth, so
that the server is what is busy, and it is the same for all of them. What it sends is what grpc.aio sends:
its headers, which from the second call on a connection are all in the table of both ends.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from hpack import Encoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WINDOW = 65_535
_WIDE = 1 << 30


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


class Connection(asyncio.Protocol):
    """One connection with so many calls under way until `more` says that there are no more."""

    def __init__(
        self, authority: str, path: str, message: bytes, streams: int, more: Callable[[], bool]
    ) -> None:
        self._message = bytes(1) + len(message).to_bytes(4) + message  # not compressed
        self._streams = streams
        self._more = more
        self._rest = b""
        self._number = 1
        self._under_way = 0
        self._window = _WINDOW
        self.received = 0  # bytes of messages
        self.headers = 0  # frames of them, two for each call that has an answer
        self.ended = asyncio.get_running_loop().create_future()
        encoder, headers = Encoder(), _headers(authority, path)
        self._blocks = [encoder.encode(headers), encoder.encode(headers)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        opening = [_PREFACE, _frame(_SETTINGS, 0, 0), _frame(_WINDOW_UPDATE, 0, 0, _WIDE.to_bytes(4))]
        transport.write(b"".join(opening) + self._calls(self._streams))

    def _calls(self, count: int) -> bytes:
        made: list[bytes] = []
        while count and self._more():
            block = self._blocks[self._number > 1]
            made.append(_frame(_HEADERS, _END_HEADERS, self._number, block))
            made.append(_frame(_DATA, _END_STREAM, self._number, self._message))
            self._number += 2
            self._under_way += 1
            self._window -= len(self._message)
            count -= 1
        return b"".join(made)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, size, answers, done = 0, len(data), b"", 0
        while at + 9 <= size:
            end = at + 9 + int.from_bytes(data[at : at + 3])
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA:
                self.received += end - at - 9
            elif kind == _HEADERS:
                self.headers += 1
                done += flags & _END_STREAM
            elif kind == _SETTINGS and not flags & _ACK:
                answers += _frame(_SETTINGS, _ACK, 0)
            elif kind == _PING and not flags & _ACK:
                answers += _frame(_PING, _ACK, 0, data[at + 9 : end])
            elif kind == _WINDOW_UPDATE and data[at + 5 : at + 9] == bytes(4):
                self._window += int.from_bytes(data[at + 9 : end])
            elif kind in (_RST_STREAM, _GOAWAY):
                self._fail(f"the server sent frame {kind}: {data[at + 9 : end]!r}")
            at = end
        self._rest = data[at:]
        self._under_way -= done
        if answers or done:
            self._transport.write(answers + self._calls(done))
        if self._window < 0:
            self._fail("the server left no room to send")
        if not self._under_way and not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(SystemExit(why))

    def connection_lost(self, _: Exception | None) -> None:
        self._fail("the server closed the connection")


def _headers(authority: str, path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-asyncio/1.85.1 grpc-c/53.0.0 (linux; chttp2)"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
    ]


async def load(
    ports: Sequence[int], path: str, count: int, *, connections: int, streams: int, message: bytes = b""
) -> None:
    """`count` calls, `streams` at once on each of so many connections to each port.

    A call that fails ends the measurement.
    """
    left = count

    def more() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    loop, made = asyncio.get_running_loop(), []
    async with asyncio.timeout(60):
        for port in [*ports] * connections:
            connection = Connection(f"127.0.0.1:{port}", path, message, streams, more)
            made.append(await loop.create_connection(lambda found=connection: found, "127.0.0.1", port))
        await asyncio.gather(*(connection.ended for _, connection in made))
    for transport, _ in made:
        transport.close()
    # A call that fails has neither headers before its message nor a message.
    headers = sum(connection.headers for _, connection in made)
    if headers != 2 * count or sum(connection.received for _, connection in made) < 5 * count:
        raise SystemExit("some calls failed")
