"""`yelpaze bench ladder`: from a loop to all cores, against the demo server.

Every rung runs in processes of its own. CPU time a request is the figure to compare: on a
small machine client and server share the cores, so requests a second say less.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import StoppedError
from yelpaze.model.extras import require

_MILLION = 1_000_000
_TURNS = 3  # the median of them is taken, so that a moment's noise decides nothing


class Reading(msgspec.Struct, frozen=True):
    """One rung's figures: calls a second, CPU µs a call, peak memory in MB of all processes."""

    name: str
    rate: float
    cpu_us: float
    memory_mb: float


class Climb(msgspec.Struct, frozen=True):
    """All rungs, and the machines that a million calls a second take, by kind of call.

    Machines are CPU seconds a call times a million, by the cores of one: the client's CPU time alone, with
    every core at work. Servers, the network's limits and your own code come on top.
    """

    readings: tuple[Reading, ...]
    machines: dict[str, float]
    cores: int


# What is shown, the rung that does it, and how many processes of it.
_LADDER = (
    ("requests in a loop", "requests", 1),
    ("http.client, kept connection", "http.client", 1),
    ("threads + requests.Session", "threads", 1),
    ("asyncio + aiohttp", "aiohttp", 1),
    ("Yelpaze, one core", "yelpaze", 1),
)
_KINDS = (
    ("keep-alive, plain", "yelpaze", False),
    ("keep-alive, TLS", "yelpaze", True),
    ("a new TLS connection each", "yelpaze-fresh", True),
)


async def climb(*, seconds: float, connections: int) -> Climb:
    """Measure every rung for so long, in turns. Raises MisuseError where a rung's library is missing."""
    require("bench", "the ladder")
    cores = usable_cores()
    rungs = [*_LADDER, (f"Yelpaze, all {cores} cores", "yelpaze", cores)]
    found: dict[str, list[Reading]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tls, ca_file = _certificate(Path(folder))
        async with _server(None) as plain, _server(tls) as secure:
            tasks = [(shown, rung, f"{plain}/ping", "", processes) for shown, rung, processes in rungs]
            for shown, rung, over_tls in _KINDS:
                tasks.append((shown, rung, f"{secure if over_tls else plain}/ping", ca_file, 1))
            for _ in range(_TURNS):
                for shown, rung, url, authorities, processes in tasks:
                    reading = await _measure(
                        shown, rung, url, seconds / _TURNS, connections, authorities, processes
                    )
                    found.setdefault(shown, []).append(reading)
    median = {shown: sorted(some, key=_cost)[len(some) // 2] for shown, some in found.items()}
    machines = {kind: median[kind].cpu_us * _MILLION / 1e6 / cores for kind, _, _ in _KINDS}
    return Climb(tuple(median[shown] for shown, _, _ in rungs), machines, cores)


def _cost(reading: Reading) -> float:
    return reading.cpu_us


async def _measure(
    shown: str, rung: str, url: str, seconds: float, connections: int, ca_file: str, processes: int
) -> Reading:
    command = [
        sys.executable,
        "-m",
        "yelpaze.bench.rungs",
        rung,
        url,
        str(seconds),
        str(connections),
        ca_file,
    ]
    runs = [
        await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours
        )
        for _ in range(processes)
    ]
    figures = []
    for run in runs:
        stdout, stderr = await run.communicate()
        if run.returncode:
            raise StoppedError(f"{shown}: {stderr.decode().strip().splitlines()[-1]}")
        figures.append(json.loads(stdout))
    count = sum(figure["count"] for figure in figures)
    return Reading(
        shown,
        sum(figure["count"] / figure["wall"] for figure in figures),
        sum(figure["cpu"] for figure in figures) / count * 1e6,
        sum(figure["memory_kb"] for figure in figures) / 1024,
    )


@asynccontextmanager
async def _server(tls: tuple[str, str] | None) -> AsyncIterator[str]:
    """A demo server in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "yelpaze.bench.server", *(tls or ())]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdout is None or process.stdin is None:
        raise StoppedError("the demo server has no pipes")
    url = (await process.stdout.readline()).decode().strip()
    if not url:
        raise StoppedError("the demo server did not start")
    try:
        yield url
    finally:
        process.stdin.close()
        await process.wait()


def _certificate(folder: Path) -> tuple[tuple[str, str], str]:
    import trustme  # noqa: PLC0415  of the bench extra

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem, ca_file = folder / "server.pem", folder / "ca.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(ca_file))
    return (str(pem), str(pem)), str(ca_file)


def chart(result: Climb) -> str:
    """The ladder as an SVG bar chart: CPU µs a request, less is better."""
    width, row, left = 720, 34, 250
    longest = max(reading.cpu_us for reading in result.readings)
    height = 64 + row * len(result.readings)
    bars = []
    for place, reading in enumerate(result.readings):
        y = 48 + place * row
        length = max(2, (width - left - 90) * reading.cpu_us / longest)
        colour = "#0b6e6e" if reading.name.startswith("Yelpaze") else "#9aa5b1"
        bars.append(
            f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{reading.name}</text>'
            f'<rect x="{left}" y="{y}" width="{length:.0f}" height="22" rx="3" fill="{colour}"/>'
            f'<text x="{left + length + 8:.0f}" y="{y + 16}">{reading.cpu_us:,.0f} µs</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="14" fill="#1f2933">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="{left}" y="28" font-weight="600">CPU time a request (less is better)</text>'
        f"{''.join(bars)}</svg>\n"
    )
