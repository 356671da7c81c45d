"""Which request fails, and how: decided by the seed and the request, not by arrival.

The nth time that a request is seen it fails or not by a number drawn from (seed, request,
n). So a run over the same rows meets the same faults however its calls are ordered, and a
retry may do better. Only requests that have failed are remembered, until they succeed.
"""

import hashlib
import zlib
from typing import Literal, get_args

Fault = Literal["500", "503", "reset", "stall", "truncate"]
FAULTS: tuple[Fault, ...] = get_args(Fault)


class Faults:
    """Draws a fault, or none, for each request."""

    def __init__(self, rate: float, kinds: tuple[Fault, ...], seed: int) -> None:
        self._rate = rate
        self._kinds = kinds
        self._seed = seed
        self._failed: dict[int, int] = {}

    def draw(self, path: str, body: bytes) -> Fault | None:
        """The fault of this arrival of the request."""
        if not self._rate:
            return None
        key = zlib.crc32(body, zlib.crc32(path.encode()))
        times = self._failed.get(key, 0)
        number = _drawn(f"{self._seed}/{key}/{times}")
        if number / 2**32 >= self._rate:
            self._failed.pop(key, None)
            return None
        self._failed[key] = times + 1
        return self._kinds[_drawn(f"{number}") % len(self._kinds)]


def _drawn(text: str) -> int:
    """A number below 2³². Not a CRC: those of texts that differ in one place are related."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


class RateLimit:
    """At most `limit` requests in each second of the clock; 0 is none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = -1
        self._used = 0

    def retry_after(self, now: float) -> int:
        """Seconds until there is room, 0 if there is now."""
        if not self._limit:
            return 0
        if int(now) != self._second:
            self._second, self._used = int(now), 0
        self._used += 1
        return 0 if self._used <= self._limit else 1
