"""Call a worker's functions from a program.

python examples/remote_workers/from_python.py grpc://127.0.0.1:50051
"""

import asyncio
import sys

from yelpaze.rpc import Functions, RemoteError


async def main(workers: str) -> None:
    async with Functions(workers, module="flow") as loans:
        print(f"one: {await loans.call('monthly', 10_000, rate=0.05):.2f} a month")
        rates = [{"id": n, "amount": 1000.0 * n, "rate": 0.08} for n in range(1, 6)]
        async for risk in loans.map("risk", rates):  # in order, 256 at once
            print(f"loan {risk['id']}: {risk['default']:.0%} default")
        try:
            await loans.call("monthly", "much", 0.05)
        except RemoteError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:50051"))
