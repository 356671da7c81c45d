"""What a host is asked to bear: calls at once, and starts in time."""

from typing import Literal

import msgspec

from yelpaze.model.errors import MisuseError
from yelpaze.policy.rate import Rate


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one host.

    - `concurrency`: calls under way at once; "auto" finds the number by the host's latency.
    - `rate`: starts in time, as "100/s", "30/m", "1000/h"; None for no limit.
    - `burst`: how many may start at once after a rest.

    >>> Limit(rate="100/s").pace.interval
    0.01
    """

    concurrency: int | Literal["auto"] = 64
    rate: str | None = None
    burst: int = 1

    def __post_init__(self) -> None:
        at_once = self.concurrency
        if at_once != "auto" and (not isinstance(at_once, int) or at_once < 1):
            raise MisuseError(f'Limit(concurrency=…) takes at least 1, or "auto": {at_once!r}')
        if not isinstance(self.burst, int) or self.burst < 1:
            raise MisuseError(f"Limit(burst=…) takes a whole number of at least 1: {self.burst!r}")
        if self.rate is not None:
            Rate.parse(self.rate)

    @property
    def pace(self) -> Rate | None:
        """The rate, read."""
        return None if self.rate is None else Rate.parse(self.rate)
