"""python killed.py [JSON]: a process of the server killed (SIGKILL) every second, under load.

Half of the callers use an idempotent Channel, of which no call may fail; the others one that isn't: what
fails there shows that the kills met calls under way. Calls take 20 ms, but no CPU.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

import grpc
import uvloop
from children import Generated, child, children_of, free_port, generated, known, share, task_from_argv

from yelpaze.rpc import Channel

SECONDS_A_CALL = 0.020
TIMEOUT = 10.0
SEED = 20


class Caller:
    """Calls one after another until told to stop, and counts how they ended."""

    def __init__(self) -> None:
        self.is_over = False
        self.failed = Counter[str]()
        self.took: list[float] = []

    async def run(self, code: Generated, channel: Channel) -> None:
        hold, order = code.Stub(channel).Hold, code.Order(seconds=SECONDS_A_CALL)
        while not self.is_over:
            began = time.monotonic()
            try:
                await hold(order, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                self.failed[f"{error.code().name}: {error.details()}"] += 1
            self.took.append(time.monotonic() - began)

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "calls": len(self.took),
            "failed": sum(self.failed.values()),
            "why": dict(self.failed.most_common(3)),
            "p50": share(self.took, 0.5) * 1000,
            "p99": share(self.took, 0.99) * 1000,
            "longest": max(self.took) * 1000,
        }


async def killing(server: int, seconds: float, every: float) -> dict[str, Any]:
    """Kill one of the server's processes, any, each time; how many there were just before."""
    chosen, there = random.Random(SEED), []
    ends = time.monotonic() + seconds
    while time.monotonic() + every < ends:
        await asyncio.sleep(every)
        living = sorted(children_of(server))
        there.append(len(living))
        if living:
            os.kill(chosen.choice(living), signal.SIGKILL)
    await asyncio.sleep(max(0.0, ends - time.monotonic()))
    return {"kills": sum(map(bool, there)), "fewest": min(there), "processes": sum(there) / len(there)}


async def main(
    seconds: float = 60.0, every: float = 1.0, processes: int = 4, callers: int = 8
) -> dict[str, Any]:
    port = free_port()
    again, once = Caller(), Caller()
    with generated() as code, child("ours.py", port, processes, 0, code=code) as server:
        target = f"grpc://127.0.0.1:{port}"
        async with Channel(target, idempotent=True) as one, Channel(target) as other:
            await known(one, processes)
            await known(other, processes)
            load = asyncio.gather(
                *(again.run(code, one) for _ in range(callers)),
                *(once.run(code, other) for _ in range(callers)),
            )
            found = await killing(server, seconds, every)
            again.is_over = once.is_over = True
            await load
    found |= {"idempotent": again.figures, "once": once.figures}
    print(f"killed: {found}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(**task_from_argv()))))
