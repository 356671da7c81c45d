"""Decides what follows a failed attempt: the call ends, retries, or parks.

Only bulk calls park. Their host is *away* when its breaker is not closed. It is also away when a call has
used up its attempts while the host, which had answered before, answered no call at all and failed others
too; that opens the breaker at once. So a row fails only if its host was available to others, or never
answered.
"""

from collections.abc import Callable

import msgspec

from yelpaze.http.host import Host
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.policy.retry import Retry, pause, retry_after_seconds, worth_retrying

_NEVER = float("inf")


class FailedAttempt(msgspec.Struct, frozen=True, gc=False):
    """A call at the moment when one of its attempts has failed.

    `consecutive_failures`: the call's failed attempts since the host's last success.
    """

    policy: Retry
    tries: int
    consecutive_failures: int
    replayable: bool
    keyed: bool
    parks: bool
    began: float
    deadline_at: float
    status: int
    error: Error
    headers: Headers


class RetryDecision(msgspec.Struct, frozen=True, gc=False):
    """End the call with `error` if there is one; else retry after `delay` seconds.

    `parked`: the attempts so far do not count. `unpaid`: the retry budget must be asked again.
    `tripped`: the host's breaker was opened by this.
    """

    error: Error | None
    delay: float = 0.0
    parked: bool = False
    unpaid: bool = False
    tripped: bool = False


def decide(  # noqa: PLR0911  a list of reasons to end, in order
    host: Host,
    failed: FailedAttempt,
    *,
    now: float,
    wall: float,
    park: float,
    uniform: Callable[[float, float], float],
) -> RetryDecision:
    """Decide; `park` is the time in seconds after which a silent host is given up."""
    policy, error = failed.policy, failed.error
    if not worth_retrying(
        policy, replayable=failed.replayable, keyed=failed.keyed, status=failed.status, error=error
    ):
        return RetryDecision(error)
    used_up = failed.tries >= policy.attempts
    after = retry_after_seconds(failed.headers.get("retry-after"), wall=wall) if failed.status else None
    delay = pause(policy, attempt=failed.tries, retry_after=after, uniform=uniform)
    if failed.parks and policy.attempts > 1:
        tripped = used_up and not host.breaker_open and _has_gone(host, failed) and host.trip(now)
        if host.breaker_open:
            return _given_up(host, error, now, park) or RetryDecision(
                None, delay, parked=True, tripped=tripped
            )
    if used_up:
        return RetryDecision(error)
    if host.breaker_open:
        return RetryDecision(_ended_by(ErrorKind.BREAKER_OPEN, error, host.breaker_message(now)))
    if now + delay > failed.deadline_at:
        why = "the pause" if after is None else f"Retry-After asks for {delay:g} s and that"
        return RetryDecision(_ended_by(ErrorKind.DEADLINE_TIMEOUT, error, f"{why} would pass the deadline"))
    if now + delay - failed.began > policy.max_time:
        return RetryDecision(error)
    if host.budget is not None and not host.budget.withdraw(now):
        if not failed.parks:
            return RetryDecision(_ended_by(ErrorKind.BUDGET_SPENT, error, "the host's retry budget is spent"))
        return _given_up(host, error, now, park) or RetryDecision(
            None, max(delay, uniform(0.5, 1.5)), unpaid=True
        )
    return RetryDecision(None, delay)


def _has_gone(host: Host, failed: FailedAttempt) -> bool:
    """Whether a host that was there has stopped answering, and not to this call alone."""
    return host.last_success > -_NEVER and failed.consecutive_failures > 1 and host.failing > 1


def _given_up(host: Host, error: Error, now: float, park: float) -> RetryDecision | None:
    if now < host.give_up_at(park):
        return None
    host.given_up = True
    return RetryDecision(_ended_by(ErrorKind.HOST_DOWN, error, f"the host has had no success for {park:g} s"))


def _ended_by(kind: ErrorKind, error: Error, why: str) -> Error:
    return Error(kind, f"{error.message}; not tried again: {why}")
