"""Why a row, or an optional step of it, has no value."""

from typing import Any

import msgspec

from yelpaze.compute.protocol import Fault
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.url import shown


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed step, as a value: passed on by optional steps, recorded for failed rows.

    `kind` is an `ErrorKind` for calls, else one of

    - `input`: the row is no JSON, or does not fit the type that the flow asks for;
    - `validation`: an answer is no JSON, or does not fit the type that a step asks for;
    - `exception`: a step raised, with its `traceback`;
    - `misuse`: a step made a request that cannot be sent (a bad URL, …);
    - `timeout.compute`, `crashed`: a CPU step outran its time, or its process died;
    - `result`: the result cannot be written as JSON.
    """

    step: str | None
    kind: str
    message: str
    status: int | None = None
    attempts: tuple[Attempt, ...] = ()
    trace_id: str = ""
    traceback: str = ""

    def record(self, row: int, input_: Any) -> dict[str, Any]:
        """The failure as one line of a failures file."""
        error: dict[str, Any] = {"kind": self.kind, "status": self.status, "message": self.message}
        if self.traceback:
            error["traceback"] = self.traceback
        attempts = [
            {
                "status": attempt.status or None,
                "error": attempt.error and attempt.error.kind,
                "seconds": round(attempt.seconds, 6),
            }
            for attempt in self.attempts
        ]
        return {
            "row": row,
            "input": input_,
            "step": self.step,
            "error": error,
            "attempts": attempts,
            "trace_id": self.trace_id,
        }


def of_outcome(step: str, outcome: Outcome) -> Failure:
    """A call that failed, or whose status the step does not accept."""
    error = outcome.error
    return Failure(
        step=step,
        kind=str(error.kind) if error else "status",
        message=(
            f"{error.message if error else outcome.status} ({outcome.request.method} {shown(outcome.url)})"
        ),
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
    )
