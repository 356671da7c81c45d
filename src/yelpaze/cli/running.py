"""What `run` and `retry` share: flags, progress, the summary, the exit code."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
import msgspec

from yelpaze.app.observing import observing_options, raise_limits, served_engine_metrics
from yelpaze.cli.exits import Exit
from yelpaze.cli.policies import engine_options, explain, host_policies_of, with_options
from yelpaze.cli.seconds import Seconds
from yelpaze.compute.workers import Workers, who
from yelpaze.config import values
from yelpaze.flow.context import engine_for
from yelpaze.flow.flow import Flow
from yelpaze.flow.loading import find
from yelpaze.grpc.target import Security
from yelpaze.jobs.options import RunOptions, Summary, max_failures_of, with_absolute_names
from yelpaze.jobs.progress import JobView, Progress, say
from yelpaze.jobs.report import duration
from yelpaze.jobs.session import Session
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import InputError, MisuseError
from yelpaze.model.json_text import encode_json
from yelpaze.process.streams import results_on_stdout
from yelpaze.service.signals import on_status_request, until_stopped

F = TypeVar("F", bound=Callable[..., Any])


class MaxFailures(click.ParamType[int | float]):
    """A number of rows, or a share of them."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        most = max_failures_of(str(value))
        if not isinstance(most, str):
            return most
        return self.fail(f"{value!r} is neither a number of rows nor a share such as 5%", param, ctx)


class Size(click.ParamType[int]):
    """A number of bytes: 500000, 64M, 1G."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = values.Size.parse(str(value))
        except ValueError:
            size = values.Size(0)
        if not size:
            self.fail(f"{value!r} is no size such as 64M or 1G", param, ctx)
        return size


class WorkersType(click.ParamType[int | Workers]):
    """A number of processes, or addresses of workers."""

    name = "N|ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Workers:
        text = str(value)
        if text.isascii() and text.isdigit():
            return int(text)
        try:
            return who(text)
        except (InputError, MisuseError) as error:
            return self.fail(f"{error}; or a number of processes, or local", param, ctx)


_ROW_OPTIONS = (
    click.option(
        "--concurrency",
        metavar="ROWS",
        type=click.IntRange(1),
        default=256,
        show_default=True,
        help="Rows under way at once.",
    ),
    click.option(
        "--workers",
        metavar="N|ADDRESS,…",
        type=WorkersType(),
        default=None,
        help="CPU steps: in so many processes; 0: in this one; grpc://host:port: at `yelpaze worker` there; "
        "local: at one that this machine's runs share. [default: one a core]",
    ),
    click.option(
        "--worker-hedge",
        metavar="SECONDS",
        type=Seconds(),
        help="Make a CPU call at a second worker, too, when it takes longer.",
    ),
    click.option(
        "--worker-ca", metavar="FILE", help="CA file used to verify workers. [default: the system's]"
    ),
    click.option("--worker-cert", metavar="FILE", help="Client certificate for workers that require one."),
    click.option("--worker-key", metavar="FILE", help="Private key of the client certificate."),
    click.option(
        "--batch",
        metavar="N",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Rows sent to a worker at once, at most.",
    ),
    click.option(
        "--memory",
        metavar="BYTES",
        type=Size(),
        default="128M",
        show_default=True,
        help="Answers that rows under way may hold.",
    ),
    click.option(
        "--row-deadline", metavar="SECONDS", type=Seconds(), help="For a row, all its steps together."
    ),
    click.option(
        "--row-retries",
        metavar="N",
        type=click.IntRange(0),
        default=0,
        help="Run the failed branches of a row again, if that may help. [default: 0]",
    ),
    click.option(
        "--max-failures",
        metavar="N|P%",
        type=MaxFailures(),
        help="Stop, resumable, when more rows than that have failed.",
    ),
    click.option(
        "--grace",
        metavar="SECONDS",
        type=Seconds(zero=True),
        default=10.0,
        show_default=True,
        help="How long rows under way may go on when the run is stopped.",
    ),
)
_CALL_OPTIONS = (
    click.option("--rate", metavar="N/s", help="Calls to one host in time: 100/s, 30/m, 1000/h."),
    click.option(
        "--retries", metavar="N", type=click.IntRange(0), help="Attempts after the first. [default: 2]"
    ),
    click.option("--timeout", metavar="SECONDS", type=Seconds(), help="For each attempt. [default: 60]"),
    click.option("--hedge", is_flag=True, help="Ask again when an answer is slow, +5 % requests at most."),
    click.option("--dedupe", is_flag=True, help="Identical GETs under way share one call."),
)


def row_options(function: F) -> F:
    """Add the flags that say how rows are run."""
    return with_options(function, _ROW_OPTIONS)


def call_options(function: F) -> F:
    """Add the flags that say how calls are made; `policy_options` has the others."""
    return with_options(function, _CALL_OPTIONS)


class DisplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a command works and what it shows."""

    explain_only: bool
    metrics: str | None
    log: str | None
    as_json: bool
    quiet: bool


def taken_apart(flags: dict[str, Any]) -> tuple[RunOptions, DisplayOptions]:
    """What the flags' values say. Those of `RunOptions` that have no flag keep their defaults."""
    if flags["log"] not in (None, "-"):
        flags["log"] = str(Path(flags["log"]).absolute())
    display = DisplayOptions(**{name: flags.pop(name) for name in DisplayOptions.__struct_fields__})
    of_rows = {name: flags.pop(name) for name in RunOptions.__struct_fields__ if name in flags}
    of_rows["accept"] = frozenset(of_rows["accept"])
    of_rows["workers"] = _workers_of(flags, of_rows["workers"])
    texts = flags.pop("host_policies")
    engine = engine_options(host_rate=flags.pop("rate"), **flags)
    if texts:
        engine["hosts"] = host_policies_of(texts, engine)
    return RunOptions(engine=engine, **of_rows), display


def _workers_of(flags: dict[str, Any], workers: int | Workers | None) -> int | Workers:
    """Who does the CPU work; takes the flags that belong to it."""
    hedge, ca_file, cert, key = (flags.pop(f"worker_{name}") for name in ("hedge", "ca", "cert", "key"))
    if not isinstance(workers, Workers):
        if hedge or ca_file or cert or key:
            raise MisuseError("--worker-… flags need --workers grpc://host:port")
        return usable_cores() if workers is None else workers
    if (ca_file or cert or key) and not any(target.startswith("grpcs:") for target in workers.targets):
        raise MisuseError(
            "--worker-ca, --worker-cert and --worker-key are for TLS: --workers grpcs://host:port"
        )
    if bool(cert) != bool(key):
        raise MisuseError("--worker-cert and --worker-key need each other: a certificate and its key")
    security = Security(ca_file=ca_file, client_cert=(cert, key) if cert else None)
    return msgspec.structs.replace(workers, hedge=hedge, security=security)


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Standard output for results; what a flow, its children and its exit handlers print goes to stderr."""
    stdout = sys.stdout
    out = results_on_stdout()
    sys.stdout = sys.stderr
    try:
        yield out
    finally:
        if out is stdout:
            sys.stdout = stdout


def _number_of(out: TextIO) -> int:
    try:
        return out.fileno()
    except OSError:  # a test's
        return 1


def found_flow(spec: str, options: RunOptions) -> tuple[Flow, RunOptions]:
    """Import a flow. Names of files mean the same afterwards, though it may change the working folder.

    Raises FlowError.
    """
    before = Path.cwd()
    flow = find(spec)
    options = msgspec.structs.replace(options, folder=str(before))
    try:
        if Path.cwd() == before:
            return flow, options
    except FileNotFoundError:  # a temporary folder
        os.chdir(before)
        return flow, options
    with chdir(before):
        return flow, with_absolute_names(options)


def carry_out(
    flow: Flow,
    options: RunOptions,
    display: DisplayOptions,
    make: Callable[[RunOptions], Session],
    out: TextIO,
) -> int:
    """Do the job that `make` gives for the options, or explain its policies."""
    if display.explain_only:
        engine = engine_for(flow.plan, concurrency=options.concurrency, overrides=options.engine)
        click.echo("\n".join(explain(engine)), file=out)
        return Exit.OK
    with ExitStack() as stack:
        watched = observing_options(display.log, stack, flow.plan.secrets)
        job = make(
            msgspec.structs.replace(options, engine={**options.engine, **watched}, stdout=_number_of(out))
        )
        stack.enter_context(served_engine_metrics(job.engine, display.metrics))
        return _work(job, quiet=display.quiet, as_json=display.as_json, out=out)


def _work(job: Session, *, quiet: bool, as_json: bool, out: TextIO) -> int:
    """Run the job, show how it goes, and tell how it went."""
    if not quiet:
        job.notes = lambda text: click.echo(f"yelpaze: {text}", err=True)
    raise_limits(job.engine, job.notes)
    summary = asyncio.run(_run(job, quiet=quiet))
    if as_json:
        click.echo(encode_json(summary), file=out)
    if not quiet:
        for pattern in job.engine.policies.unmatched if not summary.already_finished else ():
            click.echo(
                f"yelpaze: warning: the host pattern {pattern!r} matched no host that was called", err=True
            )
        report(summary)
    return _exit_code(summary)


async def _run(job: Session, *, quiet: bool) -> Summary:
    view = Progress(JobView(job))
    with on_status_request(lambda: say(view.text())):
        async with nullcontext() if quiet else view:
            return await until_stopped(job, job.run())


def _exit_code(summary: Summary) -> Exit:
    if summary.interrupted:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if summary.failed and not summary.already_finished else Exit.OK


def report(summary: Summary) -> None:
    """The summary, for people."""
    if summary.already_finished:
        say(
            f"{summary.output}: the run {summary.run} is finished: {counted(summary.rows, 'row')}, "
            f"{summary.failed:,} of them failed; nothing to do (--restart begins anew)",
            *([f"  retry     yelpaze retry {summary.run}"] if summary.failed else ()),
        )
        return
    latency = " · ".join(f"{name} {value:g} ms" for name, value in summary.latency_ms.items())
    state = "interrupted" if summary.interrupted else "done"
    rows = counted(summary.ended, "row")
    before = f" (and {summary.rows - summary.ended:,} before)" if summary.rows > summary.ended else ""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in summary.reasons.items())
    reasons += ", this time" if reasons and before else ""
    pace = f" ({summary.rows_per_second:,.0f} rows/s)"
    lines = [
        f"{state}: {rows}{before} in {duration(summary.seconds)}{pace}",
        f"  succeeded {summary.succeeded:,} · failed {summary.failed:,}{f' ({reasons})' if reasons else ''}",
        f"  requests  {summary.requests:,} · retries {summary.retries:,}",
        *((f"  latency   {latency} a call",) if summary.requests else ()),
        f"  memory    {summary.peak_rss_mb:,.0f} MB at the most, all processes",
        f"  results   {'stdout' if summary.output == '-' else summary.output}",
    ]
    if summary.failures_file:
        lines.append(f"  failures  {summary.failures_file}")
    if summary.run and summary.output != "-":
        if summary.interrupted:
            lines.append("  run       the same command goes on")
        elif summary.failed:
            lines.append(f"  retry     yelpaze retry {summary.run}")
    say(*lines)


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
