"""What became of each URL: a line of the outcomes file, and what the table at the end shows."""

from collections import Counter

import msgspec

from yelpaze.model.errors import ErrorKind
from yelpaze.model.outcome import Outcome
from yelpaze.model.url import shown

_SHOWN = 20
_FIRST_ERROR = 400


class Reason(msgspec.Struct, frozen=True):
    """Why it failed.

    `kind` is an ErrorKind, or `input` (no request), `output` (no file) or `empty` (no body).
    """

    kind: str
    message: str


class Tried(msgspec.Struct, frozen=True):
    """One attempt; `error` is its kind."""

    status: int | None
    error: str | None
    seconds: float


class Record(msgspec.Struct, frozen=True):
    """One line of the outcomes file. `n` is the URL's number; times are in seconds.

    `url` is where the answer came from; `asked` what was asked for, where that differs; `key` is
    by what `--resume` knows the request again.
    """

    n: int
    url: str
    method: str = "GET"
    ok: bool = False
    status: int | None = None
    bytes: int = 0
    seconds: float = 0.0
    queued: float = 0.0
    first_byte: float = 0.0
    attempts: tuple[Tried, ...] = ()
    error: Reason | None = None
    path: str | None = None
    trace_id: str = ""
    asked: str | None = None
    key: str = ""


def record_of(
    outcome: Outcome, number: int, *, size: int, path: str | None, fail: bool, is_empty: bool, key: str
) -> Record:
    """The record of an answered or failed call.

    With `fail` an error status is a failure; `is_empty` says that there is no body, and that this is one.
    """
    error, reason = outcome.error, None
    if error is not None and (error.kind is not ErrorKind.STATUS or fail):
        reason = Reason(str(error.kind), error.message)
    elif is_empty:
        reason = Reason("empty", "the body is empty")
    return Record(
        number,
        shown(outcome.url),
        outcome.request.method,
        reason is None,
        outcome.status or None,
        size,
        round(outcome.elapsed, 6),
        round(outcome.timings.queued, 6),
        round(outcome.timings.first_byte, 6),
        tuple(
            Tried(
                tried.status or None, str(tried.error.kind) if tried.error else None, round(tried.seconds, 6)
            )
            for tried in outcome.attempts
        ),
        reason,
        path,
        outcome.trace_id,
        shown(outcome.request.url) if outcome.request.url != outcome.url else None,
        key,
    )


class Tally:
    """Counts, and the first few records of each sort, however many there are."""

    def __init__(self) -> None:
        self.done = self.skipped = self.bytes = 0
        self.succeeded = self.error_statuses = self.empty = 0
        self.kinds: Counter[str] = Counter()
        self.failures: list[Record] = []
        self.successes: list[Record] = []

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.done - self.succeeded

    def takes(self, *, ok: bool) -> bool:
        """Whether a record of that sort would be kept to be shown."""
        return len(self.successes if ok else self.failures) < _SHOWN

    def count_success(self, status: int, size: int) -> None:
        """Count one that succeeded, without a record."""
        self.done += 1
        self.succeeded += 1
        self.bytes += size
        self.error_statuses += status >= _FIRST_ERROR
        self.empty += not size

    def add(self, record: Record) -> None:
        """Count one, and keep its record if it is among the first."""
        if record.ok:
            self.count_success(record.status or 0, record.bytes)
        else:
            self.done += 1
            self.bytes += record.bytes
            kind = record.error.kind if record.error else "?"
            self.kinds[f"{kind} {record.status}" if kind == "status" else kind] += 1
        if self.takes(ok=record.ok):
            (self.successes if record.ok else self.failures).append(record)


def described(outcome: Outcome) -> list[str]:
    """The exchange as `-v` shows it: `>` what was sent, `<` what came, `*` what happened."""
    request, lines = outcome.request, [f"* {shown(outcome.url)}"]
    lines += [
        f"* attempt {number}: {tried.error or tried.status} after {tried.seconds:.3f} s"
        for number, tried in enumerate(outcome.attempts, 1)
    ]
    lines.append(f"> {request.method} {shown(request.url)}")
    lines += [f"> {name}: {_hidden(name, value)}" for name, value in request.headers]
    if outcome.status:
        lines.append(f"< HTTP/{outcome.http_version or '1.1'} {outcome.status} from {outcome.remote_ip}")
        lines += [f"< {name}: {_hidden(name, value)}" for name, value in outcome.headers.pairs]
    return lines


def _hidden(name: str, value: str) -> str:
    secret = name.lower() in ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key")
    return "(not shown)" if secret else value
