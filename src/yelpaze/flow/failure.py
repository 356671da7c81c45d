"""Why a row, or an optional step of it, has no value."""

import msgspec

from yelpaze.compute.protocol import Fault
from yelpaze.model.errors import ErrorKind
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.secrets import SECRETS, Secrets


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed step, as a value: passed on by optional steps, recorded for failed rows.

    `kind` is an `ErrorKind` for calls, else one of

    - `input`: the row is no JSON, or does not fit the type that the flow asks for;
    - `validation`: an answer is no JSON, or does not fit the type that a step asks for;
    - `exception`: a step raised, with its `traceback`;
    - `misuse`: a step made a request that cannot be sent (a bad URL, …);
    - `timeout.compute`, `crashed`: a CPU step outran its time, or its process died;
    - `result`: the result cannot be written as JSON, or a value cannot travel between machines.

    `answer_of`: with `validation`, the step whose answer does not fit.
    """

    step: str | None
    kind: str
    message: str
    status: int | None = None
    attempts: tuple[Attempt, ...] = ()
    trace_id: str = ""
    traceback: str = ""
    answer_of: str | None = None


def of_outcome(step: str, outcome: Outcome, secrets: Secrets = SECRETS) -> Failure:
    """A call that failed, or whose status the step does not accept."""
    error, url = outcome.error, secrets.url(outcome.url)
    return Failure(
        step=step,
        kind=str(error.kind) if error else "status",
        message=(f"{error.message if error else outcome.status} ({outcome.request.method} {url})"),
        status=outcome.status or None,
        attempts=outcome.attempts,
        trace_id=outcome.trace_id,
    )


def of_fault(step: str | None, fault: Fault, trace_id: str) -> Failure:
    """A step's own code failed."""
    return Failure(
        step=step,
        kind=fault.kind,
        message=fault.message,
        trace_id=trace_id,
        traceback=fault.traceback,
        answer_of=fault.source or None,
    )


# All kinds that a failed row can have.
KINDS = frozenset(
    {
        *ErrorKind,
        "input",
        "validation",
        "exception",
        "misuse",
        "timeout.compute",
        "crashed",
        "result",
    }
)
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT = frozenset(
    {
        ErrorKind.DNS,
        ErrorKind.CONNECT,
        ErrorKind.TLS,
        ErrorKind.CONNECT_TIMEOUT,
        ErrorKind.FIRST_BYTE_TIMEOUT,
        ErrorKind.ATTEMPT_TIMEOUT,
        ErrorKind.DEADLINE_TIMEOUT,
        ErrorKind.PROTOCOL,
        ErrorKind.REFUSED_STREAM,
        ErrorKind.OUT_OF_FILES,
        ErrorKind.BREAKER_OPEN,
        ErrorKind.BUDGET_SPENT,
        ErrorKind.HOST_DOWN,
        "timeout.compute",
        "crashed",
    }
)


def is_transient(failure: Failure) -> bool:
    """Whether another time may help: the network, a busy server, a process that died."""
    return failure.kind in _TRANSIENT or failure.status in _TRANSIENT_STATUSES
