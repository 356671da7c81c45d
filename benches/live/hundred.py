"""python hundred.py [JSON]: 100,000 subscribers of one channel on one machine, Redis between the processes.

Yelpaze's processes share one port; seven loaders hold the clients, each with its part of 127.0.0.x, since
no process here may have more than 20,000 descriptors. A broadcast must reach everybody. Then one process
gets SIGTERM while messages go on: its clients come back after the SDK's pause, ask for what they missed,
and in the end each of them, moved or not, must have had each message once and in order.
"""

import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import (
    Loader,
    all_open,
    children_of,
    cpu_seconds,
    free_port,
    loading,
    memory,
    redis,
    running,
    task_from_argv,
    until,
    wait_for_port,
)
from servers import CHANNEL, KEY, OURS, configuration, present, yelpaze

NAME = "yelpaze, Centrifugo's protocol"
BROADCASTS = 5
PAUSE = 500  # ms, centrifuge-js's minReconnectDelay
PACE = 2.0  # seconds from one message to the next meanwhile: each is a second of CPU for 100,000


class Publisher:
    """Publishes by the HTTP API; messages are numbered over the whole run, as loaders check them."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/publish"
        self.count = 0

    def publish(self) -> None:
        start = f'{{"t":{time.time_ns():019d},"n":"{self.count:08d}","p":"'
        body = f'{{"channel":"{CHANNEL}","data":{start}{"x" * (98 - len(start))}"}}}}'
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        request = urllib.request.Request(self._url, body.encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            if "error" in json.load(answer):
                raise SystemExit(f"publication {self.count} was refused")
        self.count += 1

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """A message every two seconds until the block ends."""
        over = threading.Event()

        def publish() -> None:
            while not over.wait(PACE):
                self.publish()

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Crowd:
    """All loaders as one."""

    def __init__(self, loaders: list[Loader]) -> None:
        self._loaders = loaders
        self.count = sum(loader.task["count"] for loader in loaders)

    def ask(self, command: str) -> list[dict[str, Any]]:
        for loader in self._loaders:
            loader.tell(command)
        return [loader.answer() for loader in self._loaders]

    def total(self, name: str) -> int:
        return sum(found[name] for found in self.ask("counts"))

    def open(self, at_once: int) -> float:
        began = time.perf_counter()
        for loader, found in zip(self._loaders, self.ask(f"open {at_once}"), strict=True):
            all_open(loader.task, found)
        return time.perf_counter() - began


def tasks(port: int, count: int, loaders: int) -> Iterator[dict[str, Any]]:
    server = OURS[NAME]
    for index in range(loaders):
        first, last = count * index // loaders, count * (index + 1) // loaders
        # Each address of a client gives 28,000 ports to one address of a server; two would do.
        sources = [f"127.0.0.{2 + 4 * index + turn}" for turn in range(4)]
        more = {"first": first, "sources": sources, "recover": True, "backoff": PAUSE, "seconds": 900}
        yield server.task(port, last - first, **more)


def at_rest(crowd: Crowd, pid: int, redis_pid: int, seconds: float) -> dict[str, float]:
    crowd.ask("reset")
    cpu, theirs, began = cpu_seconds(pid), cpu_seconds(redis_pid), time.perf_counter()
    time.sleep(seconds)
    cpu, theirs, wall = cpu_seconds(pid) - cpu, cpu_seconds(redis_pid) - theirs, time.perf_counter() - began
    return {
        "rest_cores": cpu / wall,
        "rest_redis_cores": theirs / wall,
        "pings": crowd.total("pings") / crowd.count,
    }


def broadcast(crowd: Crowd, publisher: Publisher, pid: int) -> dict[str, float]:
    """One message after the other; the time of each until the last of all has it."""
    p50, p99, longest, cpu = [], [], [], cpu_seconds(pid)
    for _ in range(BROADCASTS):
        crowd.ask("reset")
        publisher.publish()
        until(lambda: crowd.total("received") >= crowd.count, 60, "a broadcast")
        stats = crowd.ask("stats")
        if sum(found["received"] for found in stats) != crowd.count or any(found["wrong"] for found in stats):
            raise SystemExit(f"a broadcast came wrong: {stats}")
        p50.append(statistics.median(found["delays"]["p50"] for found in stats))
        p99.append(max(found["delays"]["p99"] for found in stats))
        longest.append(max(found["delays"]["max"] for found in stats))
    return {
        "broadcast_p50": statistics.median(p50),
        "broadcast_p99": statistics.median(p99),
        "broadcast_max": statistics.median(longest),
        "per_core": BROADCASTS * crowd.count / (cpu_seconds(pid) - cpu),
    }


def sockets(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def drained(crowd: Crowd, publisher: Publisher, pid: int) -> dict[str, float]:
    """SIGTERM to the process that has most clients; until all of them are back and have everything."""
    crowd.ask("reset")
    publisher.publish()
    until(lambda: crowd.total("received") == crowd.count, 60, "a broadcast")
    first = publisher.count - 1
    one = max(children_of(pid), key=sockets)
    clients, began = sockets(one), time.time()

    def gone() -> bool:
        return one not in children_of(pid)

    def all_back() -> bool:
        return gone() and crowd.total("open") == crowd.count

    with publisher.going():
        os.kill(one, signal.SIGTERM)
        until(gone, 120, "the end of a process")
        ended = time.time()
        until(all_back, 120, "all back")
        time.sleep(2)  # a client that comes and goes is not back
    wanted = (publisher.count - first) * crowd.count
    until(lambda: all_back() and crowd.total("received") >= wanted, 30, "everything received")
    stats = crowd.ask("stats")
    received, wrong = (sum(found[name] for found in stats) for name in ("received", "wrong"))
    closes: dict[str, int] = {}
    for found in stats:
        for code, count in found["closes"].items():
            closes[code] = closes.get(code, 0) + count
    return {
        "drained": clients,
        "ended_s": ended - began,
        "back_s": max(found["back_at"] for found in stats) - began,
        "lost": max(wanted - received, 0),
        "wrong": wrong,
        "unrecovered": sum(found["unrecovered"] for found in stats),
        "sent_meanwhile": publisher.count - first - 1,
        **{f"close_{code}": count for code, count in closes.items()},
    }


def main(
    count: int = 100_000, processes: int = 8, loaders: int = 7, rest: float = 60.0, at_once: int = 100
) -> dict[str, float]:
    if not present([NAME], (NAME,)):
        return {}
    if not shutil.which("redis-server"):
        print("hundred: left out: it needs redis-server", file=sys.stderr)
        return {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "live.yaml").write_text(configuration(recovery=True))
        redis_port, redis_pid = stack.enter_context(redis())
        port = free_port()
        flags = ("--broker", f"redis://127.0.0.1:{redis_port}", "--processes", processes)
        pid = stack.enter_context(running(yelpaze(*flags)(port, folder / "live.yaml")))
        wait_for_port(port, pid)
        until(lambda: len(children_of(pid)) >= processes, 30, "all processes")
        time.sleep(2)
        empty, redis_empty = memory(pid), memory(redis_pid)
        made = [stack.enter_context(loading(task)) for task in tasks(port, count, loaders)]
        crowd, publisher = Crowd(made), Publisher(port)
        figures = {"count": float(count), "processes": float(processes)}
        figures["open_s"] = crowd.open(at_once)
        say(figures)
        figures |= at_rest(crowd, pid, redis_pid, rest)
        used = memory(pid)
        figures |= {
            "empty_mb": empty.pss / 1024,
            "full_mb": used.pss / 1024,
            "pss_kb": (used.pss - empty.pss) / count,
            "redis_mb": (memory(redis_pid).pss - redis_empty.pss) / 1024,
        }
        for step in (broadcast, drained):
            figures |= step(crowd, publisher, pid)
            say(figures)
    return figures


def say(figures: dict[str, float]) -> None:
    print(f"hundred: {figures}", file=sys.stderr)


if __name__ == "__main__":
    print(json.dumps(main(**task_from_argv())))
