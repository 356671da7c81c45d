"""python accept.py [JSON]: how fast connections are made, and made again all at once, with what they missed.

First 200 under way at a time. Then all are closed, messages are published to nobody, and all come back in
the same moment: by Centrifugo's protocol they ask for what they missed, and must get it, once and in order.
"""

import json
import sys

from processes import all_open, cores, cpu_seconds, loading, quiet, task_from_argv
from servers import SERVERS, Server, present, started

NAMES = tuple(name for name in SERVERS if not name.startswith("raw"))
AT_A_TIME = 200
MISSED = 5


def measured(server: Server, count: int) -> dict[str, float]:
    recovery = server.mode == "centrifugo"
    with started(server, recovery=recovery) as (port, pid):
        task = server.task(port, count, recover=recovery)
        with loading(task, cores()[0]) as loader:
            cpu = cpu_seconds(pid)
            first = loader.opened(AT_A_TIME)
            cpu = cpu_seconds(pid) - cpu
            quiet(pid)
            loader.delivered(1, 1)  # recovery is from there
            loader.ask("drop")
            quiet(pid)
            loader.ask("reset")
            if recovery:
                loader.ask(f"publish {MISSED} 1")
            again_cpu = cpu_seconds(pid)
            again = all_open(task, loader.ask(f"open {count}"))
            again_cpu = cpu_seconds(pid) - again_cpu
            wanted = count * MISSED if recovery else 0
            if again["received"] != wanted or again["wrong"] or again["unrecovered"]:
                raise SystemExit(f"{wanted} messages were to be recovered: {again}")
    return {
        "rate": count / first["seconds"],
        "us": cpu / count * 1e6,
        "again": again["seconds"],
        "again_us": again_cpu / count * 1e6,
        "again_p99": again["times"]["p99"],
    }


def main(
    rounds: int = 5, count: int = 10_000, servers: list[str] | None = None
) -> dict[str, list[dict[str, float]]]:
    chosen = present(servers, NAMES)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, server in chosen.items():
            found[name].append(measured(server, count))
            print(f"accept: {name}: {found[name][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(main(**task_from_argv())))
