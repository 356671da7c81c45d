"""CPU a request, with no policy, with the defaults, and with all of them; by turns."""

import asyncio
import json
import statistics
import sys
import time

from yelpaze import Engine, Hedge, Limit, get

WAYS = {
    "none": {"retry": None, "budget": None, "breaker": None, "limit": Limit(concurrency=64)},
    "default": {"limit": Limit(concurrency=64)},
    # A rate that is never reached, and an adaptive limit that grows to what is under way: their
    # bookkeeping is in the figure, waiting for them is not.
    "all": {
        "limit": Limit(concurrency="auto", rate="1000000/s", burst=1000),
        "hedge": Hedge(),
        "deadline": 30.0,
    },
}


async def main(task: dict) -> dict[str, float]:
    engines = {
        name: Engine(concurrency=64, connections=64, ca_file=task["ca_file"], http_version="1.1", **options)
        for name, options in WAYS.items()
    }
    figures: dict[str, list[float]] = {name: [] for name in WAYS}

    async def run(engine: Engine, count: int) -> None:
        async for outcome in engine.stream(get(task["url"]) for _ in range(count)):
            assert outcome.ok

    for engine in engines.values():
        await engine.__aenter__()
        await run(engine, 5_000)
    for _ in range(task["rounds"] * 4):
        for name, engine in engines.items():
            began = time.process_time()
            await run(engine, task["count"] // 4)
            figures[name].append((time.process_time() - began) / (task["count"] // 4) * 1e6)
    for engine in engines.values():
        await engine.close()
    result = {name: statistics.median(values) for name, values in figures.items()}
    for name in WAYS:
        more = [ours - none for ours, none in zip(figures[name], figures["none"], strict=True)]
        result[f"{name}_more"] = statistics.median(more)
    return result


print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
