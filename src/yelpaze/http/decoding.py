"""Bodies with a Content-Encoding, decoded as they come (RFC 9110 §8.4).

libcurl's own decoders take a body that is cut short for a whole one, so libcurl hands on what it receives,
and this module decodes it: in pieces of bounded size, and with an error unless the coded data has its end.

gzip and deflate are in the standard library. br (RFC 7932) and zstd (RFC 8878) need the extras `brotli`
and `zstd`, and are offered in Accept-Encoding only where these are installed.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.extras import is_installed, zstd_module

_SLICE = 16 << 10  # bytes that are decoded at a time: what is left after each member is copied
_PIECE = 256 << 10  # bytes that a decoder gives at a time
_MAX_CODINGS = 5  # as libcurl
_GZIP = 31  # zlib's wbits: a gzip header and trailer
_ZSTD_WINDOW_LOG = 23  # RFC 9659 §3: a content coding's window is at most 8 MB
_DEFLATE = 8  # the compression method in a zlib header (RFC 1950 §2.2)
_IDENTITY = ("", "identity", "none")  # the last is libcurl's, too
_END = re.compile(rb"\n\r?\n")
CODED = b"\ncontent-encoding:"  # in lower case


class UndecodableError(Exception):
    """The body can't be decoded. `error` says why."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.error = Error(kind, message)


class _Decompressor(Protocol):
    """One coding. `feed` gives the decoded pieces; `finish` raises unless the data had its end."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class BodyDecoder:
    """Decodes one body, which had `codings` applied in that order, to at most `max_body` bytes."""

    def __init__(self, codings: list[str], max_body: int) -> None:
        if len(codings) > _MAX_CODINGS:
            raise _protocol(f"Content-Encoding: the body is encoded {len(codings)} times")
        self._chain = [_Stage(_new(coding), max_body) for coding in reversed(codings)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of what has come.

        Raises UndecodableError for damaged data, or if the body becomes too large.
        """
        if not self._chain:
            yield data
            return
        for at in range(0, len(data), _SLICE):
            yield from _through(self._chain, data[at : at + _SLICE])

    def finish(self) -> None:
        """The body is whole by HTTP's framing. Raise UndecodableError unless it is by its codings, too."""
        for stage in self._chain:
            stage.decompressor.finish()


def decode(data: bytes | bytearray, codings: list[str], max_body: int) -> bytes:
    """A whole body.

    >>> decode(zlib.compress(b"hello"), ["deflate"], 100)
    b'hello'

    Raises UndecodableError.
    """
    decoder = BodyDecoder(codings, max_body)
    pieces = list(decoder.feed(bytes(data)))
    decoder.finish()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def too_large(max_body: int) -> str:
    """The message for a body above the limit."""
    return f"the decoded body is larger than max_body = {max_body} bytes"


def codings_of(head: bytearray | bytes) -> list[str]:
    r"""The codings of the answer's body, in the order in which they were applied.

    `head` may hold several header blocks (a proxy's, a 100's); the last one counts.

    >>> codings_of(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, identity\r\n\r\n")
    ['gzip']
    """
    lower = bytes(head.lower())
    if CODED not in lower:
        return []
    fields = _END.split(lower[lower.rfind(b"\nhttp/") + 1 :], maxsplit=1)[0]  # trailers come after it
    _, *values = (b"\n" + fields).split(CODED)
    names = [
        name.strip() for value in values for name in value.partition(b"\n")[0].decode("latin-1").split(",")
    ]
    return [name for name in names if name not in _IDENTITY]


def offered() -> str:
    """The value of Accept-Encoding: what can be decoded here."""
    extras = (("br", "brotli"), ("zstd", "zstd"))
    return ", ".join(["gzip", "deflate", *(coding for coding, extra in extras if is_installed(extra))])


def _protocol(message: str) -> UndecodableError:
    return UndecodableError(ErrorKind.PROTOCOL, message)


def _cut_short(coding: str) -> UndecodableError:
    return _protocol(f"the {coding} body is cut short: its end is missing")


def _after_end(coding: str) -> UndecodableError:
    return _protocol(f"the {coding} body has other bytes after its end")


def _damaged(coding: str, error: Exception) -> UndecodableError:
    return _protocol(f"the {coding} body is damaged: {error}")


class _Stage:
    """One coding of several. What it gives is bounded, too: a small body may be large in between."""

    def __init__(self, decompressor: _Decompressor, max_body: int) -> None:
        self.decompressor = decompressor
        self._left = self._max_body = max_body

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self.decompressor.feed(data):
            self._left -= len(piece)
            if self._left < 0:
                raise UndecodableError(ErrorKind.TOO_LARGE, too_large(self._max_body))
            yield piece


def _through(chain: list[_Stage], data: bytes) -> Iterator[bytes]:
    first, *others = chain
    for piece in first.feed(data):
        if others:
            yield from _through(others, piece)
        else:
            yield piece


def _new(coding: str) -> _Decompressor:
    make = _DECOMPRESSORS.get(coding)
    if make is None:
        raise _protocol(f"Content-Encoding: {coding!r} can't be decoded")
    extra = _NEEDED.get(coding)
    if extra is not None and not is_installed(extra):
        raise _protocol(
            f"Content-Encoding: {coding} was not asked for; to decode it: pip install 'yelpaze[{extra}]'"
        )
    return make()


class _Frames:
    """A coding of one or more frames, each with an end of its own: gzip's members, zstd's frames.

    `new` makes a decompressor with the interface of `bz2.BZ2Decompressor`. Zero bytes after a frame are
    padding, as for gzip(1).
    """

    def __init__(self, coding: str, new: Callable[[], Any], failure: type[Exception], magic: bytes) -> None:
        self._coding = coding
        self._new = new
        self._failure = failure
        self._magic = magic
        self._frame: Any = None
        self._frames = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or (self._frame is not None and not self._frame.needs_input):
            if self._frame is None:
                data = data.lstrip(b"\0") if self._frames else data
                if not data:
                    return
                if self._frames and data[0] not in self._magic:
                    raise _after_end(self._coding)
                self._frame = self._new()
            try:
                piece = self._frame.decompress(data, _PIECE)
            except self._failure as error:
                raise _damaged(self._coding, error) from None
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
                self._frames += 1
            if piece:
                yield piece

    def finish(self) -> None:
        if self._frame is not None or not self._frames:
            raise _cut_short(self._coding)


class _Zlib:
    """A zlib object with the interface of `bz2.BZ2Decompressor`."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self._may_have_more = False

    def decompress(self, data: bytes, most: int) -> bytes:
        tail = self._zlib.unconsumed_tail
        piece = self._zlib.decompress(tail + data if tail else data, most)
        self._may_have_more = len(piece) == most
        return piece

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not (self._zlib.unconsumed_tail or self._may_have_more)

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class _Deflate:
    """zlib data, or raw deflate data, which some servers send under that name (RFC 9110 §8.4.1.2)."""

    def __init__(self) -> None:
        self._head = b""
        self._frames: _Frames | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._frames is None:
            self._head += data
            if len(self._head) < 2:  # noqa: PLR2004  a zlib header
                return
            data, method = self._head, self._head[0] & 15
            is_zlib = method == _DEFLATE and int.from_bytes(self._head[:2], "big") % 31 == 0
            wbits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
            self._frames = _Frames("deflate", lambda: _Zlib(wbits), zlib.error, b"")
        yield from self._frames.feed(data)

    def finish(self) -> None:
        if self._frames is None:
            raise _cut_short("deflate")
        self._frames.finish()


class _Brotli:
    """Brotli has one stream."""

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415  an extra

        self._failure = brotli.error
        self._stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream.is_finished():
            raise _after_end("br")
        while True:
            try:
                piece = self._stream.process(data, output_buffer_limit=_PIECE)
            except self._failure as error:
                raise _damaged("br", error) from None
            if not piece:
                return
            yield piece
            if self._stream.is_finished():
                return
            data = b""

    def finish(self) -> None:
        if not self._stream.is_finished():
            raise _cut_short("br")


def _zstd() -> _Frames:
    zstd = zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    # A frame begins with 28, a skippable one with 50 to 5F (RFC 8878 §3.1.1 and §3.1.2).
    magic = bytes([0x28, *range(0x50, 0x60)])
    return _Frames("zstd", lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError, magic)


def _gzip() -> _Frames:
    return _Frames("gzip", lambda: _Zlib(_GZIP), zlib.error, b"\x1f")


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,  # RFC 9110 §8.4.1.3
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}
_NEEDED = {"br": "brotli", "zstd": "zstd"}
