"""500 products' prices: at most 20 at once, a pool of 50 connections, within the provider's rate.

    python examples/bulk_prices/bulk_prices.py http://127.0.0.1:8099 > prices.json

Errors are kept beside the prices, so the caller decides what to do about them.
"""

import asyncio
import json
import sys
from typing import Any

from yelpaze import Engine, Limit, Retry, post

PRODUCTS = [f"lamp-{number:03}" for number in range(500)]


async def prices(shop: str, products: list[str], *, rate: str = "200/s") -> dict[str, dict[str, Any]]:
    """{product: {"cents": …} or {"error": …}}, in the order of `products`."""
    requests = (
        post(f"{shop}/prices", json={"items": [{"sku": sku, "quantity": 1}]}, idempotent=True)
        for sku in products
    )
    found: dict[str, dict[str, Any]] = {}
    async with Engine(
        concurrency=20,
        connections=50,
        limit=Limit(concurrency=20, rate=rate, burst=5),
        retry=Retry(attempts=5),
        park=30,
    ) as engine:
        names = iter(products)
        async for outcome in engine.stream(requests, ordered=True):
            sku = next(names)
            found[sku] = outcome.json()[sku] if outcome.ok else {"error": str(outcome.error)}
    return found


if __name__ == "__main__":
    shop = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8099"
    print(json.dumps(asyncio.run(prices(shop, PRODUCTS)), indent=1))
