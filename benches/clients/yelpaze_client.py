"""Yelpaze: `engine.stream`, all bookkeeping on."""

import asyncio

from measure import Task, task_from_argv, timed

from yelpaze import Engine, get


async def main(task: Task) -> None:
    async with Engine(
        concurrency=task.connections,
        per_host=task.connections,
        connections=0 if task.fresh else task.connections,
        ca_file=task.ca_file,
        http_version="2" if task.http2 else "1.1",
    ) as engine:

        async def run(count: int) -> None:
            async for outcome in engine.stream(get(task.url) for _ in range(count)):
                task.check(outcome.status, outcome.body)

        await timed(task, run)


asyncio.run(main(task_from_argv()))
