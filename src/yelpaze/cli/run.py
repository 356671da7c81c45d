"""`yelpaze run FLOW INPUT…`."""

import sys
from contextlib import ExitStack
from typing import Any

import click
import msgspec

from yelpaze.app.observing import observing_options, served_metrics
from yelpaze.app.run import Job, RunOptions
from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import explain, policy_options
from yelpaze.cli.running import call_options, row_options, taken_apart, work
from yelpaze.flow.loading import find
from yelpaze.flow.machine import engine_for
from yelpaze.model.cores import usable_cores


@click.command("run")
@click.argument("flow")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="PLACE",
    help="Results: a file (.jsonl .csv .tsv .parquet .db), a URL (sqlite:, postgresql:) or - for stdout. "
    "[default: INPUT's stem + .results.jsonl]",
)
@row_options
@click.option("--limit", metavar="N", type=click.IntRange(0), help="Stop after the first N rows.")
@click.option("--sample", metavar="N", type=click.IntRange(1), help="Run N rows drawn at random.")
@click.option("--ordered", is_flag=True, help="Results in the order of the rows.")
@click.option("--dry-run", is_flag=True, help="Print the requests of the first rows; send none.")
@click.option("--restart", is_flag=True, help="Begin anew; an earlier output is kept beside.")
@click.option(
    "--accept-changed",
    "accept",
    multiple=True,
    type=click.Choice(["flow", "input", "output"]),
    help="Go on with a run though this has changed.",
)
@call_options
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(
    flow: str,
    inputs: tuple[str, ...],
    output: str | None,
    workers: int | None,
    dry_run: bool,
    accept: tuple[str, ...],
    explain_only: bool,
    metrics: str | None,
    log: str | None,
    as_json: bool,
    quiet: bool,
    **others: Any,
) -> int:
    """Run a flow over rows; the same command, run again, goes on where it stopped.

    FLOW is path.py or path.py:name. INPUT: files or globs (.jsonl .csv .tsv, with .gz or .zst;
    .parquet), a database (sqlite:///file.db?table=t&key=id, postgresql://…?query=…&key=id),
    or - for JSON Lines on stdin. Failed rows go to a .failures.jsonl file beside the results.
    Parquet results are a folder. SIGUSR1 (kill -USR1) prints where the run is.
    """
    if as_json and output == "-":
        raise click.UsageError("--json and `-o -` both want stdout: give the results a file")
    of_rows, engine = taken_apart(others)
    options = RunOptions(
        inputs=inputs,
        output=output,
        workers=usable_cores() if workers is None else workers,
        accept=frozenset(accept),
        engine=engine,
        **of_rows,
    )
    stdout = sys.stdout
    sys.stdout = sys.stderr  # what a flow prints must not end up among the results
    try:
        found = find(flow)
        if explain_only:
            engine_ = engine_for(found, concurrency=options.concurrency, overrides=engine)
            click.echo("\n".join(explain(engine_)), file=stdout)
            return Exit.OK
        if dry_run:
            from yelpaze.app.dry_run import preview  # noqa: PLC0415

            click.echo("\n".join(preview(found, options)), file=stdout)
            return Exit.OK
        with ExitStack() as stack:
            watched = observing_options(log, stack, found.secrets)
            job = Job(found, msgspec.structs.replace(options, engine=engine | watched))
            stack.enter_context(served_metrics(job.engine, metrics))
            return work(job, quiet=quiet, as_json=as_json, out=stdout)
    finally:
        sys.stdout = stdout
