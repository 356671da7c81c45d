"""`Flow.stream`: rows from Python in, results out, as they complete."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

from yelpaze.compute.workers import Who, who
from yelpaze.flow.context import ExecutionOptions, engine_for, open_context
from yelpaze.flow.execution import RowExecution
from yelpaze.flow.failure import Failure
from yelpaze.flow.plan import Plan
from yelpaze.flow.result import Result
from yelpaze.flow.runner import Runner
from yelpaze.io.protocol import Row
from yelpaze.model.errors import MisuseError


async def stream(
    plan: Plan,
    rows: Iterable[Any] | AsyncIterable[Any],
    *,
    concurrency: int,
    workers: Who,
    batch: int,
    engine: Mapping[str, Any],
) -> AsyncIterator[Result]:
    """See Flow.stream."""
    if concurrency < 1 or batch < 1:
        raise MisuseError("concurrency and batch take at least 1")
    found = who(workers)
    opened = engine_for(plan, concurrency=concurrency, overrides=engine)
    options = ExecutionOptions(key=uuid.uuid4().hex)
    results = _Results()
    async with open_context(plan, opened, workers=found, batch=batch, options=options) as context:
        runner = Runner(context, results, concurrency=concurrency)
        driving = asyncio.ensure_future(runner.drive(_blocks(rows)))
        driving.add_done_callback(lambda _: results.arrived.set())
        try:
            while not driving.done() or results.ready:
                while results.ready:
                    row, result = results.ready.popleft()
                    yield result
                    runner.release(row)
                results.arrived.clear()
                if not driving.done():
                    await results.arrived.wait()
            await driving
        finally:
            runner.stop()
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)


class _Results:
    """A RowConsumer: results that have not been taken yet."""

    def __init__(self) -> None:
        self.ready: deque[tuple[RowExecution, Result]] = deque()
        self.arrived = asyncio.Event()

    def begin(self, number: int) -> None:
        """See RowConsumer."""

    def end(self, row: RowExecution, value: Any, failure: Failure | None) -> None:
        self.ready.append((row, Result(row.number, row.value, value, failure)))
        self.arrived.set()


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
