"""`yelpaze run FLOW INPUT`."""

import asyncio
import sys

import click
import msgspec

from yelpaze.app import Job, RunOptions, Summary, run_job
from yelpaze.cli.exits import Exit
from yelpaze.cli.progress import Progress, report
from yelpaze.flow.loading import find
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
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a flow over a file of rows.

    FLOW is path.py or path.py:name; INPUT a JSON Lines file, or - for stdin. Each result is
    a line {"row": number, "result": …}; failed rows go to a .failures.jsonl file beside it.
    """
    if as_json and output == "-":
        raise click.UsageError("--json and `-o -` both want stdout: give the results a file")
    options = RunOptions(
        input=input,
        output=output,
        concurrency=concurrency,
        workers=usable_cores() if workers is None else workers,
        batch=batch,
        limit=limit,
    )
    stdout = sys.stdout
    sys.stdout = sys.stderr  # what a flow prints must not end up among the results
    try:
        job = Job(find(flow), options)
        summary = asyncio.run(_run(job, quiet=quiet))
    finally:
        sys.stdout = stdout
    if as_json:
        click.echo(msgspec.json.encode(summary))
    if not quiet:
        report(summary)
    return _exit_code(summary)


async def _run(job: Job, *, quiet: bool) -> Summary:
    if quiet:
        return await run_job(job)
    async with Progress(job):
        return await run_job(job)


def _exit_code(summary: Summary) -> Exit:
    if summary.interrupted:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if summary.failed else Exit.OK
