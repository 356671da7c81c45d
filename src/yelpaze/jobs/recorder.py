"""Keeps a run's record in the list of runs up to date while the run works."""

import contextlib
import heapq
import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from yelpaze.flow.failure import Failure
from yelpaze.flow.handler import reference
from yelpaze.flow.plan import Plan
from yelpaze.io.backends import absolute
from yelpaze.io.protocol import DeadLetter, Sink
from yelpaze.jobs.options import RunOptions
from yelpaze.jobs.runs import Example, HostRecord, Point, RunRecord, Runs
from yelpaze.model.errors import FlowError
from yelpaze.model.histogram import Histogram
from yelpaze.model.secrets import SECRETS
from yelpaze.model.statistics import HostStatistics

_SAVE_SECONDS = 1.0
_SLOWEST = 10
_EXAMPLES = 3


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """What a session has done until now; `latency` by step, `hosts` by name.

    `succeeded`, `failed` and `kinds` count the whole run, the rest this session.
    """

    succeeded: int
    failed: int
    kinds: dict[str, int]
    seconds: float
    requests: int
    retries: int
    latency: Mapping[str, Histogram]
    hosts: Mapping[str, HostStatistics]
    peak_rss_mb: float


class Recorder:
    """Adds this session of a run to the record of the earlier ones. `view` gives the current counts."""

    def __init__(self, runs: Runs, record: RunRecord, view: Callable[[], RunView]) -> None:
        self._runs = runs
        self._view = view
        self._lock = -1
        self._before = self._record = record
        self._slowest: list[tuple[float, int]] = []
        self._saved = 0.0
        self._is_off = False

    def begin(self, run: str, sink: Sink, note: Callable[[str], None]) -> None:
        """The session begins."""
        new = self._record
        record = self._runs.load(run) or new
        record.run, record.output, record.failures_file = (
            run, _absolute(sink.name), _absolute(sink.failures),
        )  # fmt: skip
        record.limit, record.sample = new.limit, new.sample
        record.state, record.reason = "running", ""
        record.sessions += 1
        self._before = deepcopy(record)
        self._slowest = [(seconds, row) for seconds, row in record.slowest]
        heapq.heapify(self._slowest)
        self._record = record
        try:
            self._lock = self._runs.lock(run)
        except OSError as error:
            self._is_off = True
            note(f"the run is not listed in {self._runs.folder}: {error.strerror}")
        self._save()

    def row(self, number: int, seconds: float) -> None:
        """A row has ended after that time."""
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, (seconds, number))
        elif seconds > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, (seconds, number))

    def failure(self, number: int, failure: Failure) -> None:
        """A row has failed."""
        examples = self._record.examples.setdefault(failure.kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(Example(number, failure.step, failure.message))

    def resolved(self, letter: DeadLetter, *, is_repaired: bool) -> None:
        """A row that had failed was run again, and has a result now if it `is_repaired`."""
        self._record.repaired += is_repaired
        examples = self._record.examples
        left = [example for example in examples.pop(letter.kind, ()) if example.row != letter.row]
        if left:
            examples[letter.kind] = left

    def save_if_due(self) -> None:
        """Something was committed: save the record, at most once a second."""
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self._save(adds_point=True)

    def end(self, state: str, reason: str = "") -> None:
        """The session ends."""
        self._record.state, self._record.reason = state, reason
        self._record.peak_rss_mb = max(self._record.peak_rss_mb, self._view().peak_rss_mb)
        self._save(adds_point=True)
        if self._lock >= 0:
            os.close(self._lock)

    def _save(self, *, adds_point: bool = False) -> None:
        view = self._view()
        if adds_point:
            seconds = round(self._before.seconds + view.seconds, 1)
            self._record.add_point(Point(seconds, view.succeeded + view.failed, view.failed))
        if self._is_off:
            return
        self._update(view)
        self._saved = time.monotonic()
        with contextlib.suppress(OSError):
            self._runs.save(self._record)

    def _update(self, view: RunView) -> None:
        before, record = self._before, self._record
        record.rows = view.succeeded + view.failed
        record.succeeded, record.failed, record.kinds = view.succeeded, view.failed, view.kinds
        record.slowest = sorted(self._slowest, reverse=True)
        record.seconds = round(before.seconds + view.seconds, 3)
        record.requests = before.requests + view.requests
        record.retries = before.retries + view.retries
        for name, histogram in view.latency.items():
            record.steps[name] = _added(before.steps.get(name, {}), histogram)
        for name, host in view.hosts.items():
            old = before.hosts.get(name, HostRecord())
            statuses = {
                status: old.statuses.get(status, 0) + host.statuses.get(status, 0)
                for status in {**old.statuses, **host.statuses}
            }
            record.hosts[name] = HostRecord(
                requests=old.requests + host.requests,
                retries=old.retries + host.retries,
                failures=old.failures + host.failures,
                statuses=statuses,
                latency=_added(old.latency, host.latency),
            )


def _added(before: dict[str, float], histogram: Histogram) -> dict[str, float]:
    return Histogram.of(before).merged(histogram).counts()


def new_record(plan: Plan, options: RunOptions) -> RunRecord:
    """The record of a run that has not begun."""
    spec = ""
    with contextlib.suppress(FlowError):
        found = reference(plan)
        spec = f"{found.path}:{found.variable}"
    return RunRecord(
        run="",
        flow=plan.name,
        flow_spec=spec,
        inputs=[_absolute(text) for text in options.inputs],
        output="",
        failures_file="",
        folder=options.folder or str(Path.cwd()),
        limit=options.limit,
        sample=options.sample,
        started=time.time(),
    )


def _absolute(text: str) -> str:
    """A place that is good from anywhere; a URL without its passwords."""
    if "://" not in text:
        return absolute(text)
    parts = urlsplit(text)
    options = [(name, value) for name, value in parse_qsl(parts.query) if not SECRETS.has(name)]
    parts = parts._replace(query=urlencode(options))
    if parts.password is not None:
        parts = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1))
    if not parts.netloc:
        return absolute(f"{parts.scheme}://{parts.path}" + (f"?{parts.query}" if parts.query else ""))
    return text.partition(":")[0] + parts.geturl().removeprefix(parts.scheme)
