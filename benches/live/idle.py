"""python idle.py [JSON]: what an idle connection takes of the server's memory, and all of them of its CPU.

Before: a hundred connections have come and gone, so that what is loaded or made once is there. After: all
are open and have been pinged. The connections are authenticated and subscribed where the server knows that.
"""

import json
import sys
import time

from processes import cores, cpu_seconds, loading, memory, quiet, task_from_argv
from servers import SERVERS, Server, present, started

NAMES = tuple(name for name in SERVERS if name != "raw send(), bursts joined")


def measured(server: Server, count: int, rest: float) -> dict[str, float]:
    with started(server) as (port, pid):
        with loading(server.task(port, 100), cores()[0]) as few:
            few.opened()
        quiet(pid)
        before = memory(pid)
        with loading(server.task(port, count), cores()[0]) as loader:
            loader.opened()
            quiet(pid)
            loader.ask("reset")
            cpu, began = cpu_seconds(pid), time.perf_counter()
            time.sleep(rest)
            cpu, wall = cpu_seconds(pid) - cpu, time.perf_counter() - began
            used = memory(pid) - before
            stats = loader.ask("stats")
            if stats["open"] != count:
                raise SystemExit(f"some went: {stats}")
    return {
        "rss_kb": used.rss / count,
        "pss_kb": used.pss / count,
        "cpu": cpu / wall,
        "pings": stats["pings"] / count,
    }


def main(
    rounds: int = 1, count: int = 15_000, rest: float = 35.0, servers: list[str] | None = None
) -> dict[str, list[dict[str, float]]]:
    chosen = present(servers, NAMES)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, server in chosen.items():
            found[name].append(measured(server, count, rest))
            print(f"idle: {name}: {found[name][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(main(**task_from_argv())))
