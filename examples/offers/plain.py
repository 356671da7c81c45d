"""The same offers as people first write them: aiohttp, a task a row, a process pool.

Every row's task is made up front, the three services are called one after the other, and
each CPU step is a job of its own for the pool. No retries: a fault loses the row.

    python plain.py rows.jsonl 2000      prints rows, failed and rows a second as JSON
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import aiohttp
import msgspec
from flow import SHOP, Base, Price, offer


def business_logic(base: dict, details: dict, prices: dict, stock: dict) -> dict:
    made = offer(msgspec.convert(base, Base), details, msgspec.convert(prices, dict[str, Price]), stock)
    return msgspec.to_builtins(made)


async def row(session: aiohttp.ClientSession, pool: ProcessPoolExecutor, line: str) -> dict:
    async def call(url: str, body: dict) -> dict:
        async with session.post(url, json=body) as response:
            response.raise_for_status()
            return await response.json()

    given = json.loads(line)
    base = await call(given["url"], given["json"])
    details = await call(f"{SHOP}/details", base["data"])
    prices = await call(f"{SHOP}/prices", base["data"])
    stock = await call(f"{SHOP}/inventory", base["data"])
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, business_logic, base, details, prices, stock)


async def main(path: str, limit: int) -> None:
    lines = Path(path).read_text().splitlines()[:limit]
    with ProcessPoolExecutor() as pool:
        async with aiohttp.ClientSession() as session:
            began = time.perf_counter()
            results = await asyncio.gather(
                *(row(session, pool, line) for line in lines), return_exceptions=True
            )
            seconds = time.perf_counter() - began
    failed = sum(isinstance(result, BaseException) for result in results)
    print(json.dumps({"rows": len(lines), "failed": failed, "rows_per_second": len(lines) / seconds}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
