"""De-duplication: identical GETs under way share one call.

The call belongs to nobody of those who wait for it: one who cancels, or whose deadline
passes, leaves the others alone, and the call ends early only when all have left.
"""

from collections.abc import Callable

import msgspec

from yelpaze.http.options import Aside, OnDone, Pending
from yelpaze.http.timers import Timer, Timers
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Outcome, Timings
from yelpaze.model.request import Request

_NEVER = float("inf")


class _Passenger:
    """One who waits for the shared answer."""

    __slots__ = ("_flight", "_timer", "abandoned", "aside", "on_done", "request")

    def __init__(self, flight: "Flight", request: Request, on_done: OnDone, aside: Aside | None) -> None:
        self._flight = flight
        self._timer: Timer | None = None
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
        request = self.request
        error = Error(ErrorKind.DEADLINE_TIMEOUT, "not done within the deadline")
        outcome = Outcome(
            request, 0, Headers(), b"", error, (), Timings(), 0.0, request.url, "", "", ""
        )  # fmt: skip
        self.cancel()
        self.on_done(outcome)


class Flight:
    """One call, and all who wait for it."""

    def __init__(
        self, timers: Timers, on_landed: Callable[[], object], report: Callable[[str, Exception], None]
    ) -> None:
        self._timers = timers
        self._on_landed = on_landed
        self._report = report
        self._passengers: dict[_Passenger, None] = {}
        self._aside = 0
        self.call: Pending | None = None

    def join(self, request: Request, on_done: OnDone, aside: Aside | None, deadline_at: float) -> Pending:
        """Wait for the answer, too."""
        passenger = _Passenger(self, request, on_done, aside)
        passenger.bound(self._timers, deadline_at)
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

    def landed(self, outcome: Outcome) -> None:
        """Hand the answer to everybody, each with a request of their own."""
        self._on_landed()
        passengers, self._passengers = self._passengers, {}
        for passenger in passengers:
            if not passenger.abandoned:
                passenger.over()
                try:
                    passenger.on_done(msgspec.structs.replace(outcome, request=passenger.request))
                except Exception as error:  # noqa: BLE001  the others get their answer all the same
                    self._report("a call's callback raised", error)
