"""By how much the clocks of locations differ from the bus's, from their heartbeats.

A heartbeat is published at once or not at all, so what it is late by is the difference of the clocks and a
little delay. The least delay of the last minute counts.
"""

from collections import deque

_REMEMBERED = 12
_NOISE = 500  # milliseconds that are no difference


class Skews:
    """Differences by location, in milliseconds: positive for a clock that is ahead."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[int]] = {}

    def add(self, location: str, sent: int, received: int) -> None:
        """A heartbeat: when it was sent by its clock, and received by the bus's."""
        self._seen.setdefault(location, deque(maxlen=_REMEMBERED)).append(sent - received)

    def of(self, location: str) -> int:
        """The difference.

        >>> skews = Skews()
        >>> skews.add("eu", 310_000, 10_000)
        >>> skews.add("eu", 320_000, 20_900)
        >>> skews.of("eu"), skews.of("us")
        (300000, 0)
        """
        seen = self._seen.get(location)
        if not seen:
            return 0
        skew = max(seen)
        return skew if abs(skew) > _NOISE else 0
