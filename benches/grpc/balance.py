"""python balance.py [JSON]: who gets a call, by three ways to choose.

Four processes of one call at a time, clients in closed loop, calls of 10 to 200 ms. Four processes cannot
work at once on two cores, so a call sleeps that long in its process's only thread: it stands for work on a
machine with a core for each. What sleeps leaves the GIL to the process's other threads; what works doesn't.

Ways: our Channel; one gRPC channel for each client on the shared port, which the kernel gives to a process
(SO_REUSEPORT); gRPC's own round_robin over the processes' private ports. Each client has connections of its
own. A process is busy from a call's begin to its end by its own clock, within the window.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import uvloop
from children import Generated, child, free_port, generated, known, share, task_from_argv

from yelpaze.rpc import Channel

PROCESSES = 4
LEAST, MOST = 0.010, 0.200  # seconds that a call takes its process
SEED = 20
OWN = ("grpc.use_local_subchannel_pool", 1)  # else channels to one address share a connection
ROUND_ROBIN = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
WAYS = ("yelpaze", "kernel", "round_robin")


@contextlib.asynccontextmanager
async def opened(way: str, port: int, clients: int) -> AsyncIterator[list[Any]]:
    """The clients' channels, each with its connections made."""
    async with contextlib.AsyncExitStack() as stack:
        enter, address = stack.enter_async_context, f"127.0.0.1:{port}"
        ours = [
            await enter(Channel(address, options=[OWN])) for _ in range(clients if way == "yelpaze" else 1)
        ]
        for channel in ours:
            await known(channel, PROCESSES)
        if way == "yelpaze":
            yield ours
            return
        options: list[tuple[str, Any]] = [OWN]
        if way == "round_robin":
            # In an order of each client's own, so that they do not all go round together.
            places = [peer.address.text for peer in ours[0].peers.ready()]
            options.append(("grpc.service_config", ROUND_ROBIN))
        channels = []
        for number in range(clients):
            target = address
            if way == "round_robin":
                target = "ipv4:" + ",".join(random.Random(SEED + number).sample(places, len(places)))
            channels.append(await enter(grpc.aio.insecure_channel(target, options=options)))
            await asyncio.wait_for(channels[-1].channel_ready(), 10)
        await ours[0].close()
        yield channels


async def window(code: Generated, channels: list[Any], seconds: float, seed: int) -> dict[str, Any]:
    """All clients call, one call after another, until the time is over; what happened within it."""
    began = time.monotonic() + 0.5  # all have a call under way by then
    ends = began + seconds
    busy: dict[int, float] = {}
    took: list[float] = []

    async def client(channel: Any, lengths: random.Random) -> None:
        hold: Callable[..., Any] = code.Stub(channel).Hold
        while (sent := time.monotonic()) < ends:
            done = await hold(code.Order(seconds=lengths.uniform(LEAST, MOST)), timeout=60)
            within = min(done.ended, ends) - max(done.began, began)
            busy[done.process] = busy.get(done.process, 0.0) + max(0.0, within)
            if sent >= began:
                took.append(time.monotonic() - sent)

    own = time.process_time()
    lengths = [random.Random(seed * 1000 + number) for number in range(len(channels))]
    await asyncio.gather(*map(client, channels, lengths))
    shares = [seconds_busy / seconds for seconds_busy in busy.values()]
    return {
        "busy": sum(shares) / PROCESSES,
        "least_busy": min(shares) if len(shares) == PROCESSES else 0.0,
        "took": took,
        "client_cores": (time.process_time() - own) / (seconds + 0.5),
    }


async def main(rounds: int = 3, seconds: float = 5.0, clients: int = 16) -> dict[str, dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    port = free_port()
    with generated() as code, child("ours.py", port, PROCESSES, 1, code=code):
        for number in range(rounds):
            for way in WAYS:
                async with opened(way, port, clients) as channels:
                    found[way].append(await window(code, channels, seconds, SEED + number))
                shown = {name: value for name, value in found[way][-1].items() if name != "took"}
                print(f"balance: {clients} clients: {way}: {shown}", file=sys.stderr)
    return {way: summed(figures) for way, figures in found.items()}


def summed(figures: list[dict[str, Any]]) -> dict[str, Any]:
    took = [one * 1000 for figure in figures for one in figure["took"]]
    return {
        "busy": sum(figure["busy"] for figure in figures) / len(figures),
        "worst": min(figure["busy"] for figure in figures),
        "least_busy": min(figure["least_busy"] for figure in figures),
        "p50": share(took, 0.50),
        "p99": share(took, 0.99),
        "calls": len(took),
        "client_cores": max(figure["client_cores"] for figure in figures),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(**task_from_argv()))))
