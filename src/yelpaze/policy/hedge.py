"""When to ask a second time before the first answer has come (Dean & Barroso, The Tail at Scale).

A request slower than the host's own 95th percentile is sent once more, and the first answer
wins. Only requests that may be sent twice, and no more than `share` of all, so a host that
is slow as a whole is not made slower.
"""

import msgspec

from yelpaze.model.errors import MisuseError, check_numbers
from yelpaze.model.histogram import Histogram

_ENOUGH, _SAMPLED = 100, 4
_REFRESH, _FORGET = 256, 1024
_SAVED = 10.0
_EDGE = 1.02


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """Ask again after `after` seconds, or None for the `quantile` of the host's own latency."""

    after: float | None = None
    quantile: float = 0.95
    share: float = 0.05

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.after is not None and not 0 < self.after < float("inf"):
            raise MisuseError(f"Hedge(after=…) takes a positive number of seconds: {self.after!r}")
        if not (0 < self.quantile < 1 and 0 < self.share <= 1):
            raise MisuseError("Hedge takes a quantile between 0 and 1, and a share above 0, at most 1")


class HedgeState:
    """The hedging of one host as it stands."""

    __slots__ = ("_fresh", "_hedge", "_saved", "_seen", "_stale", "after")

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._saved = 1.0
        self._seen = 0
        # Two halves, so that what a quantile is made of is never older than two of them.
        self._fresh, self._stale = Histogram(), Histogram()
        # Seconds after which a request is slow; infinite until enough have been seen.
        self.after = hedge.after or float("inf")

    def answered(self, seconds: float) -> None:
        """Take in an answer's latency."""
        saved = self._saved + self._hedge.share
        self._saved = min(_SAVED, saved)
        if self._hedge.after is not None:
            return
        self._seen += 1
        if self._seen > _ENOUGH and self._seen % _SAMPLED:  # enough are known: a part of the others will do
            return
        self._fresh.add(seconds)
        if self._seen == _ENOUGH or self._seen % _REFRESH == 0:
            self._refresh()

    def may(self) -> bool:
        """Pay for one more request, if there is enough."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def _refresh(self) -> None:
        # The upper edge of the quantile's size class: many may have exactly its latency.
        self.after = self._fresh.merged(self._stale).quantile(self._hedge.quantile) * _EDGE
        if self._fresh.count >= _FORGET:
            self._fresh, self._stale = Histogram(), self._fresh
