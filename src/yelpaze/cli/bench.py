"""`yelpaze bench ladder`."""

import asyncio
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from yelpaze.bench.ladder import Climb, chart, climb
from yelpaze.model.errors import InputError


@click.group("bench")
def command() -> None:
    """Measure on this machine. Servers are local; nothing leaves it."""


@command.command("ladder")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=6.0,
    show_default=True,
    help="For each rung, in three turns.",
)
@click.option("--connections", type=click.IntRange(1, 2000), default=64, show_default=True)
@click.option(
    "--chart",
    "chart_file",
    metavar="FILE",
    default="ladder.svg",
    show_default=True,
    help="Where to draw it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout.")
def ladder(seconds: float, connections: int, chart_file: str, as_json: bool) -> int:
    """From a plain loop to all cores: the same calls, written in six ways."""
    console = Console(stderr=True)
    if not Path(chart_file).parent.is_dir() or Path(chart_file).is_dir():
        raise InputError(f"{chart_file}: is no file in a folder that exists; give another --chart")
    with console.status("climbing: nine measurements, three times"):
        result = asyncio.run(climb(seconds=seconds, connections=connections))
    try:
        Path(chart_file).write_text(chart(result), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{chart_file}: cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        _show(result, Console())
        console.print(f"chart: {chart_file}")
    return 0


def _show(result: Climb, console: Console) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("rung")
    for column in ("requests/s", "CPU µs a request", "memory MB"):
        table.add_column(column, justify="right")
    for reading in result.readings:
        table.add_row(
            reading.name,
            f"{reading.rate:,.0f}",
            f"{reading.cpu_us:,.1f}",
            f"{reading.memory_mb:,.0f}",
        )
    console.print(table)
    cores = f"{result.cores} core" + ("s" if result.cores != 1 else "")
    console.print(f"\nA million requests a second takes, in machines of this size ({cores}):")
    for kind, machines in result.machines.items():
        console.print(f"  {kind:<28}{machines:>6,.1f}")
    console.print(
        "\nComputed as CPU time a request * 1,000,000 / cores: the client's CPU time alone, on all cores.\n"
        "Servers, networks and your own code come on top."
    )
