"""One session of a run: rows from a feed through a flow into a sink, stopped and continued at will."""

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from yelpaze.flow.context import ExecutionOptions, RunContext, engine_for, open_context
from yelpaze.flow.dead_letters import letter_of
from yelpaze.flow.execution import RowExecution
from yelpaze.flow.failure import Failure
from yelpaze.flow.flow import Flow
from yelpaze.flow.graph import result_type
from yelpaze.flow.runner import RowConsumer, Runner
from yelpaze.io.backends import default_output, open_sink
from yelpaze.io.protocol import Checkpoint, DeadLetter, Row, SchemaMismatch, Sink
from yelpaze.io.threads import in_thread
from yelpaze.jobs.committer import Committer
from yelpaze.jobs.feed import RowFeed
from yelpaze.jobs.input_feed import InputFeed
from yelpaze.jobs.opening import Opening
from yelpaze.jobs.options import RunOptions, Summary
from yelpaze.jobs.ordered import InOrder
from yelpaze.jobs.progress import JobView, Progress, say
from yelpaze.jobs.recorder import Recorder, RunView, new_record
from yelpaze.jobs.retry_feed import RetryFeed, Selection
from yelpaze.jobs.runs import Runs
from yelpaze.jobs.tally import Tally
from yelpaze.model.closing import closing
from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.model.histogram import Histogram
from yelpaze.process.memory import peak_of, peak_rss_mb

_FEW_ROWS = 100  # before so many have ended, a share of failures says nothing


def run_job(flow: Flow, options: RunOptions, *, runs: Runs | None = None) -> "Session":
    """A run over its input. Raises InputError, FlowError."""
    return Session(flow, options, InputFeed(flow.plan, options), runs=runs)


def retry_job(
    flow: Flow,
    options: RunOptions,
    selection: Selection,
    *,
    all_steps: bool = False,
    runs: Runs | None = None,
) -> "Session":
    """The failed rows of a run once more, into the same output. Raises InputError, FlowError."""
    feed = RetryFeed(flow.plan, options, selection, all_steps=all_steps)
    return Session(flow, options, feed, runs=runs)


class Session:
    """A session of a run; its counters can be read while it works. Raises InputError, FlowError."""

    def __init__(self, flow: Flow, options: RunOptions, feed: RowFeed, *, runs: Runs | None = None) -> None:
        self._has_run = False
        self.plan = plan = flow.plan
        self.options = options
        self.feed = feed
        self.engine = engine_for(
            plan, concurrency=options.concurrency, overrides={"memory": options.memory, **options.engine}
        )
        self.output = options.output or default_output(options.inputs)
        if plan.file.is_file() and Path(self.output).exists() and plan.file.samefile(self.output):
            raise InputError(f"{self.output}: is the flow itself; give another file with -o")
        self.sink: Sink = open_sink(
            self.output, options.inputs, result_type(plan.graph()), stdout=options.stdout
        )
        self.tally = Tally()
        self.notes: Callable[[str], None] = lambda _: None
        self.is_stopping = False
        self.interrupted = False
        self.began = time.monotonic()
        self.context: RunContext | None = None
        self._recorder = Recorder(runs or Runs(), new_record(plan, options), self._view)
        self._runner: Runner | None = None
        self._opening = Opening(options.workers)
        self._fault: Exception | None = None
        self._withheld: list[RowExecution] = []

    # ── the session ─────────────────────────────────────────────────────────────

    async def run(self, *, progress: bool = False) -> Summary:
        """Run to the end, or until `stop`. Raises InputError, StoppedError.

        `progress`: show on standard error how it goes: a bar on a terminal, else a line every five seconds.
        """
        if self._has_run:
            raise MisuseError("a job runs once: make another one to go on")
        self._has_run = True
        if not progress:
            return await self._run()
        self.notes = lambda text: say(f"yelpaze: {text}")
        async with Progress(JobView(self)):
            return await self._run()

    async def _run(self) -> Summary:
        feed = self.feed
        try:
            if not await in_thread(lambda: feed.begin(self.sink, self.tally, self.notes)):
                return self._summary()
            self._recorder.begin(feed.run_id, self.sink, self.notes)
            in_order = False
            try:
                await self._work()
                in_order = True
            finally:
                await feed.close(in_order=in_order)
            return self._summary()
        finally:
            with contextlib.suppress(OSError):
                await in_thread(self.sink.close)
            with contextlib.suppress(OSError):
                feed.source.close()

    async def _work(self) -> None:
        """Do it, and record how it ended."""
        try:
            await self._open_and_drive()
        except (InputError, StoppedError) as error:
            self._recorder.end("stopped", str(error))
            raise
        except OSError as error:
            stopped = StoppedError(f"{self.sink.name}: cannot be written: {error.strerror or error}")
            self._recorder.end("stopped", str(stopped))
            raise stopped from None
        except BaseException as error:
            self._recorder.end("stopped", type(error).__name__)
            raise
        self._recorder.end(self.feed.state(interrupted=self.interrupted))

    async def _open_and_drive(self) -> None:
        options = self.options
        execution = ExecutionOptions(
            as_json=True,
            coerce=self.feed.source.coerce,
            row_retries=options.row_retries,
            row_deadline=options.row_deadline,
            key=self.feed.run_id,
        )
        async with contextlib.AsyncExitStack() as stack:
            opening = stack.enter_async_context(
                open_context(
                    self.plan, self.engine, workers=options.workers, batch=options.batch, options=execution
                )
            )
            self.context = context = await self._opening.of(opening, self.notes)
            if context is not None:
                self.began = time.monotonic()
                await self._drive(context)

    def stop(self) -> bool:
        """Start no more rows and let those under way end, for `grace`; called again, drop them.

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

    # ── rows ────────────────────────────────────────────────────────────────────

    async def _drive(self, context: RunContext) -> None:
        options = self.options
        consumer: RowConsumer = InOrder(self) if options.ordered else self
        runner = self._runner = Runner(context, consumer, concurrency=options.concurrency)
        if self.interrupted:
            return
        committer = self._committer = Committer(
            self.sink,
            self._checkpoint,
            seconds=options.commit_seconds,
            after=self._committed,
            on_error=self._cannot_commit,
        )
        committer.start()
        has_ended = False
        try:
            await runner.drive(self._blocks())
            has_ended = True
        finally:
            await committer.stop()
            if not isinstance(self._fault, OSError):
                is_over = has_ended and not (self.is_stopping or self._fault or runner.stopped)
                await committer.commit(is_finished=is_over, is_last=True)
        if self._fault is not None:
            raise self._fault

    async def _blocks(self) -> AsyncIterator[list[Row]]:
        try:
            async with closing(self.feed.blocks()) as opened:
                async for block in opened:
                    yield block
        except (InputError, StoppedError) as error:
            self._fault = error  # rows under way go on to their end, and are committed

    def begin(self, number: int) -> Mapping[int, Any] | None:
        self.tally.started += 1
        return self.feed.start(number)

    def end(self, row: RowExecution, value: Any, failure: Failure | None) -> None:
        assert self.context is not None
        number, feed = row.number, self.feed
        if failure is None:
            try:
                self.sink.write(number, value, cursor=feed.cursor_of(number), trace_id=row.trace_id)
            except SchemaMismatch as error:
                failure = Failure(step=None, kind="result", message=str(error), trace_id=row.trace_id)
        elif self.context.compute.broken:
            raise StoppedError(self.context.compute.broken)
        self.tally.ended += 1
        self._recorder.row(number, self.engine.clock() - row.began)
        if failure is not None:
            self.sink.fail(self._letter_of(row, failure))
        resolved = feed.done(number, is_failed=failure is not None)
        if resolved is not None:
            self._recorder.resolved(resolved, is_repaired=failure is None)
        if failure is not None:
            self._count(number, failure)
            self._check_failures()
        if self._committer.is_full:
            self._withheld.append(row)
        else:
            self._release(row)

    def _release(self, row: RowExecution) -> None:
        assert self._runner is not None
        self._runner.release(row)

    def _count(self, number: int, failure: Failure) -> None:
        self.tally.add_failure(failure.kind, failure.status)
        self._recorder.failure(number, failure)

    def _letter_of(self, row: RowExecution, failure: Failure) -> DeadLetter:
        assert self.context is not None
        return letter_of(
            row,
            failure,
            secrets=self.context.secrets,
            cursor=self.feed.cursor_of(row.number),
            wall=time.time(),
            clock=self.engine.clock(),
        )

    def _check_failures(self) -> None:
        most, failed, ended = self.options.max_failures, self.tally.failures.total(), self.tally.ended
        if most is None or self._fault is not None:
            return
        is_many = failed > most if isinstance(most, int) else failed > most * ended >= most * _FEW_ROWS
        if is_many:
            shown = most if isinstance(most, int) else f"{most * 100:g}%"
            self._fail(
                StoppedError(
                    f"{failed:,} of {ended:,} rows failed, more than --max-failures {shown} allows; "
                    f"see {self.sink.failures}. The same command goes on; "
                    f"`yelpaze retry {self.feed.run_id}` runs the failed rows again"
                )
            )

    # ── commits ─────────────────────────────────────────────────────────────────

    def _checkpoint(self, is_finished: bool) -> Checkpoint:
        return self.feed.checkpoint(is_finished=is_finished)

    def _committed(self) -> None:
        for number, why in self.sink.rejected():
            self.tally.succeeded -= 1
            self.tally.failed += 1
            self._count(number, Failure(step=None, kind="result", message=why))
        self._recorder.save_if_due()
        self._check_failures()
        withheld, self._withheld = self._withheld, []
        for row in withheld:
            self._release(row)

    def _cannot_commit(self, error: Exception) -> None:
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._fault = error
        if self._runner is not None:
            self._runner.stop()

    # ── reports ─────────────────────────────────────────────────────────────────

    def peak_rss_mb(self) -> float:
        """The most memory of all processes, summed."""
        own = peak_of("self") or peak_rss_mb(resource.getrusage(resource.RUSAGE_SELF))
        theirs = self.context.compute.peak_rss_mb() if self.context is not None else 0.0
        return round(own + theirs, 1)

    def _view(self) -> RunView:
        context, tally, statistics = self.context, self.tally, self.engine.statistics()
        latency = {}
        if context is not None:
            steps = zip(context.graph.nodes, context.latency, strict=True)
            latency = {node.step.name: found for node, found in steps if not node.step.is_compute}
        return RunView(
            succeeded=tally.succeeded,
            failed=tally.failed,
            kinds=dict(+tally.kinds),
            seconds=time.monotonic() - self.began if context is not None else 0.0,
            requests=statistics.requests,
            retries=statistics.retries,
            latency=latency,
            hosts=statistics.hosts,
            peak_rss_mb=self.peak_rss_mb(),
        )

    def _summary(self) -> Summary:
        seconds = time.monotonic() - self.began
        context, tally, latency = self.context, self.tally, Histogram()
        for histogram in context.latency if context is not None else ():
            latency = latency.merged(histogram)
        statistics = self.engine.statistics(by_host=False)
        return Summary(
            run=self.feed.run_id,
            rows=tally.rows,
            succeeded=tally.succeeded,
            failed=tally.failed,
            ended=tally.ended,
            requests=statistics.requests,
            retries=statistics.retries,
            seconds=round(seconds, 3),
            rows_per_second=round(tally.ended / seconds, 1) if seconds else 0.0,
            peak_rss_mb=self.peak_rss_mb(),
            latency_ms={
                f"p{share}": round(latency.quantile(share / 100) * 1000, 2) for share in (50, 95, 99)
            },
            failures=dict(tally.failures.most_common()),
            reasons=dict(tally.reasons.most_common()),
            output=self.sink.name,
            failures_file=self.sink.failures if tally.failed else None,
            interrupted=self.interrupted,
            already_finished=context is None,
        )
