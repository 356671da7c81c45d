"""What the CPU stage itself costs a row: an empty step in worker processes, no calls.

Prints the CPU time of all processes a row: of the whole row (taken, submitted, pickled both ways,
delivered), and of the same with the step called inline.
"""

import asyncio
import json
import resource
import sys

from yelpaze import Flow

flow = Flow("stage")
ROW = {"id": 1, "name": "abcdefgh", "items": [1, 2, 3, 4, 5]}


@flow.compute
def empty(row):
    return 1


def cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


async def run(rows: int, workers: int) -> float:
    before = cpu()
    async for result in flow.stream((ROW for _ in range(rows)), workers=workers):
        assert result.ok
    return cpu() - before


async def main(rows: int) -> None:
    # The difference of two lengths leaves out starting and stopping the processes.
    inline = await run(2 * rows, 0) - await run(rows, 0)
    workers = await run(2 * rows, 2) - await run(rows, 2)
    print(json.dumps({"row_us": workers / rows * 1e6, "inline_us": inline / rows * 1e6}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
