"""What policies cost and what they bring; `fetch` against curl. Parts of `make bench`."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
FILES = 10_000


def python(script: str, task: dict) -> dict:
    command = [
        "taskset",
        "-c",
        str(min(os.sched_getaffinity(0))),
        sys.executable,
        str(HERE / "policy" / script),
    ]
    done = subprocess.run([*command, json.dumps(task)], env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{script}: {done.stderr}")
    return json.loads(done.stdout)


def cost(url: str, ca_file: str, rounds: int, scale: float) -> list[str]:
    """An engine with all policies beside one with none, by turns in one process."""
    task = {"url": url, "ca_file": ca_file, "count": int(20_000 * scale), "rounds": rounds}
    figures = python("cost.py", task)
    parts = python("parts.py", {})
    print(f"policies: {figures} {parts}", file=sys.stderr)
    lines = ["", "| engine | CPU µs a request | more than none |", "|---|--:|--:|"]
    for name in ("none", "default", "all"):
        lines.append(f"| {name} | {figures[name]:.1f} | {figures[f'{name}_more']:+.1f} |")
    lines += ["", "| decision | µs |", "|---|--:|"]
    lines += [f"| {name} | {microseconds:.2f} |" for name, microseconds in parts.items()]
    return lines


def effect(rounds: int) -> list[str]:
    """What hedging does to p99, and the budget to a failing service."""
    figures = [python("effect.py", {}) for _ in range(max(rounds // 2, 1))]
    print(f"effect: {figures}", file=sys.stderr)
    middle = {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}
    return [
        "",
        "| 2 % of answers take 300 ms | p50 | p99 | attempts a call |",
        "|---|--:|--:|--:|",
        f"| no hedging | {middle['plain_p50']:.0f} ms | {middle['plain_p99']:.0f} ms | {middle['plain_attempts']:.3f} |",
        f"| hedging | {middle['hedged_p50']:.0f} ms | {middle['hedged_p99']:.0f} ms | {middle['hedged_attempts']:.3f} |",
        "",
        f"3,000 `send`s to a service that answers only 503, no breaker: **{middle['budget_attempts']:.2f}** attempts a",
        f"call with the budget, {middle['no_budget_attempts']:.2f} without.",
        "",
        f"An order page of four services, the slowest {middle['slowest']:.0f} ms: **{middle['page']:.0f} ms** in all, "
        f"{middle['page'] / middle['slowest'] - 1:.0%} more;",
        f"with one service dead and one failing, a partial page after {middle['partial']:.0f} ms (its deadline is 500 ms).",
    ]


def fetch(plain: str, tls: str, ca_file: str, rounds: int) -> list[str]:
    """10,000 small files by `yelpaze fetch` and by Debian's `curl -Z`, by turns, into memory."""
    lines = [
        "",
        "| server | tool | wall s | CPU s | wall against curl | CPU against curl |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, url in (("plain", plain), ("TLS", tls)):
        pairs = [
            (timed_fetch("yelpaze", url, ca_file), timed_fetch("curl", url, ca_file)) for _ in range(rounds)
        ]
        print(f"fetch {name}: {pairs}", file=sys.stderr)
        for index, tool in enumerate(("yelpaze fetch", "curl -Z")):
            wall = statistics.median(pair[index][0] for pair in pairs)
            cpu = statistics.median(pair[index][1] for pair in pairs)
            ratios = [
                statistics.median(ours[part] / theirs[part] for ours, theirs in pairs) for part in (0, 1)
            ]
            shown = f"{ratios[0]:.2f} | {ratios[1]:.2f}" if not index else " | "
            lines.append(f"| {name} | {tool} | {wall:.2f} | {cpu:.2f} | {shown} |")
    return lines


def timed_fetch(tool: str, url: str, ca_file: str) -> tuple[float, float]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = tempfile.mkdtemp(dir=memory)
    pattern, where = f"{url}?[1-{FILES}]", f"{folder}/#1"
    flags = ["--cacert", ca_file, "--parallel-max", "50", "-s", pattern, "-o", where]
    command = (
        ["curl", "-Z", *flags]
        if tool == "curl"
        else [sys.executable, "-m", "yelpaze.cli.main", "fetch", *flags]
    )
    try:
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - began, os.times()
        got = len(os.listdir(folder))
        if got != FILES:
            raise SystemExit(f"{tool} wrote {got} files")
    finally:
        shutil.rmtree(folder)
    return wall, after.children_user + after.children_system - before.children_user - before.children_system
