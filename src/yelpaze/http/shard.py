"""Multi handles, over which an engine's transfers are divided; see curl_transport.py."""

import errno
from itertools import islice

import pycurl

SHARD = 64  # transfers of one host in a shard, at most
_MAX_ADDRESSES = 512  # libcurl looks through its whole cache for each transfer
_FORGOTTEN = 64
# libcurl keeps an address for 15 minutes; it is given again well before that.
_REFRESH_ADDRESSES = 600.0


class Shard:
    """One multi handle and when it wants to be called."""

    __slots__ = ("due", "known_addresses", "multi", "number")

    def __init__(self, number: int, connections: int) -> None:
        self.number = number
        try:
            self.multi = pycurl.CurlMulti()
        except pycurl.error as error:  # it needs descriptors of its own
            raise OSError(errno.EMFILE, str(error)) from None
        self.multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self.due: float | None = None
        # host:port → the addresses that this multi handle was given, and when.
        self.known_addresses: dict[str, tuple[str, float]] = {}

    def forget_some(self) -> list[str]:
        """Entries that take the oldest addresses out of libcurl's cache."""
        oldest = list(islice(self.known_addresses, _FORGOTTEN))
        for host in oldest:
            del self.known_addresses[host]
        return [f"-{host}" for host in oldest]


class HostPool:
    """Which shards the transfers of a host (`name:port`) are in, and what libcurl knows of its addresses."""

    __slots__ = ("_addresses", "_entry", "_free", "_host", "_shards", "has_http1", "http2")

    def __init__(self, host: str) -> None:
        self._host = host
        self._free: list[int] = []
        self._shards = 0
        self._addresses: tuple[str, ...] = ()
        self._entry = ""
        self.http2: bool | None = None  # what its last answer was in, once there is one
        self.has_http1 = False  # whether any was in HTTP/1: a balancer may lead to both

    @property
    def is_idle(self) -> bool:
        """Whether no transfer is under way."""
        return len(self._free) == self._shards * SHARD

    def take(self) -> int:
        """The number of the shard for one more transfer; the lowest-numbered are used first."""
        if not self._free:
            self._free = [self._shards] * SHARD
            self._shards += 1
        return self._free.pop()

    def give(self, number: int) -> None:
        """A transfer of that shard is over."""
        self._free.append(number)

    def resolve_entries(self, addresses: tuple[str, ...], shard: Shard, now: float) -> list[str] | None:
        """The addresses as entries for libcurl's RESOLVE option; None if the shard already has them."""
        if addresses is not self._addresses:
            listed = ",".join(f"[{a}]" if ":" in a else a for a in addresses)
            self._addresses, self._entry = addresses, f"+{self._host}:{listed}"
        known = shard.known_addresses.get(self._host)
        if known is not None and known[0] == self._entry and now - known[1] < _REFRESH_ADDRESSES:
            return None
        entries = shard.forget_some() if len(shard.known_addresses) >= _MAX_ADDRESSES else []
        shard.known_addresses[self._host] = (self._entry, now)
        entries.append(self._entry)
        return entries

    def forget_addresses(self, shard: Shard) -> None:
        """Give the shard the addresses again at the next transfer."""
        shard.known_addresses.pop(self._host, None)
