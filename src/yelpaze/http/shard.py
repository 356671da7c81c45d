"""One of the multi handles that an engine's transfers are divided over; see transport.py."""

import pycurl

SHARD = 64  # transfers of one host in a shard, at most


class Shard:
    """One multi handle and when it wants to be called."""

    __slots__ = ("due", "known_addresses", "multi", "number")

    def __init__(self, number: int, connections: int) -> None:
        self.number = number
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self.due: float | None = None
        # host:port → the addresses that this multi handle was given, and when.
        self.known_addresses: dict[str, tuple[str, float]] = {}
