"""Keeps a run's record in the list of runs up to date while the run works."""

import contextlib
import heapq
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from yelpaze.app.runs import Example, HostRecord, Point, RunRecord, Runs
from yelpaze.flow.failure import Failure
from yelpaze.flow.loading import reference
from yelpaze.flow.row import RowRun
from yelpaze.io.protocol import DeadLetter
from yelpaze.model.errors import FlowError
from yelpaze.model.histogram import Histogram
from yelpaze.model.secrets import SECRETS

if TYPE_CHECKING:
    from yelpaze.app.run import Job

_SAVE_SECONDS = 1.0
_SLOWEST = 10
_EXAMPLES = 3


class Recorder:
    """Adds what this time of the run does to what the record says of the times before."""

    def __init__(self, job: "Job", runs: Runs) -> None:
        self._job = job
        self._runs = runs
        self._lock = -1
        self._before = self.record = _blank(job)
        self._slowest: list[tuple[float, int]] = []
        self._saved = 0.0
        self._is_off = False

    def begin(self) -> None:
        """The run begins, or goes on."""
        job = self._job
        record = self._runs.load(job.run_id) or _blank(job)
        record.run, record.output, record.failures_file = (
            job.run_id,
            _absolute(job.sink.name),
            job.sink.failures,
        )
        record.limit, record.sample = job.options.limit, job.options.sample
        record.state, record.reason = "running", ""
        record.sessions += 1
        self._before = msgspec.json.decode(msgspec.json.encode(record), type=RunRecord)
        self._slowest = [(seconds, row) for seconds, row in record.slowest]
        heapq.heapify(self._slowest)
        self.record = record
        try:
            self._lock = self._runs.lock(job.run_id)
        except OSError as error:
            self._is_off = True
            job.notes(f"the run is not listed in {self._runs.folder}: {error.strerror}")
        self._save()

    def row(self, row: RowRun) -> None:
        """A row has ended."""
        seconds = self._job.engine.clock() - row.began
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, (seconds, row.number))
        elif seconds > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, (seconds, row.number))

    def failure(self, number: int, failure: Failure) -> None:
        """A row has failed."""
        examples = self.record.examples.setdefault(failure.kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(Example(number, failure.step, failure.message))

    def resolved(self, letter: DeadLetter) -> None:
        """A row that had failed was run again."""
        examples = self.record.examples
        left = [example for example in examples.pop(letter.kind, ()) if example.row != letter.row]
        if left:
            examples[letter.kind] = left

    def note(self) -> None:
        """Something was committed: note how the run stands, now and then."""
        now = time.monotonic()
        if now - self._saved >= _SAVE_SECONDS:
            self.record.add_point(self._point())
            self._save()

    def end(self, state: str, reason: str = "") -> None:
        """The run ends, for this time."""
        self.record.state, self.record.reason = state, reason
        self.record.peak_rss_mb = max(self.record.peak_rss_mb, self._job.peak_rss_mb())
        self.record.add_point(self._point())
        self._save()
        if self._lock >= 0:
            os.close(self._lock)

    def _point(self) -> Point:
        job = self._job
        seconds = self._before.seconds + time.monotonic() - job.began
        return Point(round(seconds, 1), job.rows, job.failed)

    def _save(self) -> None:
        if self._is_off:
            return
        self._update()
        self._saved = time.monotonic()
        with contextlib.suppress(OSError):
            self._runs.save(self.record)

    def _update(self) -> None:
        job, before, record = self._job, self._before, self.record
        record.rows, record.succeeded, record.failed = job.rows, job.succeeded, job.failed
        record.kinds = dict(+job.kinds)
        record.slowest = sorted(self._slowest, reverse=True)
        if job.machine is None:
            return
        statistics = job.engine.statistics()
        record.seconds = round(before.seconds + time.monotonic() - job.began, 3)
        record.requests = before.requests + statistics.requests
        record.retries = before.retries + statistics.retries
        for node, histogram in zip(job.machine.graph.nodes, job.machine.latency, strict=True):
            if not node.step.is_compute:
                name = node.step.name
                record.steps[name] = _added(before.steps.get(name, {}), histogram)
        for name, host in statistics.hosts.items():
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


def _blank(job: "Job") -> RunRecord:
    spec = ""
    with contextlib.suppress(FlowError):
        found = reference(job.flow)
        spec = f"{found.path}:{found.variable}"
    return RunRecord(
        run="",
        flow=job.flow.name,
        flow_spec=spec,
        inputs=[_absolute(text) for text in job.options.inputs],
        output="",
        failures_file="",
        folder=str(Path.cwd()),
        started=time.time(),
    )


def _absolute(text: str) -> str:
    """A place that is good from anywhere; a URL without its passwords."""
    if text == "-":
        return text
    if "://" not in text:
        return str(Path(text).resolve())
    parts = urlsplit(text)
    options = [(name, value) for name, value in parse_qsl(parts.query) if not SECRETS.has(name)]
    parts = parts._replace(query=urlencode(options))
    if parts.password is not None:
        parts = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1))
    if parts.scheme == "sqlite" and not parts.netloc and not parts.path.startswith("//"):
        file = quote(str(Path(unquote(parts.path[1:])).resolve()))
        return f"sqlite:///{file}" + (f"?{parts.query}" if parts.query else "")
    return text.partition(":")[0] + parts.geturl().removeprefix(parts.scheme) if parts.netloc else text
