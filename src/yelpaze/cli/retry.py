"""`yelpaze retry RUN`."""

import re
import sys
from contextlib import ExitStack
from typing import Any

import click

from yelpaze.app.observing import observing_options, served_metrics
from yelpaze.app.retry import RetryJob, Selection
from yelpaze.app.run import RunOptions
from yelpaze.app.runs import RunRecord, Runs
from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import explain, policy_options
from yelpaze.cli.running import call_options, row_options, taken_apart, work
from yelpaze.flow.failure import KINDS
from yelpaze.flow.loading import find
from yelpaze.flow.machine import engine_for
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import InputError


@click.command("retry")
@click.argument("run")
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only failures of that kind: status, timeout, …"
)
@click.option("--step", "steps", multiple=True, metavar="STEP", help="Only failures of that step.")
@click.option("--status", "statuses", multiple=True, metavar="N|Nxx", help="Only that status: 503, 5xx.")
@click.option("--all-steps", is_flag=True, help="Call all steps again, not the failed branches only.")
@click.option("--flow", "flow", metavar="FLOW", help="The flow, if it is not where it was.")
@click.option("-o", "--output", metavar="PLACE", help="The output, if it needs a password, or has moved.")
@row_options
@click.option(
    "--accept-changed",
    "accept",
    multiple=True,
    type=click.Choice(["output"]),
    help="Go on though this has changed.",
)
@call_options
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def command(
    run: str,
    kinds: tuple[str, ...],
    steps: tuple[str, ...],
    statuses: tuple[str, ...],
    all_steps: bool,
    flow: str | None,
    output: str | None,
    workers: int | None,
    accept: tuple[str, ...],
    explain_only: bool,
    metrics: str | None,
    log: str | None,
    as_json: bool,
    quiet: bool,
    **others: Any,
) -> int:
    """Run the failed rows of a run again, into the same output.

    RUN is an id that `yelpaze runs` lists, the beginning of one, the run's output, or `last`.
    Of each row only what was not answered is called: the answers that had come were kept.
    """
    of_rows, engine = taken_apart(others)
    record = Runs().find(run)
    stdout = sys.stdout
    sys.stdout = sys.stderr  # what a flow prints must not end up among the results
    try:
        found = find(flow or _flow_of(record))
        if explain_only:
            engine_ = engine_for(found, concurrency=of_rows["concurrency"], overrides=engine)
            click.echo("\n".join(explain(engine_)), file=stdout)
            return Exit.OK
        with ExitStack() as stack:
            watched = observing_options(log, stack, found.secrets)
            options = RunOptions(
                inputs=tuple(record.inputs),
                output=output or record.output,
                workers=usable_cores() if workers is None else workers,
                accept=frozenset(accept),
                sample=record.sample,
                engine=engine | watched,
                **of_rows,
            )
            selection = Selection(
                kinds=frozenset(kinds), steps=frozenset(steps), statuses=frozenset(statuses)
            )
            unknown = [step for step in steps if step not in found.steps]
            if unknown:
                raise InputError(
                    f"--step {unknown[0]}: no step of {found.name}; steps are: {', '.join(found.steps)}"
                )
            _check_words(kinds, statuses)
            job = RetryJob(found, options, selection, all_steps=all_steps)
            stack.enter_context(served_metrics(job.engine, metrics))
            return work(job, quiet=quiet, as_json=as_json, out=stdout)
    finally:
        sys.stdout = stdout


def _check_words(kinds: tuple[str, ...], statuses: tuple[str, ...]) -> None:
    known = {part for kind in KINDS for part in (kind, kind.partition(".")[0])}
    for kind in kinds:
        if kind not in known:
            raise InputError(f"--kind {kind}: there is no such kind; kinds are: {', '.join(sorted(known))}")
    for status in statuses:
        if re.fullmatch(r"[1-5](?:\d\d|xx)", status) is None:
            raise InputError(f"--status {status}: give a status such as 503, or a class such as 5xx")


def _flow_of(record: RunRecord) -> str:
    if not record.flow_spec:
        raise InputError(f"{record.run}: its flow was in no file: name one with --flow")
    return record.flow_spec
