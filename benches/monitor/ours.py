"""A monitor in this process, at a rate: what it makes, and what it costs.

    python benches/monitor/ours.py SETTINGS SECONDS ROLE[,ROLE…]

Prints a line of JSON: checks a second, CPU µs a check, lateness, transitions, memory.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from yelpaze.app.monitor import MonitorPart
from yelpaze.bus.settings import BUS_SETTINGS
from yelpaze.model.histogram import Histogram
from yelpaze.monitor.options import MonitorOptions
from yelpaze.process.descriptors import raise_limit


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(settings, seconds, roles):
    raise_limit()
    with tempfile.TemporaryDirectory() as folder:
        options = MonitorOptions(
            files=(settings,),
            bus=BUS_SETTINGS.of({"url": f"{folder}/bus.db"}),
            store=f"{folder}/monitor.db",
            roles=tuple(roles),
            concurrency=5000,
        )
        said = []
        part = MonitorPart(options, said.append)
        began = time.perf_counter()
        await part.start()
        started = time.perf_counter() - began
        running = asyncio.ensure_future(part.run())
        interval = next(iter(part.config.checks.values())).options.interval
        await asyncio.sleep(interval + 2)  # the first round is made at once, and late on purpose
        [prober] = part.probers
        prober._late_before = Histogram()
        prober._late = Histogram()
        made, failed, used, began = prober.made, prober.failed, cpu(), time.perf_counter()
        await asyncio.sleep(seconds)
        wall, used = time.perf_counter() - began, cpu() - used
        count = prober.made - made
        late = Histogram.of(prober.totals().late)
        found = {
            "rate": count / wall,
            "cpu_us": used / max(count, 1) * 1e6,
            "late_p99_ms": late.quantile(0.99) * 1000,
            "failed": (prober.failed - failed) / max(count, 1),
            "skipped": prober.skipped,
            "start_s": started,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if part.evaluate is not None:
            rows = await part._store.read(
                lambda session: session.rows("SELECT DISTINCT check_key FROM incident WHERE state = 'down'")
            )
            keys = [int(key.rpartition("s")[2]) for (key,) in rows]
            found["false_alarms"] = sum(1 for one in keys if one % 100 > 3)
            found["folded"] = part.evaluate.folded
            found["stored"] = part.storage.stored if part.storage is not None else 0
        print(json.dumps(found), flush=True)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await part.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]).as_posix(), float(sys.argv[2]), sys.argv[3].split(",")))
