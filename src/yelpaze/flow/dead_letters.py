"""Dead letters: what is kept of a row that failed, and how it is run again from that.

The answers of the steps that succeeded are kept, so that only the failed branches are called
again. What holds a secret is not written down: a row's input is then read from the source
again, and a step whose answer has one is called again.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from yelpaze.flow.execution import SKIPPED, RowExecution
from yelpaze.flow.failure import Failure
from yelpaze.flow.graph import Graph, Node
from yelpaze.io.protocol import BadRow, DeadLetter
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Outcome, Timings
from yelpaze.model.request import get
from yelpaze.model.secrets import HIDDEN, Secrets

_FAILED = 400
_LONGEST = 1 << 20  # a longer answer is not kept: its step is called again


def letter_of(
    row: RowExecution, failure: Failure, *, secrets: Secrets, cursor: Any, wall: float, clock: float
) -> DeadLetter:
    """The dead letter of a row; `wall` (UNIX time) and `clock` (the engine's) are now."""
    shown, is_partial, is_text = _input_of(row, secrets)
    error: dict[str, Any] = {"kind": failure.kind, "status": failure.status, "message": failure.message}
    if failure.traceback:
        error["traceback"] = failure.traceback
    attempts = [
        {
            "at": _time(wall - clock + attempt.began),
            "status": attempt.status or None,
            "error": attempt.error and attempt.error.kind,
            "message": attempt.error and attempt.error.message,
            "seconds": round(attempt.seconds, 6),
        }
        for attempt in failure.attempts
    ]
    return DeadLetter(
        row=row.number,
        input=shown,
        step=failure.step,
        error=error,
        attempts=attempts,
        trace_id=failure.trace_id,
        at=_time(wall),
        answers=_answers_of(row, failure, secrets),
        cursor=cursor,
        is_partial=is_partial,
        is_text=is_text,
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _input_of(row: RowExecution, secrets: Secrets) -> tuple[Any, bool, bool]:
    """The row as it stood in the input; whether that is not all of it; whether it is but a text."""
    if isinstance(row.value, BadRow):
        return secrets.redacted(row.value.text), False, True
    if row.raw is None:
        shown = secrets.redacted(row.value)
        return shown, shown != row.value or not _is_json(row.value), False
    try:
        value = msgspec.json.decode(row.raw)
        shown = secrets.redacted(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if secrets.within(row.raw):
            return HIDDEN, True, True
        return row.raw.decode("utf-8", "replace").rstrip("\r"), False, True
    return (msgspec.Raw(row.raw.strip()), False, False) if shown == value else (shown, True, False)


def _is_json(value: Any) -> bool:
    """Whether the value comes back from JSON as it was (a time would come back as a text)."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


# ── answers ─────────────────────────────────────────────────────────────────────


class _Lost(Exception):  # noqa: N818  a reason, not an error
    """An answer that can't be kept."""


def _answers_of(row: RowExecution, failure: Failure, secrets: Secrets) -> dict[str, Any]:
    answers = {}
    graph = row.graph
    for number, value in row.answers().items():
        name = graph.nodes[number].step.name
        if failure.answer_of == name:
            continue  # it would not fit again: its step is called once more
        is_whole = any(
            parameter.source == number and (parameter.want.whole or parameter.want.item_whole)
            for node in graph.nodes
            for parameter in node.parameters
        )
        try:
            answers[name] = _kept(value, secrets, is_whole=is_whole)
        except _Lost:
            continue
    return answers


def _kept(value: Any, secrets: Secrets, *, is_whole: bool) -> Any:
    if value is SKIPPED:
        return {"skipped": True}
    if isinstance(value, list):
        return {"list": [_kept(item, secrets, is_whole=is_whole) for item in value]}
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise _Lost
        return {"dict": {name: _kept(item, secrets, is_whole=is_whole) for name, item in value.items()}}
    if not isinstance(value, Outcome) or len(value.body) > _LONGEST or secrets.within(value.body):
        raise _Lost
    headers = [(name, HIDDEN if secrets.has(name) else text) for name, text in value.headers.pairs]
    if is_whole and any(text == HIDDEN for _, text in headers):
        raise _Lost
    kept = {"status": value.status, "url": secrets.url(value.url), "headers": headers}
    try:
        return kept | {"body": value.body.decode()}
    except UnicodeDecodeError:
        return kept | {"body_base64": base64.b64encode(value.body).decode()}


def answers_to(graph: Graph, kept: Mapping[str, Any], *, trace_id: str) -> dict[int, Any]:
    """What a dead letter keeps, as the values of the graph's steps; what fits no step is left out."""
    by_name: dict[str, Node] = {node.step.name: node for node in graph.nodes}
    return {
        by_name[name].number: _value_of(answer, trace_id)
        for name, answer in kept.items()
        if name in by_name and not by_name[name].step.is_compute
    }


def _value_of(kept: Mapping[str, Any], trace_id: str) -> Any:
    if "skipped" in kept:
        return SKIPPED
    if "list" in kept:
        return [_value_of(item, trace_id) for item in kept["list"]]
    if "dict" in kept:
        return {name: _value_of(item, trace_id) for name, item in kept["dict"].items()}
    body = base64.b64decode(kept["body_base64"]) if "body_base64" in kept else kept["body"].encode()
    block = "".join(f"{name}: {value}\r\n" for name, value in kept["headers"])
    headers = Headers(f"HTTP/1.1 {kept['status']}\r\n{block}\r\n".encode("latin-1", "replace"))
    url, status = kept["url"], kept["status"]
    error = Error(ErrorKind.STATUS, f"{status}") if status >= _FAILED else None
    return Outcome(get(url), status, headers, body, error, (), Timings(), 0.0, url, "", "", trace_id)
