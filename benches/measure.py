"""What every client of a scenario shares: its task, and how it is measured.

A client is a coroutine `work(task, count)` that makes `count` calls with `task.connections`
under way, reading and checking each body. Imports, connecting and a warm-up are outside the measure.
"""

import asyncio
import json
import resource
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    url: str
    count: int
    connections: int
    ca_file: str
    http2: bool
    fresh: bool
    body: bytes = b'{"data":{"items":[1,2,3,4,5]}}'

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def check(self, status: int, body: bytes) -> None:
        if status != 200 or body != self.body:
            raise SystemExit(f"wrong answer: {status} {body[:80]!r}")


Run = Callable[[int], Awaitable[None]]


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def timed(task: Task, run: Run) -> None:
    """Warm up, then measure `run(task.count)` and print the figures as one JSON line."""
    await run(max(task.connections * 2, task.count // 10))
    cpu, began = cpu_seconds(), time.perf_counter()
    await run(task.count)
    wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_us": cpu / task.count * 1e6, "rate": task.count / wall, "peak_mb": peak}))


async def pull(task: Task, count: int, one: Callable[[], Awaitable[None]]) -> None:
    """`count` calls by as many workers as there are connections, the usual asyncio way."""
    left = count

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    await asyncio.gather(*(worker() for _ in range(task.connections)))


def task_from_argv() -> Task:
    return Task(**json.loads(sys.argv[1]))
