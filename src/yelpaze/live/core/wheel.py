"""One timer for all connections: a wheel of buckets (Varghese and Lauck, 1987).

A connection has one thing to wait for at a time: its greeting, its next ping, or the pong. It lies in the
bucket of the tick at which that is due, and knows the bucket, so that leaving is O(1). Whole ticks are
enough: nobody notices whether a ping comes a second later.
"""

from collections.abc import Callable
from typing import Protocol


class Waking(Protocol):
    """What lies in a wheel."""

    bucket: "Bucket | None"

    def wake(self) -> None:
        """The time has come."""


class Bucket(set[Waking]):
    """What is due at one tick."""

    __slots__ = ("due",)
    due: int


class Wheel:
    """Ticks of `seconds` each; whoever owns it calls `tick` that often."""

    def __init__(self, seconds: float, random: Callable[[], float]) -> None:
        self.seconds = seconds
        self._random = random
        self._now = 0
        self._buckets: dict[int, Bucket] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def put(self, item: Waking, seconds: float, *, spread: bool = False) -> None:
        """Wake it after so many seconds, or with `spread` at any time until then."""
        self.drop(item)
        ticks = seconds * self._random() if spread else seconds
        due = self._now + max(1, round(ticks / self.seconds))
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = Bucket()
            bucket.due = due
        bucket.add(item)
        item.bucket = bucket

    def drop(self, item: Waking) -> None:
        """Never wake it."""
        bucket = item.bucket
        if bucket is not None:
            item.bucket = None
            bucket.discard(item)
            if not bucket:
                self._buckets.pop(bucket.due, None)

    def tick(self) -> None:
        """One tick has passed."""
        self._now += 1
        bucket = self._buckets.pop(self._now, None)
        if not bucket:
            return
        try:
            while bucket:
                item = bucket.pop()
                item.bucket = None
                item.wake()
        finally:  # a defect in one does not make the others sleep for ever
            for item in list(bucket):
                self.put(item, 0)
