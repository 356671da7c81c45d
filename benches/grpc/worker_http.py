"""python worker_http.py [JSON]: what it costs to have rows worked on by other processes.

A row is about 20 µs of pure Python. Overhead is the CPU time of all processes, ours and theirs, less that
of calling the function inline, for each row. Every way has two processes, and each result is checked.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop
from children import child, cpu_seconds, free_port, task_from_argv, wait_for_port
from rows import rows, work

from yelpaze.rpc import Functions

PROCESSES = 2
CHUNK = 64
AT_ONCE = 128  # requests of a row each: a batch for each process
Sum = tuple[int, float]  # of results: kept they would cost the garbage collector's time
Run = Callable[[list[dict]], Awaitable[Sum]]


def summed(results: Iterable[dict]) -> Sum:
    count, total = 0, 0.0
    for result in results:
        count += 1
        total += result["total"]
    return count, round(total)


@contextlib.asynccontextmanager
async def inline() -> AsyncIterator[Run]:
    async def run(all_rows: list[dict]) -> Sum:
        return summed(work(row) for row in all_rows)

    yield run


@contextlib.asynccontextmanager
async def pool() -> AsyncIterator[Run]:
    # Spawned: what it was forked from would be a process with threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as executor:

        async def run(all_rows: list[dict]) -> Sum:
            return summed(executor.map(work, all_rows, chunksize=CHUNK))

        yield run


@contextlib.asynccontextmanager
async def mosec(route: str) -> AsyncIterator[Run]:
    port = free_port()
    flags = ("--port", port, "--address", "127.0.0.1", "--timeout", 30_000, "--log-level", "warning")
    with child("rivals/mosec_server.py", *flags) as pid:
        wait_for_port(port, pid)
        url = f"http://127.0.0.1:{port}{route}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

            async def call(body: Any) -> Any:
                async with session.post(url, data=msgspec.msgpack.encode(body)) as response:
                    if response.status != 200:
                        raise SystemExit(f"mosec: {response.status} {await response.text()}")
                    return msgspec.msgpack.decode(await response.read())

            async def run(all_rows: list[dict]) -> Sum:
                if route == "/inference":
                    return summed(await pulled(call, all_rows, AT_ONCE))
                chunks = [all_rows[at : at + CHUNK] for at in range(0, len(all_rows), CHUNK)]
                found = await pulled(call, chunks, 2 * PROCESSES)
                return summed(row for chunk in found for row in chunk)

            yield run


async def pulled(call: Callable[[Any], Awaitable[Any]], bodies: list[Any], at_once: int) -> list[Any]:
    """All calls by so many workers, their results in order."""
    found: list[Any] = [None] * len(bodies)
    left: Iterator[tuple[int, Any]] = iter(enumerate(bodies))

    async def worker() -> None:
        for index, body in left:
            found[index] = await call(body)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return found


@contextlib.asynccontextmanager
async def by_functions() -> AsyncIterator[Run]:
    port = free_port()
    with child("worker_flow.py", port) as pid:
        wait_for_port(port, pid)
        async with Functions(f"grpc://127.0.0.1:{port}", module="worker_flow") as functions:

            async def run(all_rows: list[dict]) -> Sum:
                count, total = 0, 0.0
                async for value in functions.map("worked", all_rows, at_once=1024):
                    count += 1
                    total += value["total"]
                return count, round(total)

            yield run


WAYS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Run]]] = {
    "inline": inline,
    "Functions.map, a worker by gRPC": by_functions,
    "ProcessPoolExecutor": pool,
    "mosec, a row a request": lambda: mosec("/inference"),
    "mosec, 64 rows a request": lambda: mosec("/rows"),
}


async def measured(way: str, count: int) -> dict[str, float]:
    given = rows(count)
    async with WAYS[way]() as run:
        if await run(given[: count // 5]) != summed(work(row) for row in given[: count // 5]):
            raise SystemExit(f"{way}: wrong results")
        cpu, began = cpu_seconds(os.getpid()), time.perf_counter()
        await run(given)
        wall, cpu = time.perf_counter() - began, cpu_seconds(os.getpid()) - cpu
    return {"cpu_us": cpu / count * 1e6, "rate": count / wall}


def by_command(workers: str, count: int) -> dict[str, float]:
    """`yelpaze run` over so many rows and over five times as many: what four times as many cost, so that
    no start is in it. The worker's CPU time is counted, too."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pid = 0
        if workers == "grpc":
            port = free_port()
            pid = stack.enter_context(child("worker_flow.py", port))
            wait_for_port(port, pid)
            workers = f"grpc://127.0.0.1:{port}"
        cost = []
        for size in (count, 5 * count):
            given, results = folder / f"{size}.jsonl", folder / f"{size}.results.jsonl"
            given.write_bytes(msgspec.json.Encoder().encode_lines(rows(size)))
            flow = Path(__file__).with_name("worker_flow.py")
            command = [
                sys.executable,
                "-m",
                "yelpaze.cli.main",
                "run",
                flow,
                given,
                "-o",
                results,
                "--workers",
                workers,
            ]
            before, began = cpu_seconds(pid) if pid else 0.0, time.perf_counter()
            process = subprocess.Popen(
                [*map(str, command), "--concurrency", "1024", "-q"],
                env={**os.environ, "XDG_STATE_HOME": str(folder)},
            )
            _, status, used = os.wait4(process.pid, 0)
            if status or sum(1 for _ in results.open()) != size:
                raise SystemExit(f"yelpaze run --workers {workers}: wrong results, {status}")
            theirs = cpu_seconds(pid) - before if pid else 0.0
            cost.append((used.ru_utime + used.ru_stime + theirs, time.perf_counter() - began))
        more = 4 * count
        return {"cpu_us": (cost[1][0] - cost[0][0]) / more * 1e6, "rate": more / (cost[1][1] - cost[0][1])}


COMMANDS = {"yelpaze run, in one process": "0", "yelpaze run, a worker by gRPC": "grpc"}


async def main(rounds: int = 5, count: int = 20_000) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in (*WAYS, *COMMANDS)}
    for _ in range(rounds):
        for name, workers in COMMANDS.items():
            found[name].append(by_command(workers, count))
            print(f"worker_http: {name}: {found[name][-1]}", file=sys.stderr)
        for way in WAYS:
            found[way].append(await measured(way, count if way != "mosec, a row a request" else count // 4))
            print(f"worker_http: {way}: {found[way][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(**task_from_argv()))))
