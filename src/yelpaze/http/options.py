"""What comes with a call from the part that makes it, and what that part wants to hear."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from yelpaze.model.event import HostEvent
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.retry import Retry

OnDone = Callable[[Outcome], None]


class Pending(Protocol):
    """A call under way, as the one who made it sees it."""

    @property
    def abandoned(self) -> bool:
        """Whether it is over."""

    def cancel(self) -> None:
        """Stop now, without telling the outcome; harmless when it is over."""


class Aside(Protocol):
    """Who makes calls in bulk: told how many of them wait for a host, so as to go on with others."""

    def set_aside(self, change: int) -> None:
        """One more call waits (+1), or one less (-1)."""


class CallSpan(Protocol):
    """The span of a call, and those of its attempts. `trace_id`: 32 hex digits."""

    trace_id: str

    def begin_attempt(self, method: str) -> str:
        """Open an attempt's span; its `traceparent`, which names it until its end."""

    def end_attempt(self, parent: str, attempt: Attempt) -> None:
        """The attempt is over."""

    def end(self, outcome: Outcome | None) -> None:
        """The call is over; None if it was cancelled."""


class Tracing(Protocol):
    """Makes spans, in place of the engine's own bare ids."""

    def begin(self, request: Request) -> CallSpan | None:
        """Open a call's span, or none."""


class Defaults(msgspec.Struct, frozen=True):
    """What a flow's step says for all of its requests, where a request itself says nothing."""

    idempotent: bool | None = None
    timeout: Timeout | None = None
    retry: bool | Retry = True


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Plain callables that watch: every attempt with its trace id, every outcome, every change of a host."""

    on_attempt: Callable[[Request, Attempt, str], object] | None = None
    on_outcome: Callable[[Outcome], object] | None = None
    on_event: Callable[[HostEvent], object] | None = None
