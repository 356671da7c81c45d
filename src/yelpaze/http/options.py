"""What a call is made with, and the Protocols by which calls, limiter and callers notify each other."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from yelpaze.http.tracer import TraceContext
from yelpaze.model.errors import ErrorKind
from yelpaze.model.event import HostEvent
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.retry import Retry
from yelpaze.policy.slots import Ticket

OnDone = Callable[[Outcome], None]


class Pending(Protocol):
    """A call under way, as its caller sees it."""

    @property
    def abandoned(self) -> bool:
        """Whether it is over."""

    def cancel(self) -> None:
        """Stop now, without telling the outcome; harmless when it is over."""


class QueuedCall(Ticket, Protocol):
    """A call, as the limiter and the host's state changes see it."""

    @property
    def parks(self) -> bool:
        """Whether it waits for a host that is away, instead of failing."""

    def granted(self) -> None:
        """A slot is free, and taken for it."""

    def refused(self, kind: ErrorKind, message: str) -> None:
        """A policy ends it."""

    def abort(self, why: str) -> None:
        """The engine is being closed."""


class ParkListener(Protocol):
    """A bulk caller. It is notified when calls park, so that it can continue with other hosts."""

    def on_parked(self, change: int) -> None:
        """One more call is parked (+1), or one less (-1)."""


class CallSpan(Protocol):
    """The span of a call, and those of its attempts. `trace_id`: 32 hex digits."""

    trace_id: str

    def begin_attempt(self, method: str) -> TraceContext:
        """Open an attempt's span; return what it sends, which names it until its end."""

    def end_attempt(self, context: TraceContext, attempt: Attempt) -> None:
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


class EngineEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks for each attempt with its trace id, each outcome, and each change of a host."""

    on_attempt: Callable[[Request, Attempt, str], object] | None = None
    on_outcome: Callable[[Outcome], object] | None = None
    on_event: Callable[[HostEvent], object] | None = None
