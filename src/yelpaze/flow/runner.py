"""Many rows at once, within bounds: no more are taken than can be under way."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from yelpaze.flow.context import RunContext
from yelpaze.flow.execution import RowExecution
from yelpaze.flow.failure import Failure
from yelpaze.io.protocol import Row
from yelpaze.io.stoppable import StoppableReader
from yelpaze.model.closing import closing
from yelpaze.policy.look_ahead import LookAhead

_TURN = 256


class RowConsumer(Protocol):
    """Is notified of each row's start and end, in two calls on the event loop."""

    def begin(self, number: int) -> Mapping[int, Any] | None:
        """A row starts. Returns the answers of its steps that are known from before, by step number."""

    def end(self, row: RowExecution, value: Any, failure: Failure | None) -> None:
        """A row has ended. It counts as held until `Runner.release(row)`. An exception ends the run."""


class Runner:
    """Starts rows while fewer than `concurrency` are held.

    A row is held until `release` is called for it, so a slow consumer slows the input down. Rows whose calls
    are parked do not count, up to eight times as many, so one host that is away does not block the others.
    No row starts while those under way hold as many answers as the engine's `memory` allows. What `consumer`
    raises ends the run: `drive` raises it.
    """

    def __init__(self, context: RunContext, consumer: RowConsumer, *, concurrency: int) -> None:
        self._context = context
        self._consumer = consumer
        self._ahead = LookAhead(concurrency)
        self._low = concurrency - max(1, concurrency // 8)
        self._rows: dict[RowExecution, None] = {}
        self._room: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._reader: StoppableReader[list[Row]] | None = None
        self._draining = self._is_short = False
        self.stopped = False

    async def drive(self, blocks: AsyncIterator[list[Row]]) -> None:
        """Run all rows; return when the last has ended, or after `stop`."""
        try:
            async with closing(blocks):
                await self._start_all(blocks)
            while self._rows and not self.stopped:
                await self._wait()
        finally:
            self._cancel_rows()
            if self._error is not None:
                raise self._error

    async def _start_all(self, blocks: AsyncIterator[list[Row]]) -> None:
        started = 0
        reader = self._reader = StoppableReader(blocks)
        while (block := await reader.next()) is not None:
            for number, raw, value in block:
                while not (self._has_room() or self.stopped or self._draining):
                    await self._wait()
                if self.stopped or self._draining:
                    break
                self._start(number, raw, value)
                started += 1
                if started % _TURN == 0:  # rows that end at once must not keep the loop to themselves
                    await asyncio.sleep(0)

    def _start(self, number: int, raw: bytes | None, value: Any) -> None:
        row = RowExecution(self._context, number, raw, value, self._ended, self._on_parked)
        self._rows[row] = None
        self._ahead.held += 1
        answers = self._consumer.begin(number)
        if answers:
            row.start_with(answers)
        else:
            row.start()

    def _ended(self, row: RowExecution, value: Any, failure: Failure | None) -> None:
        del self._rows[row]
        if not self._rows:
            self._wake()
        if self.stopped:
            return
        try:
            self._consumer.end(row, value, failure)
        except BaseException as error:  # noqa: BLE001  raised by drive()
            self._error = error
            self.stop()

    def _on_parked(self, change: int) -> None:
        """A row is parked, or no longer."""
        self._ahead.parked += change
        if change > 0 and self._ahead.busy <= self._low:
            self._wake()

    def release(self, row: RowExecution) -> None:
        """The consumer is done with an ended row: one more may start."""
        row.let_go()
        self._ahead.held -= 1
        if self._ahead.busy <= self._low or self._is_short:
            self._wake()

    def _has_room(self) -> bool:
        self._is_short = self._context.engine.is_full and bool(self._rows)
        return self._ahead.has_room and not self._is_short

    def drain(self) -> None:
        """Take no more rows; those under way go on to their end."""
        self._draining = True
        if self._reader is not None:
            self._reader.stop()
        self._wake()

    def stop(self) -> None:
        """Take no more rows and drop those under way."""
        self.stopped = True
        if self._reader is not None:
            self._reader.stop()
        self._wake()

    def _cancel_rows(self) -> None:
        for row in list(self._rows):
            row.cancel()
        self._rows.clear()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        await self._room
