"""python fanout.py [JSON]: deliveries of one channel's messages a core-second of the server's CPU.

The server is on one core, its subscribers on the other. A message, or a burst of them, is published when
everybody has the one before; each subscriber must get each message once and in order. Latency is from just
before the publication is sent to when the subscriber has read it.
"""

import json
import sys
import time

from processes import Loader, cores, cpu_seconds, loading, quiet, task_from_argv
from servers import SERVERS, Server, present, started

NAMES = tuple(SERVERS)
WAYS = {"single": 1, "burst": 10}


def delivered(loader: Loader, pid: int, times: int, burst: int) -> dict[str, float]:
    cpu = cpu_seconds(pid)
    found = loader.delivered(times, burst)
    time.sleep(0.05)  # what the server does after the last write is its work, too
    cpu = cpu_seconds(pid) - cpu
    return {
        "per_core": found["received"] / cpu,
        "p50": found["delays"]["p50"],
        "p99": found["delays"]["p99"],
        "cores": cpu / found["seconds"],
    }


def measured(server: Server, count: int, messages: int) -> dict[str, dict[str, float]]:
    found = {}
    with (
        started(server) as (port, pid),
        loading(server.task(port, count), cores()[0]) as loader,
    ):
        loader.opened()
        quiet(pid)
        for way, burst in WAYS.items():
            loader.delivered(2, burst)  # to warm up
            found[way] = delivered(loader, pid, max(2, messages // burst), burst)
    return found


def main(
    rounds: int = 5, count: int = 10_000, messages: int = 50, servers: list[str] | None = None
) -> dict[str, list[dict[str, dict[str, float]]]]:
    chosen = present(servers, NAMES)
    found: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, server in chosen.items():
            found[name].append(measured(server, count, messages))
            print(f"fanout: {name}: {found[name][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(main(**task_from_argv())))
