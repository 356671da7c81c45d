"""aiohttp on uvloop: one session, its connector as wide as the task."""

import aiohttp
import uvloop
from measure import Task, pull, task_from_argv, timed


async def main(task: Task) -> None:
    connector = aiohttp.TCPConnector(limit=task.connections, ssl=task.tls(), force_close=task.fresh)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            async with session.get(task.url) as response:
                task.check(response.status, await response.read())

        await timed(task, lambda count: pull(task, count, one))


uvloop.run(main(task_from_argv()))
