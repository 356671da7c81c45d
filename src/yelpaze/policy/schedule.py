"""When a delivery is attempted: a list of delays, each varied a little.

The default is that of Standard Webhooks 1.0.0, "Deliverability and reliability". An alarm has one of its
own: after an hour nobody wants to be woken by it.
"""

from collections.abc import Callable

import msgspec

from yelpaze.model.errors import MisuseError

_LONGEST = 7 * 86_400.0
_MOST = 100


class Schedule(msgspec.Struct, frozen=True):
    """Seconds before each attempt, the first included.

    Attributes:
        delays: The delay before each attempt.
        jitter: The share by which a delay varies in both directions.
        retry_after_cap: Seconds that a Retry-After header can ask for at most.

    Raises MisuseError for what is no schedule.

    >>> schedule = Schedule((0, 5, 300), jitter=0)
    >>> [schedule.pause(step, None, min) for step in range(4)]
    [0.0, 5.0, 300.0, None]
    >>> schedule.pause(1, 60, min)
    60.0

    """

    delays: tuple[float, ...]
    jitter: float = 0.2
    retry_after_cap: float = 3600.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.delays) <= _MOST:
            raise MisuseError(f"a schedule has 1 to {_MOST} delays, not {len(self.delays)}")
        for delay in self.delays:
            if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= _LONGEST:
                raise MisuseError(f"a schedule's delays are seconds, 0 to {_LONGEST:g}: {delay!r}")
        if not 0 <= self.jitter < 1:
            raise MisuseError(f"a schedule's jitter is at least 0 and below 1: {self.jitter!r}")
        if not 0 <= self.retry_after_cap <= _LONGEST:
            raise MisuseError(f"retry_after_cap is seconds, 0 to {_LONGEST:g}: {self.retry_after_cap!r}")

    def pause(
        self, step: int, retry_after: float | None, uniform: Callable[[float, float], float]
    ) -> float | None:
        """Seconds before attempt number `step`, counted from 0; None if there is none any more.

        Retry-After is a floor: what the schedule says holds if it is later.
        """
        if step >= len(self.delays):
            return None
        delay = float(self.delays[step])
        if self.jitter and delay:
            delay = uniform(delay * (1 - self.jitter), delay * (1 + self.jitter))
        if retry_after is not None:
            delay = max(delay, float(min(retry_after, self.retry_after_cap)))
        return delay


DELIVERY = Schedule((0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400))
ALARM = Schedule((0, 2, 5, 10, 30, 60, 120, *(300,) * 11), retry_after_cap=300.0)  # an hour in all
