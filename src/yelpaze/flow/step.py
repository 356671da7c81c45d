"""One function of a flow, and how it is run."""

from collections.abc import Callable
from typing import Any

import msgspec

from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Timeout
from yelpaze.policy.retry import Retry

Accept = Callable[[Outcome], bool]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step's function and options; `where` is `file:line`."""

    name: str
    function: Callable[..., Any]
    where: str
    is_compute: bool
    optional: bool
    timeout: float = 0.0
    idempotent: bool | None = None
    accept: Accept | None = None
    limits: Timeout | None = None
    retry: bool | Retry = True
    idempotency_key: bool = False
