"""Waiting for what a run works with: it can take long where workers are elsewhere, and can be given up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from yelpaze.compute.workers import Workers
from yelpaze.flow.context import RunContext

_PATIENCE_SECONDS = 1.0  # after which a notice says what is waited for


class Opening:
    """Waits for a run's context, and can be given up."""

    def __init__(self, workers: int | Workers) -> None:
        self._workers = workers
        self._task: asyncio.Future[RunContext] | None = None
        self._is_given_up = False

    async def of(
        self, opening: Coroutine[Any, Any, RunContext], notes: Callable[[str], None]
    ) -> RunContext | None:
        """The context, or None if the wait was given up. `notes` is called if the wait is long."""
        task = self._task = asyncio.ensure_future(opening)
        notice: asyncio.TimerHandle | None = None
        if isinstance(self._workers, Workers):
            text = f"waiting for a worker at {', '.join(self._workers.targets)}"
            notice = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, notes, text)
        try:
            return await task
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
            return None
        finally:
            self._task = None
            if notice is not None:
                notice.cancel()

    def give_up(self) -> bool:
        """Wait no more; False if nobody waits."""
        if self._task is None:
            return False
        self._is_given_up = True
        self._task.cancel()
        return True
