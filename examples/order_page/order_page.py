"""An order page from four services: complete if all answer, partial if some don't.

    python examples/order_page/order_page.py http://127.0.0.1:8099

The page takes as long as the slowest service, never longer than its deadline. A service that
fails is asked again only while there is time, and is left out of the page then.
"""

import asyncio
import json
import sys
from typing import Any

import yelpaze
from yelpaze import Breaker, Engine, HostPolicy, Outcome, get

PARTS = ("customer", "order", "payment", "shipping")
DEADLINE = 0.5  # seconds for the whole page


def engine() -> Engine:
    """One for the whole application: it keeps connections, breakers and budgets."""
    return Engine(per_host=200, hosts={"*": HostPolicy(breaker=Breaker(calls=20, pause=5))})


@yelpaze.timed("order_page")
async def order_page(engine: Engine, shop: str, queries: dict[str, str] | None = None) -> dict[str, Any]:
    """The page as the browser gets it. `queries` is for trying out faults: {"order": "fault=stall"}."""
    asked = {
        name: get(f"{shop}/order-page/{name}?{(queries or {}).get(name, '')}".rstrip("?")) for name in PARTS
    }
    outcomes = await engine.gather(asked, deadline=DEADLINE)
    return {
        "parts": {name: part(outcome) for name, outcome in outcomes.items()},
        "complete": all(outcome.ok for outcome in outcomes.values()),
    }


def part(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is None:
        return {"data": outcome.json()}
    return {"missing": outcome.error.kind, "trace_id": outcome.trace_id}


async def main(shop: str) -> None:
    async with engine() as calls:
        for faults in ({}, {"shipping": "fault=stall", "payment": "fault=500"}):
            began = asyncio.get_running_loop().time()
            page = await order_page(calls, shop, faults)
            took = asyncio.get_running_loop().time() - began
            print(f"{took * 1000:.0f} ms  {json.dumps(page)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8099"))
