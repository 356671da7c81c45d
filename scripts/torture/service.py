"""The flow, and the server that it calls: which rows fail, and how often each was asked for."""

import asyncio
import contextlib
import json
import mmap
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from promises import MOST_ROWS, PATIENCE

FLOW = """
import os
from hashlib import sha256
from typing import TypedDict
from yelpaze import Breaker, Flow, Timeout, post

URL = os.environ["TORTURE_URL"]
flow = Flow("torture", engine={"timeout": Timeout(attempt=1.0), "breaker": Breaker(pause=1.0)})

@flow.request(idempotent=True)
def first(row):
    return post(f"{URL}/1/{row['n']}", json=row)

@flow.request(idempotent=True)
def second(first: dict):
    return post(f"{URL}/2/{first['n']}", json=first)

class Result(TypedDict):
    n: int
    total: int
    share: float
    word: str

@flow.compute(timeout=2)
def result(row: dict, first: dict, second: dict) -> Result:
    digest = b"%d" % int(row["n"])
    for _ in range(1000):
        digest = sha256(digest).digest()
    n = first["n"]
    return {"n": n, "total": first["base"] + second["add"], "share": n / 7, "word": digest.hex()}
"""


def fails_at(n):
    """The step at which that row fails, or 0, and the status."""
    if n % 13 == 5:
        return 1, 404
    return (2, 422) if n % 17 == 3 else (0, 200)


class Counts:
    """How often the server was asked for a row, in a file that outlives it.

    Two bytes before the counts tell the server what to do: `healed`, the steps that fail no more
    (1, 2, or 3 for both), and `hurried`, whether it answers without delay.
    """

    def __init__(self, path):
        size = 2 + 2 * 2 * (MOST_ROWS + 1)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._counts = memoryview(self._map)[2:].cast("H")

    def add(self, step, n):
        self._counts[(step - 1) * (MOST_ROWS + 1) + n] += 1

    def snapshot(self):
        values = self._counts.tolist()
        return {1: values[: MOST_ROWS + 1], 2: values[MOST_ROWS + 1 :]}

    def total(self):
        return sum(self._counts)

    healed = property(lambda self: self._map[0], lambda self, steps: self._map.__setitem__(0, steps))
    hurried = property(lambda self: self._map[1], lambda self, is_so: self._map.__setitem__(1, is_so))


def serve(port, path):
    """The server's process: the same answer for the same row, after the same delay."""
    counts = Counts(path)

    def answer(step, n):
        at, status = fails_at(n)
        if at != step or counts.healed & step:
            return 200, {"n": n, "base": n * 7 % 1000} if step == 1 else {"add": n * n % 997}
        return status, {"error": "so it is"}

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.data = transport, b""

        def data_received(self, data):
            self.data += data
            head, end, body = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if not end or len(body) < int(length[1]):
                return
            self.data = b""
            step, n = map(int, head.split(b" ", 2)[1].decode().strip("/").split("/"))
            counts.add(step, n)
            status, value = answer(step, n)
            text = json.dumps(value)
            kind = "Content-Type: application/json"
            line = f"HTTP/1.1 {status} X\r\n{kind}\r\nContent-Length: {len(text)}\r\n\r\n"
            # So long that a run lasts some seconds: commits come once a second.
            delay = 0.4 if n % 50 == 0 else (20 + (n * 7919 + step) % 81) / 1000
            later = asyncio.get_running_loop().call_later
            later(0 if counts.hurried else delay, self.reply, (line + text).encode())

        def reply(self, data):
            if not self.transport.is_closing():
                self.transport.write(data)

    async def main():
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=512)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


class Server:
    """The server's process, which can die and come back."""

    def __init__(self, folder):
        self._path = folder / "counts"
        self.counts = Counts(self._path)
        self._log = (folder / "server.err").open("ab")
        # Below the ports that the system gives away: nobody takes it while the server is dead.
        chance = random.SystemRandom()  # two runs with one seed must not draw the same
        for _ in range(100):
            self.port = chance.randrange(20000, 30000)
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", self.port)):
                break
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parent, "--serve", str(self.port), "--counts", str(self._path)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start on port {self.port}")

    def die(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.die()
        self._log.close()
