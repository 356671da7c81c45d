"""httpx on asyncio: one AsyncClient, its limits as wide as the task."""

import asyncio

import httpx
from measure import Task, pull, task_from_argv, timed


async def main(task: Task) -> None:
    keep = 0 if task.fresh else task.connections
    limits = httpx.Limits(max_connections=task.connections, max_keepalive_connections=keep)
    async with httpx.AsyncClient(limits=limits, verify=task.tls(), http2=task.http2, timeout=60) as client:

        async def one() -> None:
            response = await client.get(task.url)
            task.check(response.status_code, response.content)

        await timed(task, lambda count: pull(task, count, one))


asyncio.run(main(task_from_argv()))
