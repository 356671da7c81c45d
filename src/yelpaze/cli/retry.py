"""`yelpaze retry RUN`."""

import re
import sys
from functools import partial
from typing import Any

import click

from yelpaze.cli.policies import policy_options
from yelpaze.cli.running import (
    call_options,
    carry_out,
    counted,
    found_flow,
    own_stdout,
    row_options,
    taken_apart,
)
from yelpaze.flow.failure import KINDS
from yelpaze.jobs.progress import say
from yelpaze.jobs.retry_feed import Selection
from yelpaze.jobs.runs import RunRecord, Runs
from yelpaze.jobs.session import retry_job
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
    **flags: Any,
) -> int:
    """Run the failed rows of a run again, into the same output.

    RUN is an id that `yelpaze runs` lists, the beginning of one, the run's output, or `last`: the
    last run of this folder.
    Of each row only what was not answered is called: the answers that had come were kept.
    """
    record = Runs().find(run, elsewhere=_is_meant)
    place = {"inputs": tuple(record.inputs), "output": output or record.output, "sample": record.sample}
    options, display = taken_apart(flags | place)
    selection = Selection(kinds=frozenset(kinds), steps=frozenset(steps), statuses=frozenset(statuses))
    with own_stdout() as out:
        found, options = found_flow(flow or _flow_of(record), options)
        _check_words(kinds, statuses)
        for step in steps:
            if step not in found.plan.steps:
                raise InputError(
                    f"--step {step}: no step of {found.plan.name}; steps are: {', '.join(found.plan.steps)}"
                )
        if not display.quiet:
            failed = f"{counted(record.failed, 'failed row')} of {counted(record.rows, 'row')}"
            say(f"yelpaze: retrying {record.run}: {failed}, output {place['output']}")
        make = partial(retry_job, found, selection=selection, all_steps=all_steps)
        return carry_out(found, options, display, make, out)


def _is_meant(record: RunRecord) -> bool:
    """Ask, where there is somebody to ask."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = (
        f"No run was started in this folder. The last one is {record.run} in {record.folder}. Retry it?"
    )
    return click.confirm(question, err=True)


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
