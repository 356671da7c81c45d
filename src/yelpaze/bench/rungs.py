"""The rungs: the same calls, each written as its library's own documentation shows.

Run as `python -m yelpaze.bench.rungs NAME URL SECONDS CONNECTIONS CA_FILE`; prints one JSON
line. Imports, connecting and a warm-up are outside the measure.
"""

import asyncio
import http.client
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

_OK = 200
_WARM_UP = 0.15


class Meter:
    """Counts calls until the time is up."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self.count = 0

    def more(self) -> bool:
        """Whether to make one more call; counts it."""
        if time.perf_counter() >= self._end:
            return False
        self.count += 1
        return True


def _check(status: int) -> None:
    if status != _OK:
        raise SystemExit(f"the server answered {status}")


def requests_loop(url: str, seconds: float, *_: object) -> int:
    """`requests.get` in a loop, as the Quickstart has it: a new connection each."""
    import requests  # noqa: PLC0415  a rung's own library

    meter = Meter(seconds)
    while meter.more():
        _check(requests.get(url, timeout=60).status_code)
    return meter.count


def http_client(url: str, seconds: float, *_: object) -> int:
    """`http.client` with one kept connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    meter = Meter(seconds)
    while meter.more():
        connection.request("GET", parts.path)
        response = connection.getresponse()
        response.read()
        _check(response.status)
    connection.close()
    return meter.count


def threads(url: str, seconds: float, connections: int, *_: object) -> int:
    """A thread pool, each thread with a requests.Session."""
    import requests  # noqa: PLC0415

    meter = Meter(seconds)

    def work() -> None:
        with requests.Session() as session:
            while meter.more():
                _check(session.get(url, timeout=60).status_code)

    size = min(connections, 32)
    with ThreadPoolExecutor(size) as pool:
        list(itertools.chain(pool.map(lambda _: work(), range(size))))
    return meter.count


def aiohttp_(url: str, seconds: float, connections: int, *_: object) -> int:
    """Asyncio and aiohttp: one session, as many tasks as connections."""
    import aiohttp  # noqa: PLC0415

    async def main() -> int:
        meter = Meter(seconds)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

            async def worker() -> None:
                while meter.more():
                    async with session.get(url) as response:
                        await response.read()
                        _check(response.status)

            await asyncio.gather(*(worker() for _ in range(connections)))
        return meter.count

    return asyncio.run(main())


def yelpaze_(url: str, seconds: float, connections: int, ca_file: str, *, fresh: bool = False) -> int:
    """`engine.stream`, on one core."""
    from yelpaze.http.engine import Engine  # noqa: PLC0415
    from yelpaze.model.request import get  # noqa: PLC0415

    async def main() -> int:
        meter = Meter(seconds)
        async with Engine(
            concurrency=connections,
            per_host=connections,
            connections=0 if fresh else connections,
            ca_file=ca_file or None,
        ) as engine:
            async for outcome in engine.stream(get(url) for _ in iter(meter.more, False)):
                _check(outcome.status)
        return meter.count

    return asyncio.run(main())


def yelpaze_fresh(url: str, seconds: float, connections: int, ca_file: str) -> int:
    """A new connection for each call, as an uptime check makes."""
    return yelpaze_(url, seconds, connections, ca_file, fresh=True)


Rung = Callable[..., int]
RUNGS: dict[str, Rung] = {
    "requests": requests_loop,
    "http.client": http_client,
    "threads": threads,
    "aiohttp": aiohttp_,
    "yelpaze": yelpaze_,
    "yelpaze-fresh": yelpaze_fresh,
}


def peak_kb(usage: resource.struct_rusage) -> int:
    """Peak memory of this program. Linux's ru_maxrss begins at the parent's size, so not that."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return usage.ru_maxrss // 1024


def main() -> None:
    """Measure one rung and print the figures."""
    name, url, seconds, connections, ca_file = sys.argv[1:]
    rung = RUNGS[name]
    rung(url, _WARM_UP, int(connections), ca_file)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    count = rung(url, float(seconds), int(connections), ca_file)
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(  # noqa: T201
        json.dumps(
            {"count": count, "wall": wall, "cpu": cpu, "memory_kb": peak_kb(after)},
        )
    )


if __name__ == "__main__":
    main()
