"""`yelpaze run`: a flow over a file, built from options."""

import asyncio
import contextlib
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.compute.worker import peak_rss_mb
from yelpaze.flow.failure import Failure
from yelpaze.flow.flow import Flow
from yelpaze.flow.machine import Machine, engine_for, machine_for
from yelpaze.flow.row import RowRun
from yelpaze.flow.runner import Runner
from yelpaze.io.jsonl import JsonlSink, JsonlSource, StdoutSink
from yelpaze.io.protocol import Ledger, Sink
from yelpaze.model.errors import InputError, StoppedError

_COMMIT_SECONDS = 1.0


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze run` was asked for. `output` is a path or `-`; None is the default name.

    `engine` holds Engine options that win over those of the flow.
    """

    input: str
    output: str | None = None
    concurrency: int = 256
    workers: int = 1
    batch: int = 64
    limit: int | None = None
    engine: dict[str, Any] = {}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went. `latency_ms` is of calls; `peak_rss_mb` of all processes, summed."""

    rows: int
    succeeded: int
    failed: int
    requests: int
    retries: int
    seconds: float
    rows_per_second: float
    peak_rss_mb: float
    latency_ms: dict[str, float]
    failures: dict[str, int]
    output: str
    failures_file: str | None
    interrupted: bool


class Job:
    """One run of a flow over a file; its counters can be read while it runs."""

    def __init__(self, flow: Flow, options: RunOptions) -> None:
        self.flow = flow
        self.options = options
        self.engine = engine_for(flow, concurrency=options.concurrency, overrides=options.engine)
        self.source = JsonlSource(options.input, limit=options.limit)
        self.output, self.failures_path = _paths(options)
        source = Path(flow.where.rpartition(":")[0])
        written = Path(self.output)
        if source.exists() and written.exists() and source.samefile(written):
            raise InputError(f"{self.output}: is the flow itself; give another file with -o")
        self.succeeded = self.failed = 0
        self.failures: Counter[str] = Counter()
        self.interrupted = False
        self.began = time.monotonic()
        self.machine: Machine | None = None
        self._runner: Runner | None = None
        self._write_error: OSError | None = None
        self._ledger = Ledger()

    @property
    def rows(self) -> int:
        """Rows that have ended."""
        return self.succeeded + self.failed

    async def run(self) -> Summary:
        """Run to the end, or until `stop`. Raises InputError, StoppedError."""
        options = self.options
        sink = self._open_sink()
        try:
            async with machine_for(
                self.flow, self.engine, workers=options.workers, batch=options.batch, as_json=True
            ) as machine:
                self.machine = machine
                self.began = time.monotonic()
                await self._drive(machine, sink)
                statistics = machine.engine.statistics(by_host=False)
            seconds = time.monotonic() - self.began
            return self._summary(machine, statistics.requests, statistics.retries, seconds)
        except OSError as error:
            raise StoppedError(f"{self.output}: cannot be written: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):  # whatever happened, what was done is not thrown away
                sink.flush()
            sink.close()

    def stop(self) -> None:
        """Stop soon: rows under way are dropped, results so far are kept."""
        self.interrupted = True
        if self._runner is not None:
            self._runner.stop()

    def _open_sink(self) -> Sink:
        if self.output == "-":
            sink: Sink = StdoutSink(self.failures_path)
        else:
            sink = JsonlSink(Path(self.output), self.failures_path, fresh=True)
        try:
            sink.recover()
        except OSError as error:
            raise InputError(f"{self.output}: cannot be written: {error.strerror}") from None
        return sink

    async def _drive(self, machine: Machine, sink: Sink) -> None:
        def deliver(row: RowRun, value: Any, failure: Failure | None) -> None:
            if failure is None:
                self.succeeded += 1
                sink.write(row.number, value)
            else:
                self.failed += 1
                self.failures[failure.kind] += 1
                sink.fail(failure.record(row.number, _input_of(row)))
            self._ledger.done(row.number)
            self._runner.release()  # type: ignore[union-attr]

        runner = Runner(machine, deliver, concurrency=self.options.concurrency, on_start=self._ledger.start)
        self._runner = runner
        if self.interrupted:
            return
        committing = asyncio.ensure_future(self._commit_now_and_then(sink, runner))
        try:
            await runner.drive(self.source.blocks())
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
        if self._write_error is not None:
            raise self._write_error
        self._settle(sink)

    def _settle(self, sink: Sink) -> None:
        if self.interrupted:
            sink.commit(self._ledger.progress())
        else:
            sink.finish()

    async def _commit_now_and_then(self, sink: Sink, runner: Runner) -> None:
        try:
            while True:
                await asyncio.sleep(_COMMIT_SECONDS)
                sink.commit(self._ledger.progress())
        except OSError as error:
            self._write_error = error
            runner.stop()

    def _summary(self, machine: Machine, requests: int, retries: int, seconds: float) -> Summary:
        own = peak_rss_mb(resource.getrusage(resource.RUSAGE_SELF))
        latency = machine.latency
        return Summary(
            rows=self.rows,
            succeeded=self.succeeded,
            failed=self.failed,
            requests=requests,
            retries=retries,
            seconds=round(seconds, 3),
            rows_per_second=round(self.rows / seconds, 1) if seconds else 0.0,
            peak_rss_mb=round(own + machine.compute.peak_rss_mb(), 1),
            latency_ms={
                f"p{share}": round(latency.quantile(share / 100) * 1000, 2) for share in (50, 95, 99)
            },
            failures=dict(self.failures.most_common()),
            output=self.output,
            failures_file=str(self.failures_path) if self.failed else None,
            interrupted=self.interrupted,
        )


def _input_of(row: RowRun) -> Any:
    """The row as it stood in the input: JSON where it is JSON, else its text."""
    if row.raw is None:
        return row.value
    try:
        return msgspec.json.decode(row.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return row.raw.decode("utf-8", "replace").rstrip("\r")


def _paths(options: RunOptions) -> tuple[str, Path]:
    stem = "stdin" if options.input == "-" else Path(options.input).stem
    if options.output == "-":
        failures = Path(f"{stem}.failures.jsonl")
        if options.input != "-" and failures.exists() and failures.samefile(options.input):
            raise InputError(
                f"{failures}: is the input itself, and would be overwritten; give it another name"
            )
        return "-", failures
    output = Path(options.output or f"{stem}.results.jsonl")
    folder = output.parent
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give a file name with -o")
    if not folder.is_dir():
        raise InputError(f"{output}: the folder {folder} does not exist: create it first")
    failures = output.with_name(f"{output.stem}.failures.jsonl")
    journal = output.with_name(f"{output.name}.journal")
    for path in (output, failures, journal):
        if options.input != "-" and path.exists() and path.samefile(options.input):
            raise InputError(f"{path}: is the input itself, and would be overwritten; give another -o")
    return str(output), failures
