"""python worker_http.py [JSON]: what it costs to have rows worked on by other processes.

A row is about 20 µs of pure Python. Overhead is the CPU time of all processes, ours and theirs, less that
of calling the function inline, for each row. Every way has two processes, and each result is checked.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import aiohttp
import msgspec
import uvloop
from children import child, cpu_seconds, free_port, task_from_argv, wait_for_port
from rows import rows, work
from worker_flow import flow

from yelpaze.rpc import Functions

PROCESSES = 2
CHUNK = 64
AT_ONCE = 128  # requests of a row each: a batch for each process
Run = Callable[[list[dict]], Awaitable[list[dict]]]


@contextlib.asynccontextmanager
async def inline() -> AsyncIterator[Run]:
    async def run(all_rows: list[dict]) -> list[dict]:
        return [work(row) for row in all_rows]

    yield run


@contextlib.asynccontextmanager
async def pool() -> AsyncIterator[Run]:
    # Spawned: what it was forked from would be a process with threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as executor:

        async def run(all_rows: list[dict]) -> list[dict]:
            return list(executor.map(work, all_rows, chunksize=CHUNK))

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

            async def run(all_rows: list[dict]) -> list[dict]:
                if route == "/inference":
                    return await pulled(call, all_rows, AT_ONCE)
                chunks = [all_rows[at : at + CHUNK] for at in range(0, len(all_rows), CHUNK)]
                found = await pulled(call, chunks, 2 * PROCESSES)
                return [row for chunk in found for row in chunk]

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
async def by_flow(workers: int | None = None) -> AsyncIterator[Run]:
    """As `yelpaze run` does it; None: at a worker, by gRPC."""

    async def run(all_rows: list[dict], at: int | str) -> list[dict]:
        return [result.value for result in await flow.run(all_rows, workers=at, concurrency=1024)]

    if workers is not None:
        yield lambda all_rows: run(all_rows, workers)
        return
    port = free_port()
    with child("worker_flow.py", port) as pid:
        wait_for_port(port, pid)
        yield lambda all_rows: run(all_rows, f"grpc://127.0.0.1:{port}")


@contextlib.asynccontextmanager
async def by_functions() -> AsyncIterator[Run]:
    port = free_port()
    with child("worker_flow.py", port) as pid:
        wait_for_port(port, pid)
        async with Functions(f"grpc://127.0.0.1:{port}", module="worker_flow") as functions:

            async def run(all_rows: list[dict]) -> list[dict]:
                return [value async for value in functions.map("worked", all_rows, at_once=1024)]

            yield run


WAYS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Run]]] = {
    "inline": inline,
    "Flow, in this process": lambda: by_flow(0),
    "Flow, a worker by gRPC": by_flow,
    "Functions.map, a worker by gRPC": by_functions,
    "ProcessPoolExecutor": pool,
    "mosec, a row a request": lambda: mosec("/inference"),
    "mosec, 64 rows a request": lambda: mosec("/rows"),
}


async def measured(way: str, count: int) -> dict[str, float]:
    given = rows(count)
    async with WAYS[way]() as run:
        if await run(given[: count // 5]) != [work(row) for row in given[: count // 5]]:
            raise SystemExit(f"{way}: wrong results")
        cpu, began = cpu_seconds(os.getpid()), time.perf_counter()
        await run(given)
        wall, cpu = time.perf_counter() - began, cpu_seconds(os.getpid()) - cpu
    return {"cpu_us": cpu / count * 1e6, "rate": count / wall}


async def main(rounds: int = 5, count: int = 20_000) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(await measured(way, count if way != "mosec, a row a request" else count // 4))
            print(f"worker_http: {way}: {found[way][-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(**task_from_argv()))))
