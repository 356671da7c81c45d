"""`yelpaze run`: a flow over rows, from a source to a sink, stopped and gone on with at will."""

import asyncio
import contextlib
import resource
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from yelpaze.app.beginning import begin
from yelpaze.app.committer import Committer
from yelpaze.app.identity import identity_of
from yelpaze.app.opening import Opening
from yelpaze.app.options import RunOptions, Summary
from yelpaze.app.places import default_output, open_sink, open_source
from yelpaze.app.recorder import Recorder
from yelpaze.app.runs import Runs, new_id
from yelpaze.flow.failure import Failure
from yelpaze.flow.flow import Flow
from yelpaze.flow.graph import result_type
from yelpaze.flow.letters import letter_of
from yelpaze.flow.machine import Machine, Manner, engine_for, machine_for
from yelpaze.flow.row import RowRun
from yelpaze.flow.runner import Runner
from yelpaze.io.protocol import DeadLetter, Ledger, Misfit, Progress, Row, Sink, Source, Standing
from yelpaze.io.reading import in_thread
from yelpaze.io.sampled import Sampled
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.histogram import Histogram
from yelpaze.process.memory import peak_of, peak_rss_mb

_FEW_ROWS = 100  # before so many have ended, a share of failures says nothing


class Job:
    """One run of a flow; its counters can be read while it runs. Raises InputError, FlowError."""

    def __init__(self, flow: Flow, options: RunOptions, *, runs: Runs | None = None) -> None:
        self.flow = flow
        self.options = options
        self.engine = engine_for(
            flow, concurrency=options.concurrency, overrides={"memory": options.memory} | options.engine
        )
        self.source = self._open_source()
        self.output = options.output or default_output(options.inputs)
        source_file = flow.file
        if source_file.is_file() and Path(self.output).exists() and source_file.samefile(self.output):
            raise InputError(f"{self.output}: is the flow itself; give another file with -o")
        self.sink: Sink = open_sink(self.output, options.inputs, result_type(flow))
        self.succeeded = self.failed = self.done_before = self.started = self.ended = 0
        self.failures: Counter[str] = Counter()  # of this time
        self.kinds: Counter[str] = Counter()  # of the whole run
        self.notes: Callable[[str], None] = lambda _: None
        self.is_stopping = False
        self.interrupted = False
        self.began = time.monotonic()
        self.machine: Machine | None = None
        self.run_id = ""
        self._identity: dict[str, Any] = {}
        self.recorder = Recorder(self, runs or Runs())
        self._runner: Runner | None = None
        self._opening = Opening(options.workers)
        self._ledger = Ledger()
        self._progress = Progress()
        self._rows_read = self._read_from = 0
        self._fault: Exception | None = None
        self._withheld: list[RowRun] = []
        self._order: deque[int] | None = deque() if options.ordered else None
        self._ended: dict[int, tuple[RowRun, Any, Failure | None]] = {}

    def _open_source(self) -> Source:
        source = open_source(self.options.inputs)
        return source if self.options.sample is None else Sampled(source, self.options.sample)

    @property
    def rows(self) -> int:
        """Rows that have ended, of the whole run."""
        return self.succeeded + self.failed

    @property
    def counted(self) -> int:
        """The rows that its progress shows."""
        return self.rows

    @property
    def progress(self) -> tuple[float, float | None]:
        """How far it has come, and how far it has to go, in one unit; None if that is unknown."""
        options = self.options
        if options.limit is not None or options.sample is not None:
            return self.rows, options.limit if options.sample is None else options.sample
        # Of what was read this time, the share of its rows that have ended.
        read = (self.source.position - self._read_from) * self.ended / max(self._rows_read, 1)
        return self._read_from + read, self.source.size

    @property
    def state(self) -> str:
        """What has become of the run, once it has ended in order."""
        return "interrupted" if self.interrupted else "finished"

    # ── the run ─────────────────────────────────────────────────────────────────

    async def run(self) -> Summary:
        """Run to the end, or until `stop`. Raises InputError, StoppedError."""
        try:
            if not await in_thread(self._prepare):
                return self._summary()
            self.recorder.begin()
            return await self._work()
        finally:
            with contextlib.suppress(OSError):
                await in_thread(self.sink.close)
                self.source.close()

    async def _work(self) -> Summary:
        options = self.options
        manner = Manner(
            as_json=True,
            lax=self.source.lax,
            row_retries=options.row_retries,
            row_deadline=options.row_deadline,
            key=self.run_id,
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                opened = machine_for(
                    self.flow, self.engine, workers=options.workers, batch=options.batch, manner=manner
                )
                self.machine = machine = await self._opening.of(stack.enter_async_context(opened), self.notes)
                if machine is not None:
                    self.began = time.monotonic()
                    await self._drive(machine)
        except (InputError, StoppedError) as error:
            self.recorder.end("stopped", str(error))
            raise
        except OSError as error:
            stopped = StoppedError(f"{self.sink.name}: cannot be written: {error.strerror or error}")
            self.recorder.end("stopped", str(stopped))
            raise stopped from None
        except BaseException as error:
            self.recorder.end("stopped", type(error).__name__)
            raise
        self.recorder.end(self.state)
        return self._summary()

    def stop(self) -> bool:
        """Take no more rows and let those under way end, for `grace`; called again, drop them.

        True if calling it again would help.
        """
        first = not self.is_stopping
        self.is_stopping = self.interrupted = True
        if self._opening.give_up():
            return True
        if self._runner is None:
            return False
        if first and self.options.grace > 0:
            self._runner.drain()
            asyncio.get_running_loop().call_later(self.options.grace, self._runner.stop)
        else:
            self._runner.stop()
        return first

    # ── where it begins ─────────────────────────────────────────────────────────

    def _prepare(self) -> bool:
        """Lock the output, and find out where to begin; False if there is nothing left to do."""
        self._identity = identity_of(self.flow, self.source, sample=self.options.sample)
        standing, has_more = begin(self.sink, self._identity, self.options, self.notes)
        if standing is None:
            self.run_id = new_id(self.flow.name, datetime.now(UTC))
            return True
        self._adopt(standing)
        if has_more:
            self.notes(f"going on after {self.done_before:,} rows")
        return has_more

    def _adopt(self, standing: Standing) -> None:
        self.run_id = standing.run
        self.succeeded, self.failed = standing.succeeded, standing.failed
        self.kinds = Counter(standing.kinds)
        self.done_before = self.rows
        self._progress = standing.progress
        self._ledger = Ledger(standing.progress)

    def standing(self, is_finished: bool = False) -> Standing:
        """How the run stands now."""
        return Standing(
            run=self.run_id,
            identity=self._identity,
            progress=self._ledger.progress(),
            is_finished=is_finished,
            limit=self.options.limit,
            succeeded=self.succeeded,
            failed=self.failed,
            kinds=dict(self.kinds),
        )

    # ── rows ────────────────────────────────────────────────────────────────────

    async def _drive(self, machine: Machine) -> None:
        options = self.options
        runner = self._runner = Runner(
            machine,
            self._deliver if self._order is None else self._deliver_in_order,
            concurrency=options.concurrency,
            on_start=self._started,
            answers_of=self._answers_of,
        )
        if self.interrupted:
            return
        committer = self._committer = Committer(
            self.sink,
            self.standing,
            seconds=options.commit_seconds,
            after=self._committed,
            on_error=self._cannot_commit,
        )
        committer.start()
        try:
            await runner.drive(self._blocks())
        finally:
            await committer.stop()
            if not isinstance(self._fault, OSError):
                is_over = not (self.is_stopping or self._fault or runner.stopped)
                await committer.commit(is_finished=is_over, is_last=True)
        if self._fault is not None:
            raise self._fault

    async def _blocks(self) -> AsyncIterator[list[Row]]:
        """The rows that are not done, no more than `limit` of the whole input."""
        progress, limit = self._progress, self.options.limit
        again = frozenset(progress.open)
        left = float("inf") if limit is None else limit - self.done_before - len(again)
        if left <= 0 and not again:
            return
        try:
            async for mark, rows in self.source.blocks(progress.mark):
                self._rows_read += len(rows)
                block = rows
                if rows and rows[0][0] <= progress.through:
                    block = [row for row in rows if row[0] > progress.through or row[0] in again]
                fresh = sum(row[0] > progress.through for row in block)
                if fresh > left:
                    block = block[: len(block) - (fresh - int(left))]
                left -= fresh
                if block:
                    self._ledger.block(mark, first=block[0][0])
                    yield block
                if left <= 0 and not any(number > (rows[-1][0] if rows else 0) for number in again):
                    return
        except (InputError, StoppedError) as error:
            self._fault = error  # rows under way go on to their end, and are committed

    def _started(self, number: int) -> None:
        self.started += 1
        self._ledger.start(number)
        if self._order is not None:
            self._order.append(number)

    def _answers_of(self, number: int) -> Mapping[int, Any] | None:  # noqa: ARG002  a first time
        """What is known of a row's steps from before."""
        return None

    def _deliver_in_order(self, row: RowRun, value: Any, failure: Failure | None) -> None:
        order = self._order
        assert order is not None
        self._ended[row.number] = (row, value, failure)
        while order and order[0] in self._ended:
            self._deliver(*self._ended.pop(order.popleft()))

    def _deliver(self, row: RowRun, value: Any, failure: Failure | None) -> None:
        assert self.machine is not None
        if failure is None:
            try:
                self.sink.write(row.number, value, mark=self._mark_of(row.number), trace_id=row.trace_id)
            except Misfit as error:
                failure = Failure(step=None, kind="result", message=str(error), trace_id=row.trace_id)
        elif self.machine.compute.broken:
            raise StoppedError(self.machine.compute.broken)
        self.ended += 1
        self.recorder.row(row)
        if failure is None:
            self._done(row.number, is_failed=False)
        else:
            self.sink.fail(self._letter_of(row, failure))
            self._done(row.number, is_failed=True)
            self._count(row.number, failure)
            self._check_failures()
        if self._committer.is_full:
            self._withheld.append(row)
        else:
            self._release(row)

    def _release(self, row: RowRun) -> None:
        row.let_go()
        if self._runner is not None:
            self._runner.release()

    def _count(self, number: int, failure: Failure) -> None:
        self.failures[failure.kind] += 1
        self.kinds[failure.kind] += 1
        self.recorder.failure(number, failure)

    def _letter_of(self, row: RowRun, failure: Failure) -> DeadLetter:
        assert self.machine is not None
        return letter_of(
            row,
            failure,
            secrets=self.machine.secrets,
            mark=self._mark_of(row.number),
            wall=time.time(),
            clock=self.engine.clock(),
        )

    def _mark_of(self, number: int) -> Any:
        """Where the source finds a row that is under way."""
        return self._ledger.mark_of(number)

    def _done(self, number: int, *, is_failed: bool) -> None:
        """The sink has taken the row, or its dead letter."""
        self.failed += is_failed
        self.succeeded += not is_failed
        self._ledger.done(number)

    def _check_failures(self) -> None:
        most, failed = self.options.max_failures, self.failures.total()
        if most is None or self._fault is not None:
            return
        is_many = failed > most if isinstance(most, int) else failed > most * self.ended >= most * _FEW_ROWS
        if is_many:
            shown = most if isinstance(most, int) else f"{most * 100:g}%"
            self._fault = StoppedError(
                f"{failed:,} of {self.ended:,} rows failed, more than --max-failures {shown} allows; "
                f"see {self.sink.failures}. The same command goes on; "
                f"`yelpaze retry {self.run_id}` runs the failed rows again"
            )
            if self._runner is not None:
                self._runner.stop()

    # ── commits ─────────────────────────────────────────────────────────────────

    def _committed(self) -> None:
        for number, why in self.sink.rejected():
            self.succeeded -= 1
            self.failed += 1
            self._count(number, Failure(step=None, kind="result", message=why))
        self.recorder.note()
        self._check_failures()
        withheld, self._withheld = self._withheld, []
        for row in withheld:
            self._release(row)

    def _cannot_commit(self, error: Exception) -> None:
        self._fault = error
        if self._runner is not None:
            self._runner.stop()

    # ── the end ─────────────────────────────────────────────────────────────────

    def peak_rss_mb(self) -> float:
        """The most memory of all processes, summed."""
        own = peak_of("self") or peak_rss_mb(resource.getrusage(resource.RUSAGE_SELF))
        theirs = self.machine.compute.peak_rss_mb() if self.machine is not None else 0.0
        return round(own + theirs, 1)

    def _summary(self) -> Summary:
        seconds = time.monotonic() - self.began
        machine, latency = self.machine, Histogram()
        for histogram in machine.latency if machine is not None else ():
            latency = latency.merged(histogram)
        statistics = self.engine.statistics(by_host=False)
        return Summary(
            run=self.run_id,
            rows=self.rows,
            succeeded=self.succeeded,
            failed=self.failed,
            ended=self.ended,
            requests=statistics.requests,
            retries=statistics.retries,
            seconds=round(seconds, 3),
            rows_per_second=round(self.ended / seconds, 1) if seconds else 0.0,
            peak_rss_mb=self.peak_rss_mb(),
            latency_ms={
                f"p{share}": round(latency.quantile(share / 100) * 1000, 2) for share in (50, 95, 99)
            },
            failures=dict(self.failures.most_common()),
            output=self.sink.name,
            failures_file=self.sink.failures if self.failed else None,
            interrupted=self.interrupted,
            already_finished=machine is None,
        )
