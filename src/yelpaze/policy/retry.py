"""Whether to try again, and after how long.

retry?   no more attempts, or no more time  → no
         cannot have been processed         → yes  (connect failures, refused streams, 429, 503)
         may have been processed            → only if the request can be replayed
pause    Retry-After, clamped, if the answer gave one; else full jitter
         U(0, min(cap, base·2ⁿ))  (AWS Architecture Blog, "Exponential Backoff And Jitter")
"""

from collections.abc import Callable, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request

# The request never reached a server that acted on it.
_NEVER_PROCESSED = frozenset(
    {
        ErrorKind.DNS,
        ErrorKind.CONNECT,
        ErrorKind.CONNECT_TIMEOUT,
        ErrorKind.REFUSED_STREAM,
        ErrorKind.OUT_OF_FILES,
    }
)
# It may have been acted on: trying again is for requests that can be replayed.
_PERHAPS_PROCESSED = frozenset(
    {ErrorKind.FIRST_BYTE_TIMEOUT, ErrorKind.ATTEMPT_TIMEOUT, ErrorKind.PROTOCOL},
)
# RFC 9110 §15.6.4 and RFC 6585 §4: the server says that it did not handle the request.
_REFUSED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_MAX_EXPONENT = 60


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """The retry policy: `attempts` in all, pauses from `base` to `cap` seconds.

    - `statuses`, `errors`: the answers and the kinds of error worth another try.
    - `methods`: those that may be sent twice where the request itself does not say, instead
      of the idempotent ones of RFC 9110.
    - `when`: a predicate on the outcome; an answer for which it is true, or for which it raises,
      is a failure, whatever its status (a 200 with an error inside), and worth another try.
    - `max_time`: no attempt begins later than so many seconds after the first.
    - `retry_after_cap`: the seconds that a Retry-After header can ask for at most.

    >>> Retry(attempts=5, when=lambda outcome: b'"error"' in outcome.body).attempts
    5
    """

    attempts: int = 3
    base: float = 0.1
    cap: float = 20.0
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    errors: frozenset[ErrorKind] = _NEVER_PROCESSED | _PERHAPS_PROCESSED
    methods: frozenset[str] | None = None
    when: Callable[[Outcome], bool] | None = None
    max_time: float = float("inf")
    retry_after_cap: float = 300.0

    def __post_init__(self) -> None:
        if self.when is not None and not callable(self.when):
            raise MisuseError(f"Retry(when=…) takes a function of the outcome, not {self.when!r}")
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise MisuseError(
                "Retry(attempts=…) is a whole number and counts the first try too, "
                f"so at least 1: {self.attempts!r}"
            )
        times = (self.base, self.cap, self.retry_after_cap, self.max_time)
        if not all(isinstance(value, int | float) and value >= 0 for value in times):
            raise MisuseError("Retry's base, cap, max_time and retry_after_cap take seconds, 0 or more")
        for name, kind in (("statuses", int), ("errors", str), ("methods", str)):
            given = getattr(self, name)
            if given is None and name == "methods":
                continue
            if not isinstance(given, Iterable) or isinstance(given, str):
                raise MisuseError(f"Retry({name}=…) takes a set, not {given!r}")
            if wrong := [value for value in given if not isinstance(value, kind)]:
                raise MisuseError(f"Retry({name}=…) takes a set of {kind.__name__}, and {wrong[0]!r} is none")
            values = (value.upper() for value in given) if name == "methods" else given
            msgspec.structs.force_setattr(self, name, frozenset(values))
        if unknown := self.errors - set(ErrorKind):
            raise MisuseError(f"Retry(errors=…): there is no kind of error {min(unknown)!r}")

    def replayable(self, request: Request) -> bool:
        """Whether the request may be sent again even if it may have been processed."""
        if self.methods is None or request.idempotent is not None:
            return request.replayable
        return request.method in self.methods or request.has_idempotency_key


def worth_retrying(policy: Retry, *, replayable: bool, keyed: bool, status: int, error: Error) -> bool:
    """Decide by how an attempt failed, however many there were.

    `keyed` requests carry an Idempotency-Key: a 409 then says that the first is still being
    handled (draft-ietf-httpapi-idempotency-key-header-07 §2.6), a 422 that none ever will be.
    """
    if error.kind is ErrorKind.STATUS:
        if keyed and status == HTTPStatus.CONFLICT:
            return True
        if status < HTTPStatus.BAD_REQUEST:  # what `when` refused
            return replayable
        return status in policy.statuses and (replayable or status in _REFUSED)
    if error.kind not in policy.errors:
        return False
    return replayable or error.kind in _NEVER_PROCESSED


def pause(
    policy: Retry,
    *,
    attempt: int,
    retry_after: float | None,
    uniform: Callable[[float, float], float],
) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) before the next."""
    if retry_after is not None:
        return min(retry_after, policy.retry_after_cap)
    longest = min(policy.cap, policy.base * 2.0 ** min(attempt, _MAX_EXPONENT))
    return uniform(0.0, longest)


def retry_after_seconds(value: str | None, *, wall: float) -> float | None:
    """Read a Retry-After field: delay-seconds or an HTTP-date (RFC 9110 §10.2.3).

    `wall` is the current time in seconds since 1970. A date in the past gives 0; what is
    neither form gives None, as if the field were absent.
    """
    if value is None:
        return None
    text = value.strip(" \t")
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 16 else float("inf")  # noqa: PLR2004
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - wall)
