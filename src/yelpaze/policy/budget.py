"""How many retries a host gets: a share of its requests, and a floor (Finagle's RetryBudget).

Retries multiply the load of a service that is failing already. With a budget they can add
no more than `share` of the requests, however many attempts each is allowed.
"""

import msgspec

from yelpaze.model.errors import MisuseError, check_numbers
from yelpaze.policy.window import Window


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Retries allowed to one host: `share` of its requests of the last `ttl` seconds.

    `per_second` retries are allowed besides, so that a host with few requests has some.

    >>> Budget(share=0.1)
    Budget(share=0.1, per_second=10.0, ttl=10.0)
    """

    share: float = 0.2
    per_second: float = 10.0
    ttl: float = 10.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if not (0 <= self.share <= 1 and 0 <= self.per_second < float("inf") and 0 < self.ttl <= 3600):  # noqa: PLR2004
            raise MisuseError(
                f"Budget takes a share from 0 to 1, per_second of 0 or more, a ttl of up to 3600 s: {self!r}"
            )


class BudgetState:
    """The budget of one host as it stands. Every request is counted in `window.calls`."""

    __slots__ = ("_floor", "_share", "window")

    def __init__(self, budget: Budget) -> None:
        self._share = budget.share
        self._floor = budget.per_second * budget.ttl
        self.window = Window(budget.ttl)

    def withdraw(self, now: float) -> bool:
        """Pay for a retry, if there is enough."""
        window = self.window
        window.roll(now)
        if window.marked + 1 > window.calls * self._share + self._floor:
            return False
        window.marked += 1
        return True
