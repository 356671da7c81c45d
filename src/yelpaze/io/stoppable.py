"""A reader of blocks that can be stopped while the input is silent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class StoppableReader(Generic[T]):
    """Reads blocks one by one until the input ends or `stop` is called."""

    def __init__(self, blocks: AsyncIterator[T]) -> None:
        self._blocks = blocks
        self._reading: asyncio.Task[object] | None = None
        self._stopped = False

    async def next(self) -> T | None:
        """The next block; None at the end, or once stopped, even while the input is silent."""
        if self._is_over():
            return None
        task = self._reading = asyncio.current_task()
        try:
            return await anext(self._blocks, None)
        except asyncio.CancelledError:
            if self._is_over() and task is not None:
                task.uncancel()
                return None
            raise
        finally:
            self._reading = None

    def _is_over(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()
