"""`yelpaze run FLOW INPUT…`."""

from functools import partial
from typing import Any

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import policy_options
from yelpaze.cli.running import call_options, carry_out, found_flow, own_stdout, row_options, taken_apart
from yelpaze.jobs.session import run_job


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
def command(flow: str, dry_run: bool, **flags: Any) -> int:
    """Run a flow over rows; the same command, run again, goes on where it stopped.

    FLOW is path.py or path.py:name. INPUT: files or globs (.jsonl .csv .tsv, with .gz or .zst;
    .parquet), a database (sqlite:///file.db?table=t&key=id, postgresql://…?query=…&key=id),
    or - for JSON Lines on stdin. Failed rows go to a .failures.jsonl file beside the results.
    Parquet results are a folder. OUTPUT.journal says how far the run has come: keep it with the
    results for `retry`, or delete it with them. SIGUSR1 (kill -USR1) prints where the run is.
    """
    options, display = taken_apart(flags)
    if display.as_json and options.output == "-":
        raise click.UsageError("--json and `-o -` both want stdout: give the results a file")
    with own_stdout() as out:
        found, options = found_flow(flow, options)
        if dry_run and not display.explain_only:
            from yelpaze.jobs.dry_run import preview  # noqa: PLC0415

            click.echo("\n".join(preview(found.plan, options)), file=out)
            return Exit.OK
        return carry_out(found, options, display, partial(run_job, found), out)
