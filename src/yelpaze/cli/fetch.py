"""`yelpaze fetch URL...`."""

import asyncio
import sys
from contextlib import ExitStack
from itertools import islice
from typing import Any

import click

from yelpaze.app.fetch import Fetch
from yelpaze.app.observing import observing_options, raise_limits, served_engine_metrics
from yelpaze.cli.curl import MANY, OUTPUT, REQUEST, TRANSFER, options_of
from yelpaze.cli.exits import Exit
from yelpaze.cli.outcomes import View, report, say
from yelpaze.cli.policies import explain, policy_options
from yelpaze.fetch.record import Tally
from yelpaze.jobs.progress import Progress
from yelpaze.model.errors import MisuseError
from yelpaze.service.signals import until_stopped

_EXPLAINED = 1000


@click.command("fetch")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@REQUEST
@OUTPUT
@TRANSFER
@MANY
@policy_options
@click.option("-s", "--silent", is_flag=True, help="No progress, no table, no messages.")
@click.option("-S", "--show-error", is_flag=True, help="With --silent, still print errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show each exchange on stderr.")
def command(urls: tuple[str, ...], explain_only: bool, metrics: str | None, **flags: Any) -> int:
    """Fetch many URLs at once, as `curl --parallel` should.

    URLs may have curl's globs: {a,b}, [1-100], [001-100:10]. Bodies go to files (-o, -O) that are
    whole or absent, or to stdout. The exit code is 0 only if all succeeded, 1 if some failed.
    """
    if bool(urls) == (flags["input_"] is not None):
        raise click.UsageError("give URLs, or --input FILE" if not urls else "give URLs or --input, not both")
    with ExitStack() as stack:
        options = options_of(urls, flags, observing_options(flags["log"], stack))
        verbose = say if flags["verbose"] else None
        fetch = Fetch(options, out=_stdout(), verbose=verbose)
        return _fetch(fetch, stack, explain_only=explain_only, metrics=metrics, flags=flags)


def _fetch(
    fetch: Fetch, stack: ExitStack, *, explain_only: bool, metrics: str | None, flags: dict[str, Any]
) -> int:
    if explain_only:
        urls = (item.url for item in islice(fetch.items(), _EXPLAINED) if item.request)
        click.echo("\n".join(explain(fetch.engine, urls)))
        return Exit.OK
    raise_limits(fetch.engine, lambda text: None if flags["silent"] else say([f"yelpaze: {text}"]))
    stack.enter_context(served_engine_metrics(fetch.engine, metrics))
    tally = asyncio.run(_run(fetch, quiet=flags["silent"] or fetch.is_single))
    report(fetch, tally, silent=flags["silent"], errors=flags["show_error"] or not flags["silent"])
    if fetch.job.interrupted:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if tally.failed else Exit.OK


async def _run(fetch: Fetch, *, quiet: bool) -> Tally:
    if quiet:
        return await until_stopped(fetch.job, fetch.run())
    async with Progress(View(fetch)):
        return await until_stopped(fetch.job, fetch.run())


def _stdout() -> Any:
    if sys.stdout is None:
        return _Closed()
    return _Terminal(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer


class _Closed:
    """Standard output that is closed, which matters only if a body goes there."""

    def write(self, _data: bytes) -> int:
        raise MisuseError("stdout is closed: open it, or redirect it to a file")

    def flush(self) -> None:
        pass


class _Terminal:
    """A terminal as the place for bodies: binary ones stay away from it, as in curl."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        if b"\0" in data:
            raise MisuseError("the body is binary and would garble the terminal: use -o FILE")
        return int(self._out.write(data))

    def flush(self) -> None:
        self._out.flush()
