"""Blocking calls: `yelpaze.blocking.Engine` against `requests.Session`, in one thread and in eight.

    python benches/blocking.py [--rounds N]

nginx serves, pinned to the last core; the client has the first. One engine serves all threads, as in a
Flask or Django application; `requests` has a Session for each thread, as its users are told to.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measure import cpu_seconds
from run import BODY, Server, first_core

CLIENTS = ("yelpaze", "requests")
SCENARIOS = (("plain", 1, 4000), ("tls", 1, 4000), ("plain", 8, 8000), ("tls", 8, 8000))


def caller(client: str, ca_file: str):
    """What makes `fetch(url) → body` for a thread."""
    if client == "requests":
        import requests  # noqa: PLC0415  only the one that is measured

        def session():
            session = requests.Session()
            session.verify = ca_file
            session.trust_env = False  # its faster way: no look at .netrc and the environment for each call
            return lambda url: session.get(url).content

        return session
    from yelpaze import get  # noqa: PLC0415
    from yelpaze.blocking import Engine  # noqa: PLC0415

    engine = Engine(ca_file=ca_file)
    return lambda: lambda url: engine.send(get(url)).body


def measure(client: str, url: str, ca_file: str, threads: int, count: int) -> dict:
    new, expected = caller(client, ca_file), BODY.encode()
    ready, go = threading.Barrier(threads + 1, timeout=60), threading.Barrier(threads + 1)

    def work() -> None:
        fetch = new()
        for _ in range(50):
            assert fetch(url) == expected
        ready.wait()
        go.wait()
        for _ in range(count // threads):
            if fetch(url) != expected:
                raise SystemExit("wrong answer")

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    began, cpu = time.perf_counter(), cpu_seconds()
    go.wait()
    for worker in workers:
        worker.join()
    wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    return {"wall_us": wall / count * 1e6, "cpu_us": cpu / count * 1e6}


def in_process(*task: object) -> dict:
    command = [*first_core(), sys.executable, __file__, "--task", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", type=json.loads)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(measure(*arguments.task)))
        return
    print("| calls | client | µs a call | CPU µs a call | Yelpaze's time, CPU against it |")
    print("|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            for kind, threads, count in SCENARIOS:
                figures = {client: [] for client in CLIENTS}
                for _ in range(arguments.rounds):
                    for client in CLIENTS:
                        task = (client, server.url(kind), server.ca_file, threads, count)
                        figures[client].append(in_process(*task))
                for client in CLIENTS:
                    wall, cpu = (
                        statistics.median(one[name] for one in figures[client])
                        for name in ("wall_us", "cpu_us")
                    )
                    ratios = [
                        statistics.median(
                            ours[name] / theirs[name]
                            for ours, theirs in zip(figures["yelpaze"], figures[client], strict=True)
                        )
                        for name in ("wall_us", "cpu_us")
                    ]
                    shown = "" if client == "yelpaze" else f"{ratios[0]:.2f}, {ratios[1]:.2f}"
                    label = (
                        f"{'TLS' if kind == 'tls' else kind}, {threads} thread{'s' if threads > 1 else ''}"
                    )
                    print(f"| {label} | {client} | {wall:,.0f} | {cpu:,.0f} | {shown} |", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
