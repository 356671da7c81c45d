"""Whether to try again, and after how long.

retry?   no more attempts            → no
         cannot have been processed  → yes  (connect failures, 429, 503)
         may have been processed     → only if the request can be replayed
pause    Retry-After, clamped, if the answer gave one; else full jitter
         U(0, min(cap, base·2ⁿ))  (AWS Architecture Blog, "Exponential Backoff And Jitter")
"""

from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from yelpaze.model.errors import Error, ErrorKind, MisuseError

# The request never reached a server that could have acted on it.
_NEVER_SENT = frozenset({ErrorKind.DNS, ErrorKind.CONNECT, ErrorKind.CONNECT_TIMEOUT})
# It may have been acted on: trying again is for requests that can be replayed.
_PERHAPS_SENT = frozenset(
    {ErrorKind.FIRST_BYTE_TIMEOUT, ErrorKind.ATTEMPT_TIMEOUT, ErrorKind.PROTOCOL},
)
# RFC 9110 §15.6.4 and RFC 6585 §4: the server says that it did not handle the request.
_REFUSED = frozenset({429, 503})
_MAX_EXPONENT = 60


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """The retry policy: `attempts` in all, pauses from `base` to `cap` seconds.

    `statuses` are those worth another try; `retry_after_cap` bounds in seconds what a
    Retry-After header can ask for.
    """

    attempts: int = 3
    base: float = 0.1
    cap: float = 20.0
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    retry_after_cap: float = 300.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise MisuseError(f"Retry(attempts=…) counts the first try too, so at least 1: {self.attempts}")
        if self.base < 0 or self.cap < 0 or self.retry_after_cap < 0:
            raise MisuseError("Retry's base, cap and retry_after_cap take seconds, 0 or more")


def worth_retrying(policy: Retry, *, attempt: int, replayable: bool, status: int, error: Error) -> bool:
    """Decide after attempt number `attempt` (from 1) failed with `error`."""
    if attempt >= policy.attempts:
        return False
    if error.kind is ErrorKind.STATUS:
        return status in policy.statuses and (replayable or status in _REFUSED)
    return error.kind in _NEVER_SENT or (replayable and error.kind in _PERHAPS_SENT)


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
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 16 else float("inf")  # noqa: PLR2004
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - wall)
