"""When to stop asking a host that fails, and when to ask again.

    state      event     next
    closed     failing → open         half of ≥ 20 calls in 10 s failed, or 20 in a row
    open       cooled  → half_open    30 s later
    half_open  failing → open         of 5 probes, half failed
    half_open  healthy → closed       of 5 probes, more than half succeeded
    any        trip    → open         the caller knows better

Twenty failures in a row count besides the share, because a host that answered 10,000 calls
in the last seconds and then went away would have to fail as many before half of them failed.
"""

from enum import StrEnum

import msgspec

from yelpaze.model.errors import MisuseError, check_numbers
from yelpaze.policy.window import Window


class State(StrEnum):
    """Closed lets calls through, open none, half-open a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_NEXT = {
    (State.CLOSED, "failing"): State.OPEN,
    (State.OPEN, "cooled"): State.HALF_OPEN,
    (State.HALF_OPEN, "failing"): State.OPEN,
    (State.HALF_OPEN, "healthy"): State.CLOSED,
    (State.CLOSED, "trip"): State.OPEN,
    (State.HALF_OPEN, "trip"): State.OPEN,
}


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Opens when `share` of at least `calls` attempts within `window` seconds failed.

    After `pause` seconds it lets `probes` attempts through and judges by them.
    """

    share: float = 0.5
    calls: int = 20
    window: float = 10.0
    pause: float = 30.0
    probes: int = 5

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.share <= 1:
            raise MisuseError(f"Breaker(share=…) takes more than 0, at most 1: {self.share!r}")
        if self.calls < 1 or self.probes < 1:
            raise MisuseError("Breaker's calls and probes take at least 1")
        if not (0 < self.window < float("inf") and 0 < self.pause < float("inf")):
            raise MisuseError("Breaker's window and pause take seconds, more than 0")


class BreakerState:
    """The breaker of one host as it stands."""

    __slots__ = (
        "_bad",
        "_breaker",
        "_consecutive_failures",
        "_good",
        "_window",
        "generation",
        "state",
        "until",
    )

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._window = Window(breaker.window)
        self._consecutive_failures = 0  # failures since the last success
        self._good = self._bad = 0  # of the probes
        self.state = State.CLOSED
        self.until = float("-inf")  # when an open one is cooled
        # Counts changes of state: an answer to an attempt of an older one says nothing new.
        self.generation = 0

    def record(self, now: float, good: bool, generation: int) -> bool:
        """Take in how an attempt ended that began in `generation`; whether the state changed."""
        if generation != self.generation:
            return False
        if self.state is State.CLOSED:
            window = self._window
            if now >= window.ends:
                window.roll(now)
            window.calls += 1
            if good:
                self._consecutive_failures = 0
                return False
            window.marked += 1
            self._consecutive_failures += 1
            return self._is_failing() and self._move("failing", now)
        if self.state is State.OPEN:
            return False
        return self._probed(now, good=good)

    def cool(self, now: float) -> bool:
        """Go half-open if the time has come; whether it did."""
        return self.state is State.OPEN and now >= self.until and self._move("cooled", now)

    def trip(self, now: float) -> bool:
        """Open now; whether that changed anything."""
        return self.state is not State.OPEN and self._move("trip", now)

    def _is_failing(self) -> bool:
        window, breaker = self._window, self._breaker
        if window.calls >= breaker.calls and window.marked >= breaker.share * window.calls:
            return True
        return self._consecutive_failures >= breaker.calls

    def _probed(self, now: float, *, good: bool) -> bool:
        self._good += good
        self._bad += not good
        enough = self._breaker.share * self._breaker.probes
        if self._bad >= enough:
            return self._move("failing", now)
        return self._good > self._breaker.probes - enough and self._move("healthy", now)

    def _move(self, event: str, now: float) -> bool:
        self.state = _NEXT[self.state, event]
        self.generation += 1
        self._good = self._bad = self._consecutive_failures = 0
        self._window.clear()
        if self.state is State.OPEN:
            self.until = now + self._breaker.pause
        return True
