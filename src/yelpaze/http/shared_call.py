"""De-duplication: identical GETs under way share one call.

The call belongs to none of its waiters. A waiter that cancels, or whose deadline passes, leaves
without affecting the others; the call ends early only when all have left.
"""

from collections.abc import Callable

import msgspec

from yelpaze.http.core import Core
from yelpaze.http.options import OnDone, ParkListener, Pending
from yelpaze.http.timers import Timer, Timers
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Outcome, Timings
from yelpaze.model.request import Request

_NEVER = float("inf")


class _Waiter:
    """A caller that waits for the shared answer."""

    __slots__ = ("_shared_call", "_since", "_timer", "abandoned", "on_done", "park_listener", "request")

    def __init__(
        self, shared_call: "SharedCall", request: Request, on_done: OnDone, park_listener: ParkListener | None
    ) -> None:
        self._shared_call = shared_call
        self._timer: Timer | None = None
        self._since = shared_call.core.now()
        self.request = request
        self.on_done = on_done
        self.park_listener = park_listener
        self.abandoned = False

    def bound(self, timers: Timers, deadline_at: float) -> None:
        if deadline_at < _NEVER:
            self._timer = timers.at(deadline_at, self._past_deadline)

    def cancel(self) -> None:
        if not self.abandoned:
            self.over()
            self._shared_call.leave(self)

    def over(self) -> None:
        self.abandoned = True
        if self._timer is not None:
            self._timer.cancel()

    def _past_deadline(self) -> None:
        outcome = self._shared_call.missed(self.request, self._since)
        self.cancel()
        self._shared_call.notify(self, outcome)


class SharedCall:
    """One call, and its waiters."""

    def __init__(self, core: Core, trace_id: str, on_completed: Callable[[], object]) -> None:
        self.core = core
        self._trace_id = trace_id
        self._on_completed = on_completed
        self._waiters: dict[_Waiter, None] = {}
        self._parked = 0
        self.call: Pending | None = None

    def join(
        self, request: Request, on_done: OnDone, park_listener: ParkListener | None, deadline_at: float
    ) -> Pending:
        """Add a waiter."""
        waiter = _Waiter(self, request, on_done, park_listener)
        waiter.bound(self.core.timers, deadline_at)
        self._waiters[waiter] = None
        if park_listener is not None and self._parked:
            park_listener.on_parked(self._parked)
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        """Remove a waiter; the last one to leave ends the call."""
        del self._waiters[waiter]
        if waiter.park_listener is not None and self._parked:
            waiter.park_listener.on_parked(-self._parked)
        if not self._waiters and self.call is not None:
            self._on_completed()
            self.call.cancel()

    def on_parked(self, change: int) -> None:
        """The call is parked, or no longer: so is each waiter."""
        self._parked += change
        for waiter in self._waiters:
            if waiter.park_listener is not None:
                waiter.park_listener.on_parked(change)

    def missed(self, request: Request, since: float) -> Outcome:
        """The outcome for a waiter whose deadline has passed."""
        error = Error(ErrorKind.DEADLINE_TIMEOUT, "not done within the deadline")
        elapsed = self.core.now() - since
        url = request.url
        return Outcome(request, 0, Headers(), b"", error, (), Timings(), elapsed, url, "", "", self._trace_id)

    def completed(self, outcome: Outcome) -> None:
        """Give the answer to each waiter, with the waiter's own request."""
        self._on_completed()
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.abandoned:
                waiter.over()
                self.notify(waiter, msgspec.structs.replace(outcome, request=waiter.request))

    def notify(self, waiter: _Waiter, outcome: Outcome) -> None:
        """Call one waiter's callback; an exception in it does not affect the others."""
        try:
            waiter.on_done(outcome)
        except Exception as error:  # noqa: BLE001
            self.core.report("a call's callback raised", error)
