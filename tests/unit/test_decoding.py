"""Coded bodies: whole, in pieces, cut short, damaged, followed by others, too large."""

import gzip
import zlib
from contextlib import suppress

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.http import decoding
from yelpaze.http.decoding import BodyDecoder, UndecodableError, codings_of, decode, offered
from yelpaze.model import extras
from yelpaze.model.errors import ErrorKind

TEXT = b"".join(b"%d," % n for n in range(20_000))


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACK = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
ALL = pytest.mark.parametrize("how", PACK)


def coding(how):
    return [how.removeprefix("raw ")]


def unpacked(data, how, *, by=1 << 30, max_body=1 << 30):
    decoder = BodyDecoder(coding(how), max_body)
    pieces = [piece for at in range(0, len(data), by) for piece in decoder.feed(data[at : at + by])]
    decoder.finish()
    return b"".join(pieces)


@ALL
@pytest.mark.parametrize("text", [b"", b"a", TEXT], ids=["empty", "short", "long"])
def test_a_whole_body_is_decoded(how, text):
    assert decode(PACK[how](text), coding(how), 1 << 20) == text


@ALL
@given(text=st.binary(max_size=300), by=st.integers(1, 40))
def test_pieces_of_any_size_give_the_same(how, text, by):
    assert unpacked(PACK[how](text), how, by=by) == text


@ALL
@given(text=st.binary(min_size=1, max_size=300), cut=st.integers(1, 400), by=st.integers(1, 400))
def test_a_body_cut_anywhere_is_a_failure(how, text, cut, by):
    packed = PACK[how](text)
    with pytest.raises(UndecodableError) as failure:
        unpacked(packed[: max(0, len(packed) - cut)], how, by=by)
    assert failure.value.error.kind is ErrorKind.PROTOCOL


@ALL
@given(junk=st.binary(max_size=60), by=st.integers(1, 70))
def test_any_bytes_are_decoded_or_refused(how, junk, by):
    with suppress(UndecodableError):
        unpacked(junk, how, by=by, max_body=1000)


@ALL
@pytest.mark.parametrize("by", [1, 1 << 30])
def test_other_bytes_after_the_end_are_named(how, by):
    with pytest.raises(UndecodableError, match=r"after its end|is damaged"):
        unpacked(PACK[how](TEXT) + b"junk", how, by=by)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("by", [1, 7, 1 << 30])
def test_several_members_are_one_body(how, by):
    packed = PACK[how](TEXT) + PACK[how](b"and more") + b"\0" * 20
    assert unpacked(packed, how, by=by) == TEXT + b"and more"


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_second_member_cut_short_is_a_failure(how):
    with pytest.raises(UndecodableError, match="cut short"):
        unpacked(PACK[how](TEXT) + PACK[how](TEXT)[:-1], how)


@ALL
def test_a_bomb_is_stopped_at_the_limit(how):
    packed = PACK[how](bytes(64 << 20))
    decoder = BodyDecoder(coding(how), 1 << 20)
    largest = 0
    with pytest.raises(UndecodableError) as failure:
        for piece in decoder.feed(packed):
            largest = max(largest, len(piece))
    assert failure.value.error.kind is ErrorKind.TOO_LARGE
    assert largest <= 512 << 10  # brotli's own buffer goes past the limit


def test_what_lies_between_two_codings_is_bounded_too():
    packed = gzip.compress(gzip.compress(b"") * 100_000)  # 2 MB in between, and nothing at the end
    assert len(packed) < 20_000
    assert decode(packed, ["gzip", "gzip"], 4 << 20) == b""
    with pytest.raises(UndecodableError) as failure:
        decode(packed, ["gzip", "gzip"], 1 << 20)
    assert failure.value.error.kind is ErrorKind.TOO_LARGE


def test_very_many_members_are_copied_in_slices(monkeypatch):
    """Each member's end copies what is left of the data: of a slice, not of the whole."""
    copied = 0
    unused = decoding._Zlib.unused_data.fget

    def counted(self):
        nonlocal copied
        rest = unused(self)
        copied += len(rest)
        return rest

    monkeypatch.setattr(decoding._Zlib, "unused_data", property(counted))
    packed = gzip.compress(b"") * 20_000
    assert decode(packed, ["gzip"], 100) == b""
    assert copied < 20_000 * decoding._SLICE


def test_codings_are_taken_off_in_reverse_order():
    packed = brotli.compress(gzip.compress(TEXT))
    assert decode(packed, ["gzip", "br"], 1 << 20) == TEXT
    with pytest.raises(UndecodableError, match="the gzip body is cut short"):
        decode(brotli.compress(gzip.compress(TEXT)[:-1]), ["gzip", "br"], 1 << 20)


def test_a_body_coded_too_often_is_refused():
    with pytest.raises(UndecodableError, match="encoded 6 times"):
        BodyDecoder(["gzip"] * 6, 100)


def test_a_large_window_of_zstd_is_refused():
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    with pytest.raises(UndecodableError, match="the zstd body is damaged"):
        decode(packer.compress(TEXT) + packer.flush(), ["zstd"], 1 << 20)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"", []),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", []),
        (b"HTTP/1.1 200 OK\r\ncontent-ENCODING:GZip\r\n\r\n", ["gzip"]),
        (b"HTTP/2 200\nContent-Encoding: deflate , , br\nContent-Encoding: identity\n\n", ["deflate", "br"]),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX: y\r\nContent-Encoding: br\r\n\r\n",
            ["gzip", "br"],
        ),
        (b"HTTP/1.1 200 OK\r\nX-Content-Encoding: gzip\r\n\r\n", []),
        # A proxy's block, an interim one: the last counts.
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\n", []),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: none\r\n\r\n", []),
        # A trailer field does not count.
        (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nContent-Encoding: gzip\r\n\r\n", []),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", ["gzip"]),
    ],
)
def test_codings_are_those_of_the_last_header_block(head, found):
    assert codings_of(bytearray(head)) == found


def test_only_what_is_installed_is_offered_and_decoded(monkeypatch):
    assert offered() == "gzip, deflate, br, zstd"
    monkeypatch.setattr(decoding, "is_installed", lambda extra: extra == "zstd")
    assert offered() == "gzip, deflate, zstd"
    with pytest.raises(UndecodableError, match=r"pip install 'yelpaze\[brotli\]'"):
        BodyDecoder(["br"], 100)
    with pytest.raises(UndecodableError, match="'compress' can't be decoded"):
        BodyDecoder(["compress"], 100)


def test_extras_are_looked_for_by_their_modules(monkeypatch):
    assert extras.is_installed("brotli")
    monkeypatch.setitem(extras._EXTRAS, "brotli", ("no_such_module.at_all",))
    extras.is_installed.cache_clear()
    assert not extras.is_installed("brotli")
    extras.is_installed.cache_clear()
