"""Hedging, budget and deadline against a real server on a real socket."""

import asyncio
import json
import subprocess
import sys
import time
from itertools import count

from yelpaze import Engine, Hedge, get

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
PARTS = {"customer": 150, "order": 200, "payment": 180, "shipping": 220}


class Peer(asyncio.Protocol):
    """2 % of the answers are slow; `/503` is refused."""

    numbers = count(1)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /503"):
            self.transport.write(REFUSAL)
        elif next(Peer.numbers) % 50:
            asyncio.get_running_loop().call_later(0.010, self.transport.write, ANSWER)
        else:
            asyncio.get_running_loop().call_later(0.300, self.transport.write, ANSWER)


async def tail(url: str, **options: object) -> tuple[float, float, float]:
    took: list[float] = []
    async with Engine(concurrency=100, per_host=100, **options) as engine:

        async def one(number: int) -> None:
            await asyncio.sleep(number * 0.002)
            took.append((await engine.send(get(url))).elapsed * 1000)

        await asyncio.gather(*(one(number) for number in range(4000)))
        attempts = engine.statistics().attempts / 4000
    took.sort()
    return took[2000], took[3960], attempts


async def refused(url: str, **options: object) -> float:
    async with Engine(concurrency=500, per_host=500, breaker=None, **options) as engine:
        await asyncio.gather(*(engine.send(get(f"{url}503")) for _ in range(3000)))
        return engine.statistics().attempts / 3000


async def order_page() -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "yelpaze.cli.main",
        "demo",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]
    shop_process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert shop_process.stderr
    shop = json.loads(shop_process.stderr.readline())["url"]
    page = {name: get(f"{shop}/order-page/{name}") for name in PARTS}
    broken = {**page, "shipping": get(f"{shop}/order-page/shipping?fault=stall"), "payment": get(f"{shop}/order-page/payment?fault=500")}  # fmt: skip
    took = {}
    try:
        async with Engine() as engine:
            await engine.gather(page)
            for name, asked in (("page", page), ("partial", broken)):
                began = time.perf_counter()
                outcomes = await engine.gather(asked, deadline=0.5)
                took[name] = (time.perf_counter() - began) * 1000
                assert outcomes["customer"].ok
    finally:
        shop_process.terminate()
        shop_process.wait()
    return {**took, "slowest": max(PARTS.values())}


async def main() -> dict[str, float]:
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0, backlog=1000)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    figures = {}
    for name, options in (("plain", {}), ("hedged", {"hedge": Hedge()})):
        p50, p99, attempts = await tail(url, **options)
        figures |= {f"{name}_p50": p50, f"{name}_p99": p99, f"{name}_attempts": attempts}
    figures["budget_attempts"] = await refused(url)
    figures["no_budget_attempts"] = await refused(url, budget=None)
    server.close()
    return figures | await order_page()


print(json.dumps(asyncio.run(main())))
