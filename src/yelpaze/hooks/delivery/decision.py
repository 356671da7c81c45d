"""What becomes of a delivery after an attempt: a pure decision.

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


class Answer(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended. `kind` is an error's, empty if an answer came; `duration` is in milliseconds."""

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
        reason: Why the attempt failed; empty if it did not.
        disable: Why the endpoint is disabled, if it is.
        block: Seconds for which the endpoint asks to be left alone.

    """

    state: int
    step: int = 0
    due: int = 0
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
    reason = reason_of(answer, kind)
    if not reason:
        return Decision(SUCCEEDED, step)
    if answer.status == HTTPStatus.GONE:
        return Decision(FAILED, step, reason=reason, disable="it answered 410 Gone")
    if answer.kind in _NEVER_SENT:
        return Decision(FAILED, step + 1, reason=reason)
    retry_after = answer.retry_after
    if retry_after is None and answer.status in _THROTTLED:
        retry_after = kind.retry_after(answer.body)
    pause = schedule.pause(step + 1, retry_after, uniform)
    block = 0.0
    if answer.status in _THROTTLED and retry_after is not None:
        block = max(0.0, min(retry_after, schedule.retry_after_cap))
    if pause is None:
        return Decision(FAILED, step + 1, reason=reason, block=block)
    due = now + int(pause * 1000)
    if expires is not None and due > expires:
        return Decision(FAILED, step + 1, reason=f"{reason}; it expires before the next attempt", block=block)
    return Decision(PENDING, step + 1, due, reason, block=block)


def reason_of(answer: Answer, kind: Kind) -> str:
    """Why the attempt failed: `kind: text`; empty if it succeeded."""
    if answer.kind:
        return f"{answer.kind}: {answer.text}"[:_MOST_REASON]
    if 200 <= answer.status < 300:  # noqa: PLR2004
        refusal = kind.refusal(answer.status, answer.body)
        return f"refused: {refusal}"[:_MOST_REASON] if refusal else ""
    if 300 <= answer.status < 400:  # noqa: PLR2004
        return f"redirect: {answer.status}, which is never followed: give the final URL"
    phrase = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else ""
    return f"status: {answer.status} {phrase}".strip()
