"""Many rows at once, within bounds: no more are taken than can be under way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from yelpaze.flow.failure import Failure
from yelpaze.flow.machine import Machine
from yelpaze.flow.row import RowRun
from yelpaze.io.feed import Feed
from yelpaze.io.protocol import Row
from yelpaze.policy.look_ahead import LookAhead

_TURN = 256
Deliver = Callable[[RowRun, Any, Failure | None], None]


class Result(msgspec.Struct, frozen=True):
    """What became of a row: its number (from 1), the row, and a value or a failure."""

    row: int
    input: Any
    value: Any
    failure: Failure | None

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.failure is None


class Runner:
    """Starts rows while fewer than `concurrency` are held, and hands each end to `deliver`.

    A row is held until `release` is called for it, so that a slow consumer holds up the
    input. Rows whose calls wait for a host don't count, up to eight times as many, so that one
    host that is away does not hold up the others. No row starts while those under way hold
    as many answers as the engine's `memory` allows. What `deliver` raises ends the run: `drive`
    raises it. `answers_of` gives what is known of a row's steps from before.
    """

    def __init__(
        self,
        machine: Machine,
        deliver: Deliver,
        *,
        concurrency: int,
        on_start: Callable[[int], None] | None = None,
        answers_of: Callable[[int], Mapping[int, Any] | None] | None = None,
    ) -> None:
        self._machine = machine
        self._deliver = deliver
        self._on_start = on_start
        self._answers_of = answers_of
        self._ahead = LookAhead(concurrency)
        self._low = concurrency - max(1, concurrency // 8)
        self._rows: dict[RowRun, None] = {}
        self._room: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._feed: Feed[list[Row]] | None = None
        self._draining = self._is_short = False
        self.stopped = False

    async def drive(self, blocks: AsyncIterator[list[Row]]) -> None:
        """Run all rows; return when the last has ended, or after `stop`."""
        try:
            started = 0
            feed = self._feed = Feed(blocks)
            while (block := await feed.next()) is not None:
                for number, raw, value in block:
                    while not (self._has_room() or self.stopped or self._draining):
                        await self._wait()
                    if self.stopped or self._draining:
                        break
                    self._start(number, raw, value)
                    started += 1
                    if started % _TURN == 0:  # rows that end at once must not keep the loop to themselves
                        await asyncio.sleep(0)
            while self._rows and not self.stopped:
                await self._wait()
        finally:
            self._cancel_rows()
            if self._error is not None:
                raise self._error

    def _start(self, number: int, raw: bytes | None, value: Any) -> None:
        row = RowRun(self._machine, number, raw, value, self._ended, self._set_aside)
        self._rows[row] = None
        self._ahead.held += 1
        if self._on_start is not None:
            self._on_start(number)
        answers = self._answers_of(number) if self._answers_of is not None else None
        if answers:
            row.start_with(answers)
        else:
            row.start()

    def _ended(self, row: RowRun, value: Any, failure: Failure | None) -> None:
        del self._rows[row]
        if not self._rows:
            self._wake()
        if self.stopped:
            return
        try:
            self._deliver(row, value, failure)
        except BaseException as error:  # noqa: BLE001  raised by drive()
            self._error = error
            self.stop()

    def _set_aside(self, change: int) -> None:
        """A row waits for a host, or no longer does."""
        self._ahead.aside += change
        if change > 0 and self._ahead.busy <= self._low:
            self._wake()

    def release(self) -> None:
        """A delivered row has been dealt with: one more may start."""
        self._ahead.held -= 1
        if self._ahead.busy <= self._low or self._is_short:
            self._wake()

    def _has_room(self) -> bool:
        self._is_short = self._machine.engine.is_full and bool(self._rows)
        return self._ahead.has_room and not self._is_short

    def drain(self) -> None:
        """Take no more rows; those under way go on to their end."""
        self._draining = True
        if self._feed is not None:
            self._feed.stop()
        self._wake()

    def stop(self) -> None:
        """Take no more rows and drop those under way."""
        self.stopped = True
        if self._feed is not None:
            self._feed.stop()
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
