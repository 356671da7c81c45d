"""`yelpaze demo serve`."""

import asyncio
import signal
import sys

import click

from yelpaze.cli.exits import Exit, show
from yelpaze.demo.faults import FAULTS, Fault
from yelpaze.demo.server import Options, Server
from yelpaze.model.errors import InputError, MisuseError


@click.group("demo")
def command() -> None:
    """Local services with set delays and faults, to try things on."""


@command.command("serve")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8099",
    show_default=True,
    help="Port 0 picks a free one.",
)
@click.option("--latency", metavar="MS", type=click.FloatRange(0), default=0.0, help="Added to every answer.")
@click.option(
    "--error-rate",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Share of requests that fail, 0 to 1.",
)
@click.option(
    "--faults",
    metavar="LIST",
    default="500,503,reset",
    show_default=True,
    help=f"How they fail: {', '.join(FAULTS)}.",
)
@click.option(
    "--rate-limit",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    help="Requests a second; above it 429 with Retry-After. 0 is none.",
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=1,
    show_default=True,
    help="The same seed gives the same faults.",
)
def serve(listen: str, latency: float, error_rate: float, faults: str, rate_limit: int, seed: int) -> int:
    """Serve a small shop until Ctrl-C. `GET /` lists the services."""
    host, port = parse_address(listen)
    options = Options(
        latency=latency / 1000,
        error_rate=error_rate,
        faults=_parse_faults(faults),
        rate_limit=rate_limit,
        seed=seed,
    )
    try:
        asyncio.run(_serve(host, port, options))
    except OSError as error:
        show(InputError(f"cannot listen on {listen}: {error.strerror}"))
        return Exit.MISUSE
    return Exit.OK


async def _serve(host: str, port: int, options: Options) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    def started(host: str, port: int) -> None:
        print(f"serving on http://{host}:{port}/ (Ctrl-C stops)", file=sys.stderr, flush=True)  # noqa: T201

    await Server(options).serve(host, port, started=started, stopping=stopping)


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`; raise MisuseError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004
        raise MisuseError(f"--listen takes HOST:PORT, as 127.0.0.1:8099: {text!r}")
    return host.strip("[]"), int(port)


def _parse_faults(text: str) -> tuple[Fault, ...]:
    kinds = tuple(kind for name in text.split(",") for kind in FAULTS if kind == name.strip())
    if len(kinds) != len(text.split(",")):
        raise MisuseError(f"--faults takes a list of {', '.join(FAULTS)}: {text!r}")
    return kinds
