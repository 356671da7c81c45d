"""Requests in time: the generic cell rate algorithm (ITU-T I.371), one number of state.

A cell conforms if it comes no earlier than `tat - τ`; then `tat = max(now, tat) + T`.
Timers wake late by about a millisecond, so τ is never below 10 ms: what was lost is caught
up, and over seconds the rate is right.
"""

import re

import msgspec

from yelpaze.model.errors import MisuseError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NAMES = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
_RATE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:/\s*([0-9]+)?\s*([a-z]+))?\s*")
_SLACK = 0.010


class Rate(msgspec.Struct, frozen=True):
    """`count` starts in each `seconds`.

    >>> Rate.parse("100/s")
    Rate(count=100.0, seconds=1.0)
    """

    count: float
    seconds: float

    def __post_init__(self) -> None:
        if not (0 < self.count < float("inf") and 0 < self.seconds < float("inf")):
            raise MisuseError(
                "a rate must let something through, so it is above 0; leave it out for no limit"
            )

    @classmethod
    def parse(cls, text: str, *, bare: str = "") -> "Rate":
        """Read `N/s`, `N/m`, `N/h`, `N/d` or `N/10s`; `bare` is the unit of a number alone, if any.

        Raises MisuseError for anything else.
        """
        found = _RATE.fullmatch(text.lower()) if isinstance(text, str) else None
        unit = found and (found[3] or bare)
        unit = _NAMES.get(unit, unit) if unit else unit
        if found is None or unit not in _UNITS:
            raise MisuseError(f'not a rate: {text!r}; write "100/s", "30/m", "1000/h" or "5/10s"')
        return cls(float(found[1]), float(found[2] or 1) * _UNITS[unit])

    @property
    def interval(self) -> float:
        """Seconds from one start to the next."""
        return self.seconds / self.count

    def __str__(self) -> str:
        unit = {length: name for name, length in _UNITS.items()}.get(self.seconds, f"{self.seconds:g}s")
        return f"{self.count:g}/{unit}"


class Gcra:
    """One host's rate as it stands. `burst` may start at once after a rest."""

    __slots__ = ("_interval", "_tat", "_tolerance", "rate")

    def __init__(self, rate: Rate, burst: int = 1) -> None:
        self.rate = rate
        self._interval = rate.interval
        self._tolerance = max((burst - 1) * rate.interval, _SLACK)
        self._tat = float("-inf")

    @property
    def next(self) -> float:
        """The time from which the next start conforms."""
        return self._tat - self._tolerance

    def take(self, now: float) -> float:
        """Start one now; the time from which the next conforms."""
        tat = self._tat
        self._tat = tat = (max(tat, now)) + self._interval
        return tat - self._tolerance
