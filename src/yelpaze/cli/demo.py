"""`yelpaze demo serve`."""

import asyncio

import click

from yelpaze.cli.exits import Exit
from yelpaze.cli.serving import address_of, service_options
from yelpaze.demo.faults import FAULTS, Fault
from yelpaze.demo.server import Options
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Report


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
@service_options("demo", grace=5.0, what="answers under way")
def serve(
    listen: str,
    latency: float,
    error_rate: float,
    faults: str,
    rate_limit: int,
    seed: int,
    grace: float,
    metrics: str | None,
    report: Report,
) -> int:
    """Serve a small shop until Ctrl-C. `GET /` lists the services."""
    options = Options(
        latency=latency / 1000,
        error_rate=error_rate,
        faults=_parse_faults(faults),
        rate_limit=rate_limit,
        seed=seed,
    )
    from yelpaze.app.demo import serve_demo  # noqa: PLC0415  not for the help

    asyncio.run(serve_demo(address_of(listen), options, report, grace=grace, metrics=metrics))
    return Exit.OK


def _parse_faults(text: str) -> tuple[Fault, ...]:
    kinds = tuple(kind for name in text.split(",") for kind in FAULTS if kind == name.strip())
    if len(kinds) != len(text.split(",")):
        raise MisuseError(f"--faults takes a list of {', '.join(FAULTS)}: {text!r}")
    return kinds
