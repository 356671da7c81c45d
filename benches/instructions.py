"""Count the instructions of a request, a row and a delivery, in this tree or against another one.

    python benches/instructions.py                       this tree
    python benches/instructions.py --against OTHER/src   both, in alternating rounds, with the ratios
    python benches/instructions.py --cpu …               CPU time in place of instructions

Each scenario runs under valgrind (callgrind, user instructions only) with a small and a large count; the
difference, divided by the difference of the counts, is the cost of one. What starts and ends a process
cancels out. Only public commands and names are used, so that any version can be measured.

request   Engine.stream over plain HTTP, keep-alive, 64 connections
gzip      the same, with answers of 10 KB of JSON in gzip
row       `yelpaze run`: JSON Lines, one call, one inline CPU step, JSON Lines
delivery  `yelpaze live`: a publication over the server API, to 50 plain WebSockets, by delivery
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = HERE.parent / "src"
COUNTS = {"request": (300, 1500), "gzip": (300, 1500), "row": (300, 1500), "delivery": (40, 240)}
CPU_COUNTS = {"request": (2000, 22000), "gzip": (2000, 12000), "row": (2000, 22000), "delivery": (200, 2200)}
SPENT = [0.0]  # nanoseconds, by all children until now
VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
READERS = 50
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"value": 42}'
PACKED = gzip.compress(
    json.dumps([{"id": n, "name": f"item {n}", "cents": n * 7} for n in range(230)]).encode(), 6, mtime=0
)
PACKED_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(PACKED), PACKED)
)
FLOW = """
from yelpaze import Flow, get
flow = Flow("bench", engine={{"per_host": 64}})

@flow.request
def call(row):
    return get("{url}/" + str(row["n"]))

@flow.compute
def total(call: dict, row: dict) -> dict:
    return {{"n": row["n"], "sum": call["value"] + row["n"]}}
"""
REQUESTS = """
import asyncio, sys
from yelpaze import Engine, get

async def main(url, count):
    async with Engine(per_host=64) as engine:
        async for outcome in engine.stream((get(url) for _ in range(count)), concurrency=64):
            assert outcome.ok, outcome.error

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Answers(asyncio.Protocol):
    """Answers every request at once with the same JSON."""

    answer = ANSWER

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(self.answer * data.count(b"\r\n\r\n"))


class PackedAnswers(Answers):
    answer = PACKED_ANSWER


def command(source, *words):
    """A command on the sources of one tree, under callgrind unless CPU time is measured."""
    env = {**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return [*VALGRIND, sys.executable, *map(str, words)], env


async def counted(source, *words, cwd=None):
    argv, env = command(source, *words)
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    return collected(process.returncode, errors.decode())


def cpu_of_last_child():
    """Nanoseconds of user and system time that the children have used since the last call."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before, SPENT[0] = SPENT[0], (used.ru_utime + used.ru_stime) * 1e9
    return SPENT[0] - before


def collected(code, text):
    if not VALGRIND and code == 0:
        return cpu_of_last_child()
    found = re.search(r"Collected : (\d+)", text)
    if code != 0 or found is None:
        sys.exit(f"the measured process failed ({code}):\n{text}")
    return int(found[1])


async def request(source, count, folder):
    async with serving() as url:
        return await counted(source, "-c", REQUESTS, url, count)


async def packed(source, count, folder):
    async with serving(PackedAnswers) as url:
        return await counted(source, "-c", REQUESTS, url, count)


async def row(source, count, folder):
    async with serving() as url:
        (folder / "flow.py").write_text(FLOW.format(url=url))
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(count)))
        run = ["-m", "yelpaze.cli.main", "run", "flow.py", "in.jsonl", "-o", "out.jsonl"]
        return await counted(source, *run, "--workers", "0", "--quiet", "--restart", cwd=folder)


@contextlib.asynccontextmanager
async def serving(protocol=Answers):
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def delivery(source, count, folder):
    settings = {
        "client": {"insecure": True},
        "http_api": {"insecure": True},
        "websocket": {"plain_ping_interval": "0s"},
        "shutdown": {"timeout": "0s"},
    }
    (folder / "live.json").write_text(json.dumps(settings))
    words = ["-m", "yelpaze.cli.main", "live", "--config", folder / "live.json", "--listen", "127.0.0.1:0"]
    argv, env = command(source, *words)
    process = await asyncio.create_subprocess_exec(*argv, env=env, stderr=subprocess.PIPE)
    said = ""
    while (found := re.search(r"live at http://127\.0\.0\.1:(\d+)", said)) is None:
        line = await process.stderr.readline()
        if not line:
            sys.exit(f"the gateway did not start:\n{said}")
        said += line.decode()
    port = int(found[1])
    readers = [await reader_on(port) for _ in range(READERS)]
    await asyncio.to_thread(publish, port, count)
    for reader, writer in readers:
        received = 0
        while received < count:
            received += (await reader.read(1 << 16)).count(b"forty-two")
        writer.close()
    process.send_signal(signal.SIGTERM)
    rest = (await process.stderr.read()).decode()
    return collected(await process.wait(), said + rest) / READERS


async def reader_on(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /ws/news HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def publish(port, count):
    body = json.dumps({"channel": "news", "data": "forty-two"}).encode()
    for _ in range(count):
        call = urllib.request.Request(f"http://127.0.0.1:{port}/api/publish", body)
        urllib.request.urlopen(call, timeout=60).read()


SCENARIOS = {"request": request, "gzip": packed, "row": row, "delivery": delivery}


def cost(name, source):
    """Instructions, or CPU nanoseconds, of one request, row or delivery."""
    small, large = COUNTS[name] if VALGRIND else CPU_COUNTS[name]
    with tempfile.TemporaryDirectory() as folder:
        few, many = (asyncio.run(SCENARIOS[name](source, n, Path(folder))) for n in (small, large))
    return (many - few) / (large - small)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="SRC", help="src folder of another checkout")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="one scenario (repeatable)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="measure CPU time, without valgrind")
    options = parser.parse_args()
    if options.cpu:
        VALGRIND.clear()
    unit = "µs of CPU" if options.cpu else "k instructions"
    for name in options.only or SCENARIOS:
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(cost(name, OURS))
            if options.against:
                theirs.append(cost(name, options.against.resolve()))
        line = f"{name:9} {statistics.median(ours) / 1000:8.1f} {unit}"
        if theirs:
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            line += f"   other {statistics.median(theirs) / 1000:8.1f}   ratio {ratio:.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
