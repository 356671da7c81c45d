"""The state of a delivery after an attempt: a pure decision.

2xx                      succeeded
410 Gone                 failed, and the endpoint is disabled (Standard Webhooks 1.0.0)
anything else            tried again by the schedule: 3xx too, which is never followed, and DNS
no attempt left          failed: a dead letter
later than it expires    failed
"""

from collections.abc import Callable
from http import HTTPStatus

import msgspec

from yelpaze.hooks.kinds.protocol import Kind
from yelpaze.hooks.tables import FAILED, PENDING, SUCCEEDED
from yelpaze.model.outcome import Timings
from yelpaze.policy.schedule import Schedule

# Standard Webhooks 1.0.0: slow down. 503 is the one that Retry-After is for (RFC 9110, section 10.2.3).
_THROTTLED = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_NEVER_SENT = frozenset({"template", "request"})  # it cannot be made of this message, now or later
_MOST_REASON = 500
EXPIRED = "expired"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The end of an attempt. `kind` is an error's, empty if an answer came; `duration` is in milliseconds."""

    status: int = 0
    kind: str = ""
    text: str = ""
    body: bytes = b""
    retry_after: float | None = None
    duration: int = 0
    timings: Timings = Timings()


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The delivery's new state.

    Attributes:
        due: When it is tried again, in milliseconds since 1970, if it is pending.
        kind: Why the attempt failed, for programs: the kind of an error, `status`, `redirect`, `refused`, …
        reason: The same for people; both are empty if it did not fail.
        disable: Why the endpoint is disabled, if it is.
        block: Seconds for which the endpoint asks to be left alone.

    """

    state: int
    step: int = 0
    due: int = 0
    kind: str = ""
    reason: str = ""
    disable: str = ""
    block: float = 0.0


def decide(
    answer: Answer,
    kind: Kind,
    schedule: Schedule,
    *,
    step: int,
    now: int,
    expires: int | None,
    uniform: Callable[[float, float], float],
) -> Decision:
    """Decide after attempt number `step`, counted from 0; `now` is in milliseconds since 1970."""
    failure, reason = failure_of(answer, kind)
    if not failure:
        return Decision(SUCCEEDED, step)
    if answer.status == HTTPStatus.GONE:
        return Decision(FAILED, step, 0, failure, reason, disable="it answered 410 Gone")
    if answer.kind in _NEVER_SENT:
        return Decision(FAILED, step + 1, 0, failure, reason)
    retry_after = answer.retry_after
    if retry_after is None and answer.status in _THROTTLED:
        retry_after = kind.retry_after(answer.body)
    pause = schedule.pause(step + 1, retry_after, uniform)
    block = 0.0
    if answer.status in _THROTTLED and retry_after is not None:
        block = max(0.0, min(retry_after, schedule.retry_after_cap))
    if pause is None:
        return Decision(FAILED, step + 1, 0, failure, reason, block=block)
    due = now + int(pause * 1000)
    if expires is not None and due > expires:
        late = f"{reason}; it expires before the next attempt"
        return Decision(FAILED, step + 1, 0, failure, late, block=block)
    return Decision(PENDING, step + 1, due, failure, reason, block=block)


def failure_of(answer: Answer, kind: Kind) -> tuple[str, str]:
    """Return the reason of a failure: a kind, and `kind: text`; both are empty after a success."""
    status = answer.status
    if answer.kind:
        found, text = answer.kind, answer.text
    elif 200 <= status < 300:  # noqa: PLR2004
        refusal = kind.refusal(status, answer.body)
        if not refusal:
            return "", ""
        found, text = "refused", refusal
    elif 300 <= status < 400:  # noqa: PLR2004
        found, text = "redirect", f"{status}, which is never followed: give the final URL"
    else:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        found, text = "status", f"{status} {phrase}".strip()
    return found, f"{found}: {text}"[:_MOST_REASON]
