"""`yelpaze run FLOW INPUT`."""

import asyncio
import sys
from contextlib import ExitStack
from typing import Any

import click
import msgspec

from yelpaze.app.observing import observing_options, served_metrics
from yelpaze.app.run import Job, RunOptions, Summary
from yelpaze.app.stopping import until_stopped
from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import Seconds, engine_options, explain, host_policies_of, policy_options
from yelpaze.cli.progress import Progress, troubles
from yelpaze.flow.loading import find
from yelpaze.flow.machine import engine_for
from yelpaze.model.cores import usable_cores


@click.command("run")
@click.argument("flow")
@click.argument("input", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Results; `-` is stdout. [default: INPUT's stem + .results.jsonl]",
)
@click.option(
    "--concurrency",
    metavar="ROWS",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Rows under way at once.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(0),
    default=None,
    help="Processes for CPU steps; 0 runs them in this one. [default: one a core]",
)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Rows sent to a worker at once, at most.",
)
@click.option("--limit", metavar="N", type=click.IntRange(0), help="Stop after the first N rows.")
@click.option("--rate", metavar="N/s", help="Calls to one host in time: 100/s, 30/m, 1000/h.")
@click.option("--retries", metavar="N", type=click.IntRange(0), help="Attempts after the first. [default: 2]")
@click.option("--timeout", metavar="SECONDS", type=Seconds(), help="For each attempt. [default: 60]")
@click.option("--hedge", is_flag=True, help="Ask again when an answer is slow, +5 % requests at most.")
@click.option("--dedupe", is_flag=True, help="Identical GETs under way share one call.")
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(
    flow: str,
    input: str,  # noqa: A002
    output: str | None,
    concurrency: int,
    workers: int | None,
    batch: int,
    limit: int | None,
    rate: str | None,
    retries: int | None,
    timeout: float | None,
    explain_only: bool,
    metrics: str | None,
    log: str | None,
    as_json: bool,
    quiet: bool,
    **policies: Any,
) -> int:
    """Run a flow over a file of rows.

    FLOW is path.py or path.py:name; INPUT a JSON Lines file, or - for stdin. Each result is
    a line {"row": number, "result": …}; failed rows go to a .failures.jsonl file beside it.
    """
    if as_json and output == "-":
        raise click.UsageError("--json and `-o -` both want stdout: give the results a file")
    texts = policies.pop("host_policies")
    engine = engine_options(host_rate=rate, retries=retries, timeout=timeout, **policies)
    if texts:
        engine["hosts"] = host_policies_of(texts, engine)
    options = RunOptions(
        input=input,
        output=output,
        concurrency=concurrency,
        workers=usable_cores() if workers is None else workers,
        batch=batch,
        limit=limit,
        engine=engine,
    )
    stdout = sys.stdout
    sys.stdout = sys.stderr  # what a flow prints must not end up among the results
    try:
        found = find(flow)
        if explain_only:
            click.echo(
                "\n".join(explain(engine_for(found, concurrency=concurrency, overrides=options.engine))),
                file=stdout,
            )
            return Exit.OK
        with ExitStack() as stack:
            watched = observing_options(log, stack)
            job = Job(found, msgspec.structs.replace(options, engine=options.engine | watched))
            stack.enter_context(served_metrics(job.engine, metrics))
            summary = asyncio.run(_run(job, quiet=quiet))
    finally:
        sys.stdout = stdout
    if as_json:
        click.echo(msgspec.json.encode(summary))
    if not quiet:
        for pattern in job.engine.policies.unmatched:
            click.echo(
                f"yelpaze: warning: the host pattern {pattern!r} matched no host that was called", err=True
            )
        report(summary)
    return _exit_code(summary)


async def _run(job: Job, *, quiet: bool) -> Summary:
    if quiet:
        return await until_stopped(job, job.run())
    async with Progress(_View(job)):
        return await until_stopped(job, job.run())


def _exit_code(summary: Summary) -> Exit:
    if summary.interrupted:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if summary.failed else Exit.OK


class _View:
    """A run as the progress bar sees it."""

    unit = "rows"

    def __init__(self, job: Job) -> None:
        self._job = job
        self.title = job.flow.name

    @property
    def total(self) -> float | None:
        return None if self._job.options.limit is not None else self._job.source.size

    @property
    def position(self) -> float:
        """How far into the input the rows that have ended reach: of what was read, their share."""
        return self._job.source.position * self.done / max(self._job.source.rows, 1)

    @property
    def done(self) -> int:
        return self._job.rows

    @property
    def requests(self) -> int:
        return self._job.engine.statistics(by_host=False).attempts

    def notes(self) -> list[str]:
        failures = [f"{kind}: {count:,}" for kind, count in self._job.failures.most_common(3)]
        return failures + troubles(self._job.engine.troubles())


def report(summary: Summary) -> None:
    """The summary, for people."""
    latency = summary.latency_ms
    state = "interrupted" if summary.interrupted else "done"
    lines = [
        f"{state}: {summary.rows:,} rows in {summary.seconds:.2f} s ({summary.rows_per_second:,.0f} rows/s)",
        f"  succeeded {summary.succeeded:,} · failed {summary.failed:,}",
        f"  requests  {summary.requests:,} · retries {summary.retries:,}",
        f"  latency   p50 {latency['p50']:g} ms · p95 {latency['p95']:g} ms · p99 {latency['p99']:g} ms",
        f"  memory    {summary.peak_rss_mb:,.0f} MB at the most, all processes",
        f"  results   {'stdout' if summary.output == '-' else summary.output}",
    ]
    if summary.failures_file:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in summary.failures.items())
        lines.append(f"  failures  {summary.failures_file} ({kinds})")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201
