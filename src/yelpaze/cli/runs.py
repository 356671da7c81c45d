"""`yelpaze runs`: the list; `yelpaze runs show RUN`."""

from pathlib import Path

import click

from yelpaze.cli.table import print_table
from yelpaze.jobs.report import duration, page, text, when
from yelpaze.jobs.runs import RunRecord, Runs, as_dict
from yelpaze.model.errors import InputError
from yelpaze.model.json_text import encode_json


@click.group("runs", invoke_without_command=True)
@click.option(
    "-n",
    "--last",
    "count",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(context: click.Context, count: int, as_json: bool) -> None:
    """List the runs of this user, the latest first; `show` tells of one."""
    if context.invoked_subcommand is not None:
        return
    runs = list(Runs().all())
    if as_json:
        for run in runs[:count]:
            click.echo(encode_json(as_dict(run)))
        return
    if not runs:
        click.echo("no runs yet", err=True)
        return
    table = [
        ("RUN", "STATE", "ROWS", "FAILED", "WORKED", "STARTED (UTC)", "OUTPUT"),
        *map(_row, runs[:count]),
    ]
    print_table(table)
    if len(runs) > count:
        click.echo(f"and {len(runs) - count:,} older ones: --last {len(runs)} lists all", err=True)


def _row(run: RunRecord) -> tuple[str, ...]:
    return (
        run.run,
        run.state,
        f"{run.rows:,}",
        f"{run.failed:,}",
        duration(run.seconds, digits=1),
        when(run.started).removesuffix(" UTC")[:-3],
        _near(run.output),
    )


def _near(output: str) -> str:
    """A path from here, if it is below."""
    path = Path(output)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else output


@command.command("show")
@click.argument("run")
@click.option("--html", metavar="FILE", help="Write a page with charts there.")
@click.option("--json", "as_json", is_flag=True, help="The record as JSON.")
def show(run: str, html: str | None, as_json: bool) -> None:
    """Tell of a run: failures by kind with examples, latency by step and host, slowest rows.

    RUN is an id, the beginning of one, the run's output, or `last`: the last run of this folder.
    """
    record = Runs().find(run)
    if html is not None:
        try:
            Path(html).write_text(page(record), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise InputError(f"{html}: cannot be written: {error.strerror}") from None
        click.echo(f"written: {html}", err=True)
    elif as_json:
        click.echo(encode_json(as_dict(record)))
    else:
        click.echo("\n".join(text(record)))
