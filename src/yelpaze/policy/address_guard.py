"""Which addresses may be connected to, for URLs that come from other people.

It judges the address itself, at the moment of connecting, so it does not matter which name, notation,
redirect or change in DNS led there. What an IPv6 address embeds (RFC 4291 mapped, RFC 2765 translated, RFC
3056 6to4, RFC 6052 NAT64, RFC 4380 Teredo, RFC 5214 ISATAP) is judged as well.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache

from yelpaze.model.errors import MisuseError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The special-purpose registries of IANA (RFC 6890), and what clouds use beside them.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "of this network (RFC 791)"),
    ("10.0.0.0/8", "private (RFC 1918)"),
    ("100.64.0.0/10", "shared by a carrier (RFC 6598)"),
    ("127.0.0.0/8", "this machine (RFC 1122)"),
    ("169.254.0.0/16", "link-local, or a cloud's metadata (RFC 3927)"),
    ("172.16.0.0/12", "private (RFC 1918)"),
    ("192.0.0.0/24", "reserved (RFC 6890)"),
    ("192.0.2.0/24", "for documentation (RFC 5737)"),
    ("192.88.99.0/24", "reserved (RFC 7526)"),
    ("192.168.0.0/16", "private (RFC 1918)"),
    ("198.18.0.0/15", "for benchmarks (RFC 2544)"),
    ("198.51.100.0/24", "for documentation (RFC 5737)"),
    ("203.0.113.0/24", "for documentation (RFC 5737)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved (RFC 1112)"),
    ("168.63.129.16/32", "a cloud's metadata"),
    ("::/128", "unspecified (RFC 4291)"),
    ("::1/128", "this machine (RFC 4291)"),
    ("::/96", "IPv4-compatible (RFC 4291)"),
    ("64:ff9b:1::/48", "for local translation (RFC 8215)"),
    ("100::/64", "discard-only (RFC 6666)"),
    ("2001::/23", "reserved for protocols (RFC 2928)"),
    ("2001:db8::/32", "for documentation (RFC 3849)"),
    ("3fff::/20", "for documentation (RFC 9637)"),
    ("5f00::/16", "for segment routing (RFC 9602)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("fe80::/10", "link-local (RFC 4291)"),
    ("fec0::/10", "site-local (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
)
_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), why) for text, why in _REFUSED
)
# The last four bytes of these are an IPv4 address.
_EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))
_ISATAP = 0x5EFE  # in the third quarter of the address, but for two bits (RFC 5214, section 6.1)
_ISATAP_MASK = 0xFDFF_FFFF
_REMEMBERED = 4096


class AddressGuard:
    """Refuses private, local and reserved addresses, but for networks that are allowed.

    Args:
        allow: Networks or addresses that may be connected to all the same, such as `10.20.0.0/16`.

    Raises MisuseError for what is neither.

    >>> guard = AddressGuard(allow=["10.20.0.0/16"])
    >>> guard.refusal("10.0.0.1")
    '10.0.0.1 is private (RFC 1918): address_guard refuses it'
    >>> guard.refusal("10.20.0.1") is None
    True
    >>> guard.refusal("::ffff:127.0.0.1")
    '::ffff:127.0.0.1 is this machine (RFC 1122): address_guard refuses it'

    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str) or not isinstance(allow, Iterable):
            raise MisuseError(f"AddressGuard(allow=…) takes a list of networks, not {allow!r}")
        self.allow = tuple(map(str, allow))
        try:
            self._allowed: tuple[Network, ...] = tuple(map(ipaddress.ip_network, self.allow))
        except ValueError as error:
            raise MisuseError(f"AddressGuard(allow=…) takes networks such as 10.20.0.0/16: {error}") from None
        self.refusal = lru_cache(_REMEMBERED)(self._refusal)

    def __repr__(self) -> str:
        return f"AddressGuard(allow={list(self.allow)!r})"

    def _refusal(self, text: str) -> str | None:
        """Why an address is refused; None if it is not. `text` is as the system writes it."""
        try:
            address: Address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text!r} is no address: address_guard refuses it"
        if any(address in network for network in self._allowed):
            return None
        for one in _meant(address):
            if any(one in network for network in self._allowed):
                continue
            why = next((why for network, why in _NETWORKS if one in network), None)
            if why is not None:
                return f"{text} is {why}: address_guard refuses it"
        return None


def _meant(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses in it that packets may reach."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    is_isatap = (int(address) >> 32) & _ISATAP_MASK == _ISATAP
    if is_isatap or any(address in network for network in _EMBEDDING):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    found = [one for one in inner if one is not None]
    yield from found
    if address.ipv4_mapped is None:
        yield address
