"""gRPC servers in many processes and the client that chooses among them. Parts of `make bench`.

Each scenario is a file in grpc/, which starts its servers, is their client, and prints its figures as JSON.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_LIMIT = 240  # seconds; a scenario takes about a minute


def scenario(name: str, **task: Any) -> Any:
    command = [sys.executable, str(HERE / "grpc" / f"{name}.py"), json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=_LIMIT)
    if done.returncode:
        raise SystemExit(f"{name} failed")
    return json.loads(done.stdout)


def middle(figures: list[dict], name: str) -> float:
    return statistics.median(figure[name] for figure in figures)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Pair by pair, so that a machine that changes speed changes both."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


_CLIENTS = {"frames": "frames made beforehand", "channel": "`Channel`"}


def scale(rounds: int, share: float) -> list[str]:
    """Two processes against one on calls that are all CPU."""
    found = scenario("scale", rounds=rounds, count=max(20, int(120 * share)))
    rates = {
        (client, processes): [figure["rate"] for figure in figures]
        for client, both in found.items()
        for processes, figures in both.items()
    }
    lines = [
        "",
        "| client | processes | calls/s | against one | server's CPU ms a call | client's CPU |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for client, shown in _CLIENTS.items():
        for processes, figures in found[client].items():
            mine = rates[client, processes]
            against = f"**{ratio(mine, rates[client, '1']):.2f}**" if processes != "1" else ""
            lines.append(
                f"| {shown} | {processes} | {statistics.median(mine):.0f} | {against} | "
                f"{middle(figures, 'server_us') / 1000:.2f} | "
                f"{middle(figures, 'client_cores'):.1%} of a core |"
            )
    for processes in ("1", "2"):
        mine = rates["bare", processes]
        against = f"{ratio(mine, rates['bare', '1']):.2f}" if processes != "1" else ""
        lines.append(
            f"| none: bare processes | {processes} | {statistics.median(mine):.0f} | {against} | | |"
        )
    return lines


_OURS = ("yelpaze, async", "yelpaze, 10 threads")
_EXTRA = "grpcio, async, on uvloop"  # no example has it


def empty(rounds: int, share: float) -> list[str]:
    """What an empty call costs the server."""
    found = scenario("empty", rounds=rounds, count=max(500, int(8_000 * share)))
    cpu = {name: [figure["cpu_us"] for figure in figures] for name, figures in found.items()}
    lines = [
        "",
        "| server | CPU µs a call | calls/s a core | ours, async, against it | ours, threads, against it |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, costs in cpu.items():
        cost = statistics.median(costs)
        # Of calls/s a core: theirs take so many times the CPU of ours.
        ratios = [f"{ratio(costs, cpu[ours]):.2f}" if ours != name else "" for ours in _OURS]
        lines.append(f"| {name} | {cost:.0f} | {1e6 / cost:,.0f} | {ratios[0]} | {ratios[1]} |")
    rivals = [name for name in cpu if name not in (*_OURS, _EXTRA)]
    best = min(rivals, key=lambda name: statistics.median(cpu[name]))
    ours = min(_OURS, key=lambda name: statistics.median(cpu[name]))
    return [
        *lines,
        "",
        f"The best of ours ({ours}) answers **{ratio(cpu[best], cpu[ours]):.2f} times** as many calls a core",
        f"as the best of theirs ({best}).",
    ]


_NAMES = {
    "yelpaze": "`Channel`",
    "kernel": "the kernel: a gRPC channel each",
    "round_robin": "round_robin, private ports",
}


def balance(rounds: int, share: float) -> list[str]:
    """How busy four processes are by who chooses among them."""
    lines = [
        "",
        "| clients | who chooses | busy, mean | worst round | p50 | p99 | client's CPU |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for clients in (16, 8, 4):
        found = scenario("balance", rounds=max(rounds // 2, 1), seconds=max(1.0, 3 * share), clients=clients)
        for way, figures in found.items():
            lines.append(
                f"| {clients} | {_NAMES[way]} | {figures['busy']:.1%} | {figures['worst']:.1%} | "
                f"{figures['p50']:.0f} ms | {figures['p99']:.0f} ms | "
                f"{figures['client_cores']:.0%} of a core |"
            )
    return lines


def killed(share: float) -> list[str]:
    """Processes killed under load."""
    found = scenario("killed", seconds=max(5.0, 60 * share))
    lines = [
        "",
        f"| {found['kills']} kills of 4 processes | calls | failed | p50 | p99 | longest |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, shown in (("idempotent", "`Channel(idempotent=True)`"), ("once", "`Channel()`")):
        figures = found[name]
        lines.append(
            f"| {shown} | {figures['calls']:,} | {figures['failed']:,} | {figures['p50']:.0f} ms | "
            f"{figures['p99']:.0f} ms | {figures['longest']:.0f} ms |"
        )
    return [
        *lines,
        "",
        f"When one was killed, {found['processes']:.1f} were there, {found['fewest']} at the least.",
    ]


def worker_http(rounds: int, share: float) -> list[str]:
    """What it costs to have rows worked on by other processes."""
    found = scenario("worker_http", rounds=rounds, count=max(2_000, int(20_000 * share)))
    without = {"yelpaze run, a worker by gRPC": "yelpaze run, in one process"}
    lines = [
        "",
        "| way | CPU µs a row, all processes | more than in one process | rows/s |",
        "|---|--:|--:|--:|",
    ]
    for way, figures in found.items():
        inline = [figure["cpu_us"] for figure in found[without.get(way, "inline")]]
        more = statistics.median(figure["cpu_us"] - own for figure, own in zip(figures, inline, strict=True))
        shown = "" if way == "inline" or way in without.values() else f"{more:+.1f}"
        lines.append(
            f"| {way} | {middle(figures, 'cpu_us'):.1f} | {shown} | {middle(figures, 'rate'):,.0f} |"
        )
    return lines
