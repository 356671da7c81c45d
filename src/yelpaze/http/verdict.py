"""What becomes of a call whose attempt has failed: it ends, tries again, or parks.

Parking is for calls made in bulk. Their host is *away* when its breaker is not closed, or
when a call has used up its attempts while the host, which had answered before, answered
nobody at all and failed other calls too: that opens the breaker at once. So a row fails only
where its host was there for others, or where a host never answered.
"""

from collections.abc import Callable

import msgspec

from yelpaze.http.host import Host
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.policy.retry import Retry, pause, retry_after_seconds, worth_retrying

_NEVER = float("inf")


class Trial(msgspec.Struct, frozen=True, gc=False):
    """A call at the moment when an attempt of it has failed.

    `row`: how many of its attempts have failed since the host's last success.
    """

    policy: Retry
    tries: int
    row: int
    replayable: bool
    keyed: bool
    parks: bool
    began: float
    deadline_at: float
    status: int
    error: Error
    headers: Headers


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """End with `error`, if there is one; else go on after `delay` seconds.

    `parked`: the attempts so far don't count. `unpaid`: the retry budget must be asked again.
    `tripped`: the host's breaker was opened by this.
    """

    error: Error | None
    delay: float = 0.0
    parked: bool = False
    unpaid: bool = False
    tripped: bool = False


def judge(  # noqa: PLR0911  a list of reasons to end, in order
    host: Host,
    trial: Trial,
    *,
    now: float,
    wall: float,
    park: float,
    uniform: Callable[[float, float], float],
) -> Verdict:
    """Decide; `park` is the time in seconds after which a silent host is given up."""
    policy, error = trial.policy, trial.error
    if not worth_retrying(
        policy, replayable=trial.replayable, keyed=trial.keyed, status=trial.status, error=error
    ):
        return Verdict(error)
    used_up = trial.tries >= policy.attempts
    after = retry_after_seconds(trial.headers.get("retry-after"), wall=wall) if trial.status else None
    delay = pause(policy, attempt=trial.tries, retry_after=after, uniform=uniform)
    if trial.parks and policy.attempts > 1:
        tripped = used_up and not host.ailing and _has_gone(host, trial) and host.trip(now)
        if host.ailing:
            return _given_up(host, error, now, park) or Verdict(None, delay, parked=True, tripped=tripped)
    if used_up:
        return Verdict(error)
    if host.ailing:
        return Verdict(_ended_by(ErrorKind.BREAKER_OPEN, error, "the host's breaker is open"))
    if now + delay > trial.deadline_at:
        why = "the pause" if after is None else f"Retry-After asks for {delay:g} s and that"
        return Verdict(_ended_by(ErrorKind.DEADLINE_TIMEOUT, error, f"{why} would pass the deadline"))
    if now + delay - trial.began > policy.max_time:
        return Verdict(error)
    if host.purse is not None and not host.purse.withdraw(now):
        if not trial.parks:
            return Verdict(_ended_by(ErrorKind.BUDGET_SPENT, error, "the host's retry budget is spent"))
        return _given_up(host, error, now, park) or Verdict(None, max(delay, uniform(0.5, 1.5)), unpaid=True)
    return Verdict(None, delay)


def _has_gone(host: Host, trial: Trial) -> bool:
    """Whether a host that was there has stopped answering, and not to this call alone."""
    return host.last_success > -_NEVER and trial.row > 1 and host.failing > 1


def _given_up(host: Host, error: Error, now: float, park: float) -> Verdict | None:
    if now < host.give_up_at(park):
        return None
    host.down = True
    return Verdict(_ended_by(ErrorKind.HOST_DOWN, error, f"the host has had no success for {park:g} s"))


def _ended_by(kind: ErrorKind, error: Error, why: str) -> Error:
    return Error(kind, f"{error.message}; not tried again: {why}")
