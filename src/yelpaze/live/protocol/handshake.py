"""The opening handshake of a WebSocket (RFC 6455, section 4.2): a request in, an answer out."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"
_KEY_BYTES: Final = 16


class Request(msgspec.Struct, frozen=True):
    """A request's head: names of headers in small letters, several of one name joined by commas."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    version: str = "1.1"
    ip: str = ""


class Rejected(Exception):  # noqa: N818  the request is refused; nothing of ours failed
    """An answer other than the one hoped for."""

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status = status
        self.reason = reason
        self.headers = tuple(headers)
        super().__init__(reason)


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def wants_websocket(request: Request) -> bool:
    """Whether it asks for an upgrade to WebSocket at all."""
    return "websocket" in _tokens(request.headers.get("upgrade", ""))


def accept(request: Request, protocols: Sequence[str] = ()) -> bytes:
    """The answer that opens the WebSocket. Raises Rejected with the reason.

    `protocols` are the subprotocols that we speak here; if the client names any, one of them must be ours.
    """
    headers = request.headers
    if request.method in ("GET", "HEAD") and not wants_websocket(request):
        raise Rejected(
            426, "this address speaks WebSocket: send Upgrade: websocket", [("Upgrade", "websocket")]
        )
    if request.method != "GET":
        raise Rejected(405, "a WebSocket is opened with GET", [("Allow", "GET, HEAD")])
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise Rejected(400, "the header Connection: Upgrade is missing")
    if request.version < "1.1":
        raise Rejected(400, "a WebSocket needs HTTP/1.1")
    if not headers.get("host"):
        raise Rejected(400, "the header Host is missing")
    if headers.get("sec-websocket-version", "").strip() != _VERSION:
        raise Rejected(426, "Sec-WebSocket-Version is 13", [("Sec-WebSocket-Version", _VERSION)])
    key = _key(headers.get("sec-websocket-key", ""))
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    chosen = _protocol(headers.get("sec-websocket-protocol", ""), protocols)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (digest, chosen)
    )


def _key(text: str) -> bytes:
    key = text.strip()
    try:
        decoded = base64.b64decode(key, validate=True)
    except (ValueError, binascii.Error):
        decoded = b""
    if len(decoded) != _KEY_BYTES:
        raise Rejected(400, "Sec-WebSocket-Key is 16 bytes in base64")
    return key.encode()


def _protocol(asked: str, ours: Sequence[str]) -> bytes:
    if not asked.strip():
        return b""
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name in ours:
            return f"Sec-WebSocket-Protocol: {name}\r\n".encode()
    if ours:
        raise Rejected(400, f"Sec-WebSocket-Protocol is {' or '.join(ours)} here, or left out")
    return b""


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Keep pages of other sites out. Raises Rejected."""
    if not allows_origin(request, allowed):
        raise Rejected(403, "this origin is not allowed: list it in client.allowed_origins")


def allows_origin(request: Request, allowed: Sequence[str]) -> bool:
    """Whether the page that asks, if it is one, may connect.

    A page of the same host may connect, one of another if its origin is listed; `*` stands for any text,
    alone for all. Without an Origin it is no page; it has nothing to ride on, as cookies mean nothing here.
    """
    origin = request.headers.get("origin")
    if origin is None or "*" in allowed:
        return True
    if origin.lower().partition("://")[2] == request.headers.get("host", "").lower() != "":
        return True
    return any(_matches(origin.lower(), pattern.lower()) for pattern in allowed)


def _matches(origin: str, pattern: str) -> bool:
    """`https://*.example.com`: the star stands for one part of a host name or more."""
    first, star, last = pattern.partition("*")
    if not star:
        return origin == pattern
    between = origin[len(first) : len(origin) - len(last)]
    whole = len(origin) > len(first) + len(last) and origin.startswith(first) and origin.endswith(last)
    return whole and "/" not in between


def client_ip(peer: str, forwarded: str, trusted: Sequence[str]) -> str:
    """Where a client is: the last address of X-Forwarded-For that is not one of our proxies.

    >>> client_ip("127.0.0.1", "1.2.3.4, 10.0.0.7", ["127.0.0.1", "10.0.0.0/8"])
    '1.2.3.4'
    """
    ours = networks(tuple(trusted))
    if not _is_in(peer, ours):
        return peer
    for address in reversed([one.strip() for one in forwarded.split(",") if one.strip()]):
        if not _is_in(address, ours):
            return address
    return peer


@lru_cache(16)
def networks(addresses: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and networks as they are written: 10.0.0.7, 10.0.0.0/8, ::1. Raises ValueError."""
    return tuple(ip_network(address) for address in addresses)


def _is_in(address: str, ours: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # whatever a client has written there
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:  # of a socket that takes both
        found = found.ipv4_mapped
    return any(found in network for network in ours)
