"""WebSocket frames (RFC 6455, section 5): bytes in, messages out; messages in, bytes out.

    FrameReader.feed(bytes) ──→ (opcode, payload) …    TEXT BINARY PING PONG CLOSE, fragments put together
                            ──→ FrameError             with the code that the connection is closed with

The reader is a server's: it wants masked frames. It holds at most one message and one frame's beginning;
both are bounded by `limit`, whatever a header says. Payloads are unmasked as one large integer, which is
as fast as a copy for the sizes that clients send.
"""

import codecs
from collections.abc import Iterator
from struct import Struct
from typing import Final

from yelpaze.live.protocol.codes import INVALID_DATA, PROTOCOL_ERROR, TOO_BIG

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_CONTROL: Final = 0x08
_SHORT: Final = 125
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_KNOWN: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_DEFINED: Final = frozenset(range(1000, 1015)) - {1004, 1005, 1006}
_PRIVATE: Final = range(3000, 5000)
_MOST_FRAGMENTS: Final = 1024  # each costs time and says little: whoever sends more means no good

_two = Struct("!H")
_eight = Struct("!Q")
_utf8 = codecs.getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The peer broke the protocol; `code` is what it is told."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(reason)


class FrameReader:
    """One connection's incoming frames. After a FrameError it takes in no more."""

    __slots__ = ("_decoder", "_fragments", "_is_broken", "_limit", "_opcode", "_rest", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._opcode = 0  # of the message whose fragments are coming in, 0 between messages
        self._size = 0
        self._fragments: list[bytes] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._is_broken = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is kept: it is between two messages."""
        return not self._rest and self._fragments is None and not self._is_broken

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take what came and give each message that is whole. Raises FrameError."""
        if self._is_broken:  # section 7.1.7: what comes after is not looked at
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= 2:  # noqa: PLR2004  the two bytes that tell the rest
                found = self._frame(data, at, end)
                if found is None:
                    break
                head, payload, at = found
                opcode = head & 0x0F
                if opcode & _CONTROL:
                    yield opcode, payload
                elif opcode != CONTINUATION and head & _FIN and not self._opcode:
                    yield opcode, _checked(opcode, payload)
                else:
                    message = self._joined(head, payload)
                    if message is not None:
                        yield message
        except FrameError:
            self._is_broken = True
            self._fragments = self._decoder = None
            at = end
            raise
        finally:
            self._rest = data[at:] if at < end else b""

    def _frame(self, data: bytes, at: int, end: int) -> tuple[int, bytes, int] | None:
        """The frame at a place, and where it ends; None if it is not all there."""
        head, second = data[at], data[at + 1]
        size = second & 0x7F
        self._check_head(head, second, size)
        start = at + 2
        if size >= _TWO_BYTES:
            field = _two if size == _TWO_BYTES else _eight
            if end - start < field.size:
                return None
            (size,) = field.unpack_from(data, start)
            start += field.size
            if size > self._limit - self._size:
                raise FrameError(TOO_BIG, f"a message has at most {self._limit} bytes")
        elif self._size + size > self._limit and not head & _CONTROL:
            raise FrameError(TOO_BIG, f"a message has at most {self._limit} bytes")
        stop = start + 4 + size
        if stop > end:
            return None
        return head, _unmasked(data, start, size), stop

    def _check_head(self, head: int, second: int, size: int) -> None:
        opcode = head & 0x0F
        if head & _RESERVED:
            raise FrameError(PROTOCOL_ERROR, "reserved bits are set: no extension was agreed on")
        if opcode not in _KNOWN:
            raise FrameError(PROTOCOL_ERROR, f"there is no opcode {opcode}")
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "a client's frames are masked")
        if opcode & _CONTROL:
            if not head & _FIN or size > _SHORT:
                raise FrameError(PROTOCOL_ERROR, "a control frame has one part of at most 125 bytes")
        elif (opcode == CONTINUATION) != bool(self._opcode):
            raise FrameError(PROTOCOL_ERROR, "a fragment without its message, or a message inside another")

    def _joined(self, head: int, payload: bytes) -> tuple[int, bytes] | None:
        """Take a fragment; the whole message once it is the last."""
        if self._fragments is None:
            self._fragments = []
            self._opcode = head & 0x0F
            self._decoder = _utf8() if self._opcode == TEXT else None
        self._fragments.append(payload)
        self._size += len(payload)
        if self._decoder is not None:  # a wrong byte is told at once, not at the end
            try:
                self._decoder.decode(payload, bool(head & _FIN))
            except UnicodeDecodeError:
                raise FrameError(INVALID_DATA, "text is UTF-8") from None
        if not head & _FIN:
            if len(self._fragments) >= _MOST_FRAGMENTS:
                raise FrameError(TOO_BIG, f"a message has at most {_MOST_FRAGMENTS} fragments")
            return None
        message = self._opcode, b"".join(self._fragments)
        self._opcode = self._size = 0
        self._fragments = self._decoder = None
        return message


def _unmasked(data: bytes, start: int, size: int) -> bytes:
    if not size:
        return b""
    mask = data[start : start + 4]
    payload = data[start + 4 : start + 4 + size]
    if mask == b"\0\0\0\0":
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _checked(opcode: int, payload: bytes) -> bytes:
    """Text is UTF-8 (section 8.1)."""
    if opcode == TEXT and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(INVALID_DATA, "text is UTF-8") from None
    return payload


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, as a server sends it.

    >>> frame(TEXT, b"hello").hex(" ")
    '81 05 68 65 6c 6c 6f'
    """
    size = len(payload)
    if size <= _SHORT:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((_FIN | opcode, _TWO_BYTES)) + _two.pack(size) + payload
    return bytes((_FIN | opcode, _EIGHT_BYTES)) + _eight.pack(size) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut to what a control frame holds."""
    text = reason.encode()[: _SHORT - 2].decode(errors="ignore").encode()
    return frame(CLOSE, _two.pack(code) + text)


def close_code(payload: bytes) -> int:
    """What a close frame says: its code, 1005 if it has none (section 7.1.5). Raises FrameError."""
    if not payload:
        return 1005
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame has a code of two bytes, or nothing")
    (code,) = _two.unpack_from(payload)
    if not (code in _PRIVATE or code in _DEFINED):  # section 7.4
        raise FrameError(PROTOCOL_ERROR, f"there is no close code {code}")
    _checked(TEXT, payload[2:])
    return int(code)
