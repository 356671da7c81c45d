"""Quantiles of millions of durations in a small amount of memory."""

import math
from collections import defaultdict
from collections.abc import Mapping
from math import floor, log

# Size classes grow by 2 %; only those met are kept. What is below 1 µs counts as 1 µs.
_GROWTH = math.log(1.02)
_FINENESS = 1 / _GROWTH
_SMALLEST = 1e-6


class Histogram:
    """Counts by size class; a quantile is right to within 2 %.

    >>> histogram = Histogram()
    >>> for milliseconds in range(1, 101):
    ...     histogram.add(milliseconds / 1000)
    >>> round(histogram.quantile(0.5), 2)
    0.05
    """

    __slots__ = ("_counts", "count", "total")

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[floor(log(max(_SMALLEST, seconds)) * _FINENESS)] += 1
        self.count += 1
        self.total += seconds

    def copy(self) -> "Histogram":
        """One that stays as it is now."""
        return self.merged(Histogram())

    def counts(self) -> dict[str, float]:
        """What it has counted, to be kept in a file; `of` makes a histogram of it again."""
        return {str(bucket): count for bucket, count in self._counts.items()} | {"total": self.total}

    @staticmethod
    def of(counts: Mapping[str, float]) -> "Histogram":
        """The histogram that had those `counts()`."""
        histogram = Histogram()
        for name, count in counts.items():
            if name == "total":
                histogram.total = count
            else:
                histogram._counts[int(name)] = int(count)
                histogram.count += int(count)
        return histogram

    def merged(self, other: "Histogram") -> "Histogram":
        """A new one that has counted what both have."""
        both = Histogram()
        both.count, both.total = self.count + other.count, self.total + other.total
        both._counts = self._counts.copy()
        for bucket, count in other._counts.items():  # noqa: SLF001  of our own kind
            both._counts[bucket] += count
        return both

    def quantile(self, share: float) -> float:
        """The duration that `share` (0 to 1) of all do not exceed; 0 if there are none."""
        left = math.ceil(share * self.count)
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return math.exp((bucket + 0.5) * _GROWTH)
        return 0.0

    def up_to(self, seconds: float) -> int:
        """How many durations did not exceed `seconds`, to within 2 %."""
        edge = floor(log(max(seconds, _SMALLEST)) * _FINENESS)
        return sum(count for bucket, count in self._counts.items() if bucket <= edge)
