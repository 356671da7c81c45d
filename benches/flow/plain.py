"""The plain asyncio way: aiohttp, one task a row made up front, a job a row for the pool.

`python plain.py ROWS` prints the figures as JSON.
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import aiohttp
from flow import URL, burn


def business_logic(details: dict, prices: dict, stock: dict) -> dict:
    return burn(details)


async def row(session: aiohttp.ClientSession, pool: ProcessPoolExecutor, number: int) -> dict:
    async def call(body: dict) -> dict:
        async with session.post(URL, json=body) as response:
            return await response.json()

    base = await call({"n": number})
    details = await call(base["data"])
    prices = await call(base["data"])
    stock = await call(base["data"])
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, business_logic, details, prices, stock)


async def main(rows: int) -> None:
    with ProcessPoolExecutor() as pool:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(row(session, pool, number) for number in range(200)))
            began = time.perf_counter()
            await asyncio.gather(*(row(session, pool, number) for number in range(rows)))
            seconds = time.perf_counter() - began
    print(json.dumps({"rows_per_second": rows / seconds}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
