"""Replaces processes that serve: those that are worn, or all of them.

A replacement serves before the old process is told to end, so that no work is refused.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from yelpaze.model.errors import StoppedError
from yelpaze.model.notice import Notice
from yelpaze.process.supervised import Supervised
from yelpaze.process.supervisor import Supervisor

P = TypeVar("P", bound=Supervised)
_LOOK_SECONDS = 0.2
_AGAIN_SECONDS = 10.0


class RollingReplacement(Generic[P]):
    """Replaces a supervisor's processes.

    Args:
        supervisor: Has the processes.
        worn: Why a process is to be replaced at a time of the loop, or None; it is asked five times a second.
        is_exclusive: Whether a process has something that its replacement needs, such as a path. It then
            ends first.

    """

    def __init__(
        self,
        supervisor: Supervisor[P],
        *,
        worn: Callable[[P, float], str | None] = lambda _process, _now: None,
        is_exclusive: Callable[[P], bool] = lambda _: False,
    ) -> None:
        self._supervisor = supervisor
        self._worn = worn
        self._is_exclusive = is_exclusive
        self._rolling = asyncio.Lock()
        self._is_roll_due = False

    def open(self) -> None:
        """Begin to look for processes that are worn."""
        self._supervisor.keep(self._watch())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process in self._supervisor.serving():
                if process.replaced_by is None and (why := self._worn(process, loop.time())) is not None:
                    self.replace_soon(process, why)

    def replace_soon(self, process: P, why: str) -> None:
        """Begin to replace a process, unless that has begun already."""
        if process.replaced_by is None:
            process.replaced_by = process  # until it has one
            self._supervisor.report(Notice("process.worn", f"process {process.pid} is replaced: {why}"))
            self._supervisor.keep(self._replace_worn(process, why))

    async def _replace_worn(self, process: P, why: str) -> None:
        if not await self._replace(process, why):
            process.replaced_by = process  # not again at once
            await asyncio.sleep(_AGAIN_SECONDS)
            process.replaced_by = None

    async def roll(self) -> None:
        """Replace all, one after the other. During another roll, it waits for that one's end."""
        if self._is_roll_due:
            return  # one that waits replaces these processes, too
        self._is_roll_due = True
        async with self._rolling:
            self._is_roll_due = False
            await self._roll()

    async def _roll(self) -> None:
        supervisor = self._supervisor
        old = supervisor.serving()
        for process in old:
            is_there = process in supervisor.serving() and not supervisor.is_stopping
            if not is_there or process.replaced_by is not None:  # that one's replacement is on its way
                continue
            process.replaced_by = process
            if not await self._replace(process, "rolled"):
                return  # the others would fare no better
        while any(process in supervisor.processes for process in old) and not supervisor.is_stopping:
            await supervisor.change()
        if not supervisor.is_stopping:
            supervisor.report(Notice("process.replaced", "all processes have been replaced"))

    async def _replace(self, process: P, why: str) -> bool:
        """Start another; when it serves, the old one ends. False if it can't: the old one goes on."""
        supervisor = self._supervisor
        supervisor.restarts[why] += 1
        if self._is_exclusive(process):
            supervisor.drain(process)
            while process in supervisor.processes:
                await supervisor.change()
            await supervisor.spawn_later(process.place, 0)
            return True
        try:
            process.replaced_by = other = await supervisor.spawn(process.place)
        except (OSError, StoppedError) as error:
            text = f"process {process.pid} could not be replaced and goes on: {error}"
            supervisor.warn("process.kept", text)
            process.replaced_by = None
            return False
        while other.state == "starting" and other in supervisor.processes and not supervisor.is_stopping:
            await supervisor.change()
        if other.state == "serving":
            supervisor.drain(process)
            return True
        process.replaced_by = None
        return False
