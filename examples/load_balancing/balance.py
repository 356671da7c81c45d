"""How busy each way of balancing keeps a server's processes: the tables of docs/how-to/load-balancing.md.

    python examples/load_balancing/balance.py    # about a minute

Four processes do one call at a time. A call holds its process for 5 ms, one in ten for 50 ms; it sleeps, so
that four cores are not needed. Eight callers have a call under way at all times: no process need be idle.
Ways whose proxy is not installed are left out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import proxies

from yelpaze.rpc import Channel, MultiProcessServer, Options

PROCESSES, CALLERS = 4, 8
SHORT, LONG, LONG_SHARE = 5, 50, 0.1
SPIN = 10

# ── the server ──────────────────────────────────────────────────────────────────


def register(server: Any) -> None:
    """Both methods take milliseconds and answer with the process's number."""

    def hold(request: bytes, _context: Any) -> bytes:
        time.sleep(float(request) / 1000)
        return str(os.getpid()).encode()

    def spin(request: bytes, _context: Any) -> bytes:
        # Time of this thread, not of the clock: the work is the same however many share the core.
        end = time.thread_time() + float(request) / 1000
        while time.thread_time() < end:
            pass
        return str(os.getpid()).encode()

    methods = {
        "Hold": grpc.unary_unary_rpc_method_handler(hold),
        "Spin": grpc.unary_unary_rpc_method_handler(spin),
    }
    server.add_registered_method_handlers("balance.Work", methods)


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[MultiProcessServer]:
    async with MultiProcessServer(register, "127.0.0.1:0", Options(drain=0, **options)) as server:
        yield server


# ── ways to call it ─────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def connections(address: str, count: int) -> AsyncIterator[list[Any]]:
    """So many plain channels; each has a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]  # else channels to one address share one connection
    async with contextlib.AsyncExitStack() as stack:
        found = [grpc.aio.insecure_channel(address, options=own) for _ in range(count)]
        for channel in found:
            await stack.enter_async_context(channel)
            await channel.channel_ready()
        yield found


@contextlib.asynccontextmanager
async def round_robin(addresses: list[str]) -> AsyncIterator[list[Any]]:
    config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    async with grpc.aio.insecure_channel(
        "ipv4:" + ",".join(addresses), options=[("grpc.service_config", config)]
    ) as channel:
        await channel.channel_ready()
        yield [channel]


@contextlib.asynccontextmanager
async def least_busy(address: str) -> AsyncIterator[list[Any]]:
    async with Channel(address) as channel:
        yield [channel]


@contextlib.asynccontextmanager
async def behind(name: str, first: int) -> AsyncIterator[list[Any]]:
    """One connection to a proxy."""
    with tempfile.TemporaryDirectory() as folder, proxies.started(name, first, Path(folder)) as address:
        async with connections(address, 1) as found:
            yield found


def ways(server: MultiProcessServer, first: int) -> Iterable[tuple[str, Callable[[], Any]]]:
    for count in (1, 4, 16):
        yield (
            f"one port, {count} connection{'s' if count > 1 else ''}",
            lambda count=count: connections(server.address, count),
        )
    yield "`round_robin` over the processes", lambda: round_robin(server.ports)
    yield "`yelpaze.rpc.Channel`", lambda: least_busy(server.address)
    if proxies.envoy():
        yield "Envoy, `LEAST_REQUEST`", lambda: behind("envoy.yaml", first)
    if proxies.nginx():
        yield "nginx, `least_conn`", lambda: behind("nginx.conf", first)


# ── measuring ───────────────────────────────────────────────────────────────────


async def call_all(
    channels: list[Any], method: str, lengths: list[float]
) -> tuple[float, dict[bytes, list[float]]]:
    """Seconds for all calls, and the milliseconds of the calls of each process."""
    calls = [channel.unary_unary(f"/balance.Work/{method}") for channel in channels]
    waiting, done = iter(enumerate(lengths)), dict[bytes, list[float]]()

    async def caller() -> None:
        for number, length in waiting:
            process = await calls[number % len(calls)](f"{length}".encode(), timeout=120)
            done.setdefault(process, []).append(length)

    # The first calls find out who is there.
    await asyncio.gather(*(call(b"0", timeout=30) for call in calls for _ in range(PROCESSES)))
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return time.perf_counter() - began, done


async def balance(calls: int) -> None:
    random.seed(7)  # the same calls in all ways
    lengths: list[float] = [LONG if random.random() < LONG_SHARE else SHORT for _ in range(calls)]
    print("| way | calls of each process | busy | calls a second |")
    print("|---|---|---|---|")
    first = proxies.free_ports(proxies.SPARE_PORTS)
    ports = (first, first + proxies.SPARE_PORTS - 1)
    async with served(processes=PROCESSES, threads=1, private_ports=ports) as server:
        for name, way in ways(server, first):
            # Where a connection leads is chance: the middle one of three draws.
            draws = [await drawn(way, lengths) for _ in range(3 if name.startswith("one port") else 1)]
            took, done = sorted(draws, key=lambda draw: draw[0])[len(draws) // 2]
            each = sorted((len(found) for found in done.values()), reverse=True)
            each += [0] * (PROCESSES - len(each))
            busy = sum(map(sum, done.values())) / 1000 / took / PROCESSES
            print(f"| {name} | {' · '.join(map(str, each))} | {busy:.0%} | {calls / took:.0f} |", flush=True)


async def drawn(way: Callable[[], Any], lengths: list[float]) -> tuple[float, dict[bytes, list[float]]]:
    async with way() as channels:
        return await call_all(channels, "Hold", lengths)


async def idle(draws: int) -> None:
    """How many processes get no connection, out of many draws."""
    print(f"\n| connections | of {PROCESSES} processes idle, (1 - 1/{PROCESSES})^K | measured |")
    print("|---|---|---|")
    async with served(processes=PROCESSES, threads=1) as server:
        for count in (1, 2, 4, 8, 16):
            reached = Counter[int]()
            for _ in range(draws):
                async with connections(server.address, count) as found:
                    calls = (channel.unary_unary("/balance.Work/Hold")(b"0", timeout=30) for channel in found)
                    reached[len(set(await asyncio.gather(*calls)))] += 1
            share = sum((PROCESSES - found) * times for found, times in reached.items()) / draws / PROCESSES
            print(f"| {count} | {(1 - 1 / PROCESSES) ** count:.0%} | {share:.0%} |", flush=True)


async def threads(calls: int) -> None:
    """The same CPU work in threads of one process and in processes."""
    print(f"\n| {SPIN} ms of Python a call | calls a second |")
    print("|---|---|")
    for processes, count in ((1, 1), (1, 4), (2, 1)):
        async with (
            served(processes=processes, threads=count) as server,
            least_busy(server.address) as channels,
        ):
            took, _ = await call_all(channels, "Spin", [SPIN] * calls)
        name = f"processes={processes}, threads={count}"
        print(f"| `{name}` | {calls / took:.0f} |", flush=True)


async def main(calls: int) -> None:
    await balance(calls)
    await idle(max(1, calls // 20))
    await threads(max(1, calls // 2))


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--calls", type=int, default=800)
    asyncio.run(main(flags.parse_args().calls))
