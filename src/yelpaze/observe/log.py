"""What happens, as structlog events with trace ids.

Engine(**log_events())

call.failed      warning   a call ended without success: kind, message, attempts, trace_id
attempt.failed   debug     an attempt of it failed
host.…           warning   paused, given up; info when it is back
breaker.…        warning   open; info when half-open or closed
"""

from collections.abc import Callable, Iterable
from typing import Any

import structlog

from yelpaze.model.event import HostEvent
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request
from yelpaze.model.secrets import Secrets

_GOOD_NEWS = frozenset({"breaker.closed", "breaker.half_open", "host.up"})


def log_events(logger: Any = None, *, secrets: Iterable[str] = ()) -> dict[str, Callable[..., None]]:
    """Listeners for an Engine that log to `logger`, or to structlog's `yelpaze`.

    `secrets`: names of URL parameters whose values are not shown, beside those that everybody knows.

    >>> from yelpaze import Engine, log_events
    >>> engine = Engine(**log_events())
    """
    shown = Secrets(secrets).url
    log = structlog.get_logger("yelpaze") if logger is None else logger

    def on_attempt(request: Request, attempt: Attempt, trace_id: str) -> None:
        if attempt.error is not None:
            log.debug(
                "attempt.failed",
                method=request.method,
                url=shown(request.url),
                kind=str(attempt.error.kind),
                status=attempt.status or None,
                seconds=round(attempt.seconds, 6),
                trace_id=trace_id,
            )

    def on_outcome(outcome: Outcome) -> None:
        if outcome.error is not None:
            log.warning(
                "call.failed",
                method=outcome.request.method,
                url=shown(outcome.url),
                kind=str(outcome.error.kind),
                message=outcome.error.message,
                status=outcome.status or None,
                attempts=len(outcome.attempts),
                seconds=round(outcome.elapsed, 6),
                trace_id=outcome.trace_id,
            )

    def on_event(event: HostEvent) -> None:
        say = log.info if event.kind in _GOOD_NEWS else log.warning
        say(event.kind, host=event.host, seconds=round(event.seconds, 3))

    return {"on_attempt": on_attempt, "on_outcome": on_outcome, "on_event": on_event}
