"""Rows from a Python iterable."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sized
from itertools import islice
from typing import Any

from yelpaze.io.protocol import Block
from yelpaze.model.closing import closing
from yelpaze.policy.look_ahead import some_of

_BLOCK = 256


class IterableSource:
    """Rows of an (async) iterable.

    With `input_id` a run over it goes on, given the same rows in the same order. A cursor is the number of
    rows before.
    """

    coerce = False

    def __init__(self, rows: Iterable[Any] | AsyncIterable[Any], input_id: str | None) -> None:
        self._rows = rows
        self._id = input_id
        self.size: int | None = len(rows) if isinstance(rows, Sized) else None
        self.position = 0

    def identity(self) -> list[dict[str, Any]] | None:
        return None if self._id is None else [{"input": self._id}]

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        before = self.position = cursor or 0
        async with closing(self._from(before)) as opened:
            async for rows in opened:
                self.position += len(rows)
                yield Block(before, [(before + number, None, row) for number, row in enumerate(rows, 1)])
                before = self.position

    async def _from(self, begin: int) -> AsyncIterator[list[Any]]:
        if not isinstance(self._rows, AsyncIterable):
            rest = islice(self._rows, begin, None)
            while rows := some_of(rest, _BLOCK, time.monotonic):
                yield rows
                await asyncio.sleep(0)
            return
        number = 0
        async for row in self._rows:
            number += 1
            if number > begin:
                yield [row]

    def close(self) -> None:
        pass
