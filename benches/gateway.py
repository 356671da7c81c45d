"""The live gateway and its rivals. Parts of `make bench`.

Each scenario is a file in live/, which starts its servers and clients and prints its figures as JSON.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from serving import middle, ratio

HERE = Path(__file__).parent
_LIMIT = 2400  # seconds; fan-out takes a quarter of an hour
_OURS = "yelpaze, Centrifugo's protocol"
_FLOOR = "raw send()"


def _scenario(name: str, **task: Any) -> Any:
    command = [sys.executable, str(HERE / "live" / f"{name}.py"), json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=_LIMIT)
    if done.returncode:
        raise SystemExit(f"{name} failed")
    return json.loads(done.stdout)


def _versions() -> list[str]:
    """Of the rivals, which are in an environment of their own."""
    names = ("fastapi", "picows", "uvicorn", "uvloop", "websockets")
    pins = (
        line.split()[0] for line in (HERE / "live" / "rivals.lock").read_text().splitlines() if "==" in line
    )
    found = dict(pin.split("==") for pin in pins)
    modules = (HERE / "live" / "rivals" / "centrifugo" / "go.mod").read_text().split()
    centrifugo = modules[modules.index("github.com/centrifugal/centrifugo/v5") + 1]
    return ["", ", ".join(f"{name} {found[name]}" for name in names) + f", Centrifugo {centrifugo}."]


def _against(found: dict[str, list[float]], mine: str, theirs: str) -> str:
    if mine == theirs or mine not in found or theirs not in found:
        return ""
    return f"{ratio(found[mine], found[theirs]):.2f}"


def idle(share: float) -> list[str]:
    """Memory of an idle connection."""
    found = _scenario("idle", count=max(500, int(15_000 * share)))
    lines = [
        "",
        "| server | KiB a connection, Pss | RSS | CPU of all, at rest |",
        "|---|--:|--:|--:|",
    ]
    for name, figures in found.items():
        lines.append(
            f"| {name} | {middle(figures, 'pss_kb'):.2f} | {middle(figures, 'rss_kb'):.2f} | "
            f"{middle(figures, 'cpu'):.1%} of a core |"
        )
    return [*lines, *_versions()]


def fanout(rounds: int, share: float) -> list[str]:
    """Deliveries a core-second, one message at a time and ten."""
    found = _scenario("fanout", rounds=rounds, messages=max(4, int(50 * share)))
    floor = [figure["single"]["per_core"] for figure in found.get(_FLOOR, [])]
    lines: list[str] = []
    for way, title in (("single", "One message at a time"), ("burst", "Ten at once")):
        figures = {name: [figure[way] for figure in all_ways] for name, all_ways in found.items()}
        rates = {name: [figure["per_core"] for figure in mine] for name, mine in figures.items()}
        lines += [
            "",
            f"### {title}",
            "",
            "| server | deliveries a core-second | against raw send(), singly | ours against it | p50 | p99 |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for name, mine in rates.items():
            to_floor = f"{ratio(mine, floor):.2f}" if floor else ""
            lines.append(
                f"| {name} | {statistics.median(mine):,.0f} | {to_floor} | {_against(rates, _OURS, name)} | "
                f"{middle(figures[name], 'p50'):.0f} ms | {middle(figures[name], 'p99'):.0f} ms |"
            )
    return [*lines, *_versions()]


def accept(rounds: int, share: float) -> list[str]:
    """Connections made, and made again."""
    found = _scenario("accept", rounds=rounds, count=max(500, int(10_000 * share)))
    lines = [
        "",
        "| server | connections/s | CPU µs a connection | all back at once | CPU µs a connection |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, figures in found.items():
        lines.append(
            f"| {name} | {middle(figures, 'rate'):,.0f} | {middle(figures, 'us'):.0f} | "
            f"{middle(figures, 'again'):.2f} s | {middle(figures, 'again_us'):.0f} |"
        )
    return [*lines, *_versions()]


def hundred(share: float) -> list[str]:
    """Very many on one machine."""
    found = _scenario("hundred", count=max(2_000, int(100_000 * share)))
    if not found:
        return ["Not measured."]
    return [
        "",
        f"| {found['count']:,.0f} connections, {found['processes']:.0f} processes | |",
        "|---|--:|",
        f"| all open after | {found['open_s']:.0f} s |",
        f"| memory of all processes, without connections | {found['empty_mb']:.0f} MB |",
        f"| with them | {found['full_mb']:.0f} MB: {found['pss_kb']:.2f} KiB a connection |",
        f"| CPU at rest, {found['pings']:.1f} pings each in a minute | {found['rest_cores']:.1%} of a core |",
        f"| and Redis's | {found['rest_redis_cores']:.1%} of a core |",
        f"| a broadcast to all: half of them, 99 %, the last | {found['broadcast_p50']:.0f} ms, "
        f"{found['broadcast_p99']:.0f} ms, {found['broadcast_max']:.0f} ms |",
        f"| deliveries a core-second of it | {found['per_core']:,.0f} |",
        f"| SIGTERM to one process: it ends, its {found['drained']:,.0f} clients are back | "
        f"{found['ended_s']:.1f} s, {found['back_s']:.1f} s |",
        f"| messages meanwhile; lost, out of order, not recovered | {found['sent_meanwhile']:.0f}; "
        f"{found['lost']:.0f}, {found['wrong']:.0f}, {found['unrecovered']:.0f} |",
    ]
