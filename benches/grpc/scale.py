"""python scale.py [JSON]: two processes against one on calls that are pure Python, 10 ms each.

A call is a count of turns that takes 10 ms on a quiet core, so a core that is shared shows. The client
is this process; what it takes is missing where two processes need both cores, and is reported. Two clients:
frames made beforehand, to each process's own port, and our Channel, which is grpc.aio's and takes half a
millisecond a call. Beside them stands what the machine itself gives: the same work in bare processes.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from children import Generated, child, cpu_seconds, free_port, generated, known, task_from_argv
from load import load
from work import turns_in

from yelpaze.rpc import Channel

A_PROCESS = 2  # calls under way for each: one runs, one waits
CALL_SECONDS = 0.010
CLIENTS = ("frames", "channel")


async def calls(code: Generated, processes: int, client: str, count: int, turns: int) -> dict[str, float]:
    port = free_port()
    with child("ours.py", port, processes, 1, code=code) as pid:
        async with contextlib.AsyncExitStack() as stack:
            channel = await stack.enter_async_context(Channel(f"grpc://127.0.0.1:{port}"))
            await known(channel, processes)
            run = partial(by_channel, code, channel)
            if client == "frames":
                ports = [peer.address.port for peer in channel.peers.ready()]
                await channel.close()  # nobody is told how busy they are
                run = partial(by_frames, code, ports)
            await run(processes, 10 * processes, turns)
            server, own, began = cpu_seconds(pid), time.process_time(), time.perf_counter()
            await run(processes, count, turns)
            wall, own = time.perf_counter() - began, time.process_time() - own
            server = cpu_seconds(pid) - server
    return {
        "rate": count / wall,
        "client_cores": own / wall,
        "client_us": own / count * 1e6,
        "server_us": server / count * 1e6,
    }


async def by_frames(code: Generated, ports: list[int], processes: int, count: int, turns: int) -> None:
    message = code.Order(turns=turns).SerializeToString()
    await load(ports, "/calls.Calls/Work", count, connections=1, streams=A_PROCESS, message=message)


async def by_channel(code: Generated, channel: Channel, processes: int, count: int, turns: int) -> None:
    work, order, left = code.Stub(channel).Work, code.Order(turns=turns), count

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work(order, timeout=30)

    await asyncio.gather(*(caller() for _ in range(processes * A_PROCESS)))


def bare(processes: int, count: int, turns: int) -> float:
    """Calls/s of the same work with no calls around it."""
    at = time.monotonic() + 0.3  # when all have started
    script = str(Path(__file__).with_name("work.py"))
    command = [sys.executable, script, str(at), str(count), str(turns)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate(timeout=60)[0]) for process in running)


async def main(rounds: int = 5, count: int = 120) -> dict[str, dict[str, list[Any]]]:
    turns = turns_in(CALL_SECONDS)
    found: dict[str, dict[str, list[Any]]] = {name: {"1": [], "2": []} for name in ("bare", *CLIENTS)}
    with generated() as code:
        for _ in range(rounds):
            for processes in (1, 2):
                found["bare"][str(processes)].append({"rate": bare(processes, count // 2, turns)})
            for client in CLIENTS:
                for processes in (1, 2):
                    figures = await calls(code, processes, client, processes * count, turns)
                    found[client][str(processes)].append(figures)
                    print(f"scale: {client}, {processes}: {figures}", file=sys.stderr)
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(**task_from_argv()))))
