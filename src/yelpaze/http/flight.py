"""De-duplication: identical GETs under way share one call.

The call belongs to nobody of those who wait for it: one who cancels, or whose deadline
passes, leaves the others alone, and the call ends early only when all have left.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yelpaze.http.options import Aside, OnDone, Pending
from yelpaze.http.timers import Timer, Timers
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Outcome, Timings
from yelpaze.model.request import Request

if TYPE_CHECKING:
    from yelpaze.http.core import Core

_NEVER = float("inf")


class _Passenger:
    """One who waits for the shared answer."""

    __slots__ = ("_flight", "_since", "_timer", "abandoned", "aside", "on_done", "request")

    def __init__(self, flight: "Flight", request: Request, on_done: OnDone, aside: Aside | None) -> None:
        self._flight = flight
        self._timer: Timer | None = None
        self._since = flight.core.now()
        self.request = request
        self.on_done = on_done
        self.aside = aside
        self.abandoned = False

    def bound(self, timers: Timers, deadline_at: float) -> None:
        if deadline_at < _NEVER:
            self._timer = timers.at(deadline_at, self._past_deadline)

    def cancel(self) -> None:
        if not self.abandoned:
            self.over()
            self._flight.leave(self)

    def over(self) -> None:
        self.abandoned = True
        if self._timer is not None:
            self._timer.cancel()

    def _past_deadline(self) -> None:
        outcome = self._flight.missed(self.request, self._since)
        self.cancel()
        self._flight.tell(self, outcome)


class Flight:
    """One call, and all who wait for it."""

    def __init__(self, core: "Core", trace_id: str, on_landed: Callable[[], object]) -> None:
        self.core = core
        self._trace_id = trace_id
        self._on_landed = on_landed
        self._passengers: dict[_Passenger, None] = {}
        self._aside = 0
        self.call: Pending | None = None

    def join(self, request: Request, on_done: OnDone, aside: Aside | None, deadline_at: float) -> Pending:
        """Wait for the answer, too."""
        passenger = _Passenger(self, request, on_done, aside)
        passenger.bound(self.core.timers, deadline_at)
        self._passengers[passenger] = None
        if aside is not None and self._aside:
            aside.set_aside(self._aside)
        return passenger

    def leave(self, passenger: _Passenger) -> None:
        """Wait no longer; the last one to leave ends the call."""
        del self._passengers[passenger]
        if passenger.aside is not None and self._aside:
            passenger.aside.set_aside(-self._aside)
        if not self._passengers and self.call is not None:
            self._on_landed()
            self.call.cancel()

    def set_aside(self, change: int) -> None:
        """The call waits, or no longer does: so do all."""
        self._aside += change
        for passenger in self._passengers:
            if passenger.aside is not None:
                passenger.aside.set_aside(change)

    def missed(self, request: Request, since: float) -> Outcome:
        """What a passenger gets whose deadline has passed."""
        error = Error(ErrorKind.DEADLINE_TIMEOUT, "not done within the deadline")
        elapsed = self.core.now() - since
        url = request.url
        return Outcome(request, 0, Headers(), b"", error, (), Timings(), elapsed, url, "", "", self._trace_id)

    def landed(self, outcome: Outcome) -> None:
        """Hand the answer to everybody, each with a request of their own."""
        self._on_landed()
        passengers, self._passengers = self._passengers, {}
        for passenger in passengers:
            if not passenger.abandoned:
                passenger.over()
                self.tell(passenger, msgspec.structs.replace(outcome, request=passenger.request))

    def tell(self, passenger: _Passenger, outcome: Outcome) -> None:
        """Hand one their outcome; what they make of it costs the others nothing."""
        try:
            passenger.on_done(outcome)
        except Exception as error:  # noqa: BLE001
            self.core.report("a call's callback raised", error)
