"""pyreqwest: one client from its builder, on asyncio."""

import asyncio
from pathlib import Path

from measure import Task, pull, task_from_argv, timed
from pyreqwest.client import ClientBuilder


async def main(task: Task) -> None:
    builder = ClientBuilder().max_connections(task.connections).error_for_status(False)
    if task.url.startswith("https"):
        builder = builder.add_root_certificate_pem(Path(task.ca_file).read_bytes())
    if not task.http2:
        builder = builder.http1_only()
    builder = builder.pool_max_idle_per_host(0 if task.fresh else task.connections)
    async with builder.build() as client:

        async def one() -> None:
            response = await client.get(task.url).build().send()
            task.check(response.status, bytes(await response.bytes()))

        await timed(task, lambda count: pull(task, count, one))


asyncio.run(main(task_from_argv()))
