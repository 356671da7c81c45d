"""python empty.py [JSON]: what an empty unary call costs the server, for ours and its rivals by turns.

All servers stand on one core, this process on another: the server is busy all the time, and calls/s are
calls/s a core. CPU time is that of the server with all its processes.
"""

import contextlib
import json
import os
import sys
import time

import uvloop
from children import child, cpu_seconds, free_port, generated, task_from_argv, wait_for_port
from load import load

PATH = "/calls.Calls/Empty"
# name → script and what follows the port
SERVERS: dict[str, tuple[str, ...]] = {
    "yelpaze, async": ("ours.py", "1", "0"),
    "yelpaze, 10 threads": ("ours.py", "1", "10"),
    "grpcio, async": ("rivals/grpcio_aio.py",),
    "grpcio, 10 threads": ("rivals/grpcio_sync.py",),
    "grpclib": ("rivals/grpclib_server.py",),
    "grpcio, async, on uvloop": ("rivals/grpcio_aio.py", "uvloop"),
}
CONNECTIONS, STREAMS = 4, 8


def measured(port: int, pid: int, count: int) -> dict[str, float]:
    def calls(count: int) -> None:
        uvloop.run(load([port], PATH, count, connections=CONNECTIONS, streams=STREAMS))

    calls(count // 10)
    own, cpu, began = time.process_time(), cpu_seconds(pid), time.perf_counter()
    calls(count)
    wall, cpu, own = time.perf_counter() - began, cpu_seconds(pid) - cpu, time.process_time() - own
    return {"cpu_us": cpu / count * 1e6, "rate": count / wall, "client_us": own / count * 1e6}


def main(rounds: int = 5, count: int = 8_000) -> dict[str, list[dict[str, float]]]:
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
    with contextlib.ExitStack() as stack:
        code = stack.enter_context(generated())
        running = {}
        for name, (script, *rest) in SERVERS.items():
            port = free_port()
            pid = stack.enter_context(child(script, port, *rest, code=code, core=cores[-1]))
            wait_for_port(port, pid)
            running[name] = port, pid
        os.sched_setaffinity(0, cores[:-1] or cores)
        for _ in range(rounds):
            for name, (port, pid) in running.items():
                found[name].append(measured(port, pid, count))
                print(f"empty: {name}: {found[name][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(main(**task_from_argv())))
