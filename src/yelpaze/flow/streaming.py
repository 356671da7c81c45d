"""`Flow.stream`: rows from Python in, results out, as they complete."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from yelpaze.compute.workers import Who, who
from yelpaze.flow.failure import Failure
from yelpaze.flow.flow import Flow
from yelpaze.flow.machine import Manner, engine_for, machine_for
from yelpaze.flow.row import RowRun
from yelpaze.flow.runner import Result, Runner
from yelpaze.io.protocol import Row
from yelpaze.model.errors import MisuseError


async def stream(
    flow: Flow,
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    concurrency: int,
    workers: Who,
    batch: int,
) -> AsyncIterator[Result]:
    """See Flow.stream."""
    if concurrency < 1 or batch < 1:
        raise MisuseError("concurrency and batch take at least 1")
    found = who(workers)
    ready: deque[Result] = deque()
    arrived = asyncio.Event()

    def deliver(row: RowRun, value: Any, failure: Failure | None) -> None:
        ready.append(Result(row.number, row.value, value, failure))
        arrived.set()

    engine = engine_for(flow, concurrency=concurrency)
    manner = Manner(key=uuid.uuid4().hex)
    async with machine_for(flow, engine, workers=found, batch=batch, manner=manner) as machine:
        runner = Runner(machine, deliver, concurrency=concurrency)
        driving = asyncio.ensure_future(runner.drive(_blocks(rows)))
        driving.add_done_callback(lambda _: arrived.set())
        try:
            while not driving.done() or ready:
                while ready:
                    yield ready.popleft()
                    runner.release()
                arrived.clear()
                if not driving.done():
                    await arrived.wait()
            await driving
        finally:
            runner.stop()
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)


async def _blocks(rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[list[Row]]:
    number = 0
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            number += 1
            yield [(number, None, row)]
        return
    for row in rows:
        number += 1
        yield [(number, None, row)]
