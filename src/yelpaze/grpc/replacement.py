"""When a server's process is replaced: it crashed, it is worn, or all are to be new.

A replacement is ready before the old one is told to end. After a crash the place stays empty for a
pause, which grows if its processes crash again.
"""

import asyncio
from collections import Counter
from typing import Any

from yelpaze.grpc.child import ServerProcess
from yelpaze.grpc.options import Options
from yelpaze.grpc.server_processes import ServerProcesses
from yelpaze.model.errors import StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.process.memory import rss_of

_PAUSE_BASE, _PAUSE_CAP = 0.1, 10.0
_SOUND_SECONDS = 1.0  # who has served for that long did not fail to start
_LAST_DOUBLING = 10  # the pause has reached its cap by then
_FAILED_STARTS = 3
_TICK = 0.2
_EARLY = 0.1  # ages are spread by that share, so that not all processes are replaced at once


class RollingReplacement:
    """Keeps each place for a process filled.

    `restarts` counts by reason; `broken` says why no process can be started any more.
    """

    def __init__(self, processes: ServerProcesses, options: Options, report: Report) -> None:
        self._processes = processes
        self._options = options
        self._report = report
        self._failures = Counter[int]()
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarts = Counter[str]()
        self.broken: str | None = None
        processes.lost = self._on_lost

    def open(self) -> None:
        """Begin to look for processes that are worn or gone."""
        self._keep(self._watch())

    async def close(self) -> None:
        """Start no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _warn(self, kind: str, text: str) -> None:
        self._report(Notice(kind, text, Level.WARNING))

    def _keep(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── those that crashed ──────────────────────────────────────────────────────

    def _on_lost(self, process: ServerProcess, how: str) -> None:
        why = process.failed.message if process.failed is not None else how
        replaced = next((one for one in self._processes.processes if one.replaced_by is process), None)
        if replaced is not None and process.state == "starting":
            text = f"process {replaced.pid} could not be replaced and goes on: {why}"
            self._warn("process.kept", text)
            return
        self.restarts["crashed"] += 1
        lasted = asyncio.get_running_loop().time() - process.since
        is_sound = process.state == "serving" and lasted > _SOUND_SECONDS
        failures = self._failures[process.place] = 1 if is_sound else self._failures[process.place] + 1
        if process.state == "starting" and (process.failed is not None or failures >= _FAILED_STARTS):
            has_served = bool(self._processes.gone.started) or bool(self._processes.serving())
            if not has_served:
                text = process.failed.traceback if process.failed is not None else ""
                self._break(f"the processes cannot start: {why}" + (f"\n{text}" if text else ""))
                return
        pause = pause_after(failures)
        self._warn("process.lost", f"process {process.pid} was lost: {why}; a new one starts in {pause:g} s")
        self._keep(self._start_later(process.place, pause))

    async def _start_later(self, place: int, pause: float) -> None:
        await asyncio.sleep(pause)
        if self._processes.is_stopping:
            return
        try:
            await self._processes.start(place)
        except (OSError, StoppedError) as error:
            self._break(f"a process could not be started again: {error}")

    def _break(self, why: str) -> None:
        self.broken = why
        self._processes.notify_change()

    # ── those that serve well ───────────────────────────────────────────────────

    async def roll(self) -> None:
        """Replace all, one after the other."""
        processes = self._processes
        old = processes.serving()
        for process in old:
            is_there = (
                process in processes.processes and process.state == "serving" and not processes.is_stopping
            )
            if is_there and not await self._replace(process, "rolled"):
                return  # the others would fare no better
        while any(process in processes.processes for process in old) and not processes.is_stopping:
            await processes.change()
        self._report(Notice("processes.replaced", "all processes have been replaced"))

    async def _watch(self) -> None:
        """Replace processes that are too old, too large or have done enough; notice those that are gone."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            for process in list(self._processes.processes):
                if process.ended():
                    process.abort()
                elif process.state == "serving" and process.replaced_by is None:
                    why = worn(process, self._options, loop.time())
                    if why is not None:
                        self._report(Notice("process.worn", f"process {process.pid} is replaced: {why}"))
                        process.replaced_by = process  # until it has one
                        self._keep(self._replace_worn(process, why))

    async def _replace_worn(self, process: ServerProcess, why: str) -> None:
        if not await self._replace(process, why):
            process.replaced_by = process  # not again at once
            await asyncio.sleep(_PAUSE_CAP)
            process.replaced_by = None

    async def _replace(self, process: ServerProcess, why: str) -> bool:
        """Start another; when it serves, the old one ends. False if it can't: the old one goes on."""
        processes = self._processes
        self.restarts[why] += 1
        # A path can be listened on by one process alone: it goes first.
        if processes.address.path and (process.place == 0 or self._options.processes == 1):
            processes.drain(process)
            while process in processes.processes:
                await processes.change()
            await self._start_later(process.place, 0)
            return True
        try:
            process.replaced_by = other = await processes.start(process.place)
        except (OSError, StoppedError) as error:
            self._warn("process.kept", f"process {process.pid} could not be replaced and goes on: {error}")
            process.replaced_by = None
            return False
        await self._serves(other)
        if other.state == "serving":
            processes.drain(process)
            return True
        process.replaced_by = None
        return False

    async def _serves(self, process: ServerProcess) -> None:
        """Until it does, or is gone."""
        processes = self._processes
        while process.state == "starting" and process in processes.processes and not processes.is_stopping:
            await processes.change()


def pause_after(failures: int) -> float:
    """Seconds before a place is filled again that has failed so often in a row; none the first time."""
    return min(_PAUSE_CAP, _PAUSE_BASE * 2 ** min(failures - 1, _LAST_DOUBLING)) if failures > 1 else 0.0


def worn(process: ServerProcess, options: Options, now: float) -> str | None:
    """Why a process is to be replaced: it is broken, or has had its calls, its age or its memory."""
    report = process.report
    if report is not None and report.wants_replacement:
        return "broken"
    if options.max_calls is not None and report is not None and report.calls >= options.max_calls:
        return "calls"
    if options.max_age is not None:
        spread = _EARLY * process.place / max(1, options.processes)
        if now - process.since >= options.max_age * (1 - spread):
            return "age"
    if options.max_memory is not None and rss_of(process.pid) * 1024 * 1024 >= options.max_memory:
        return "memory"
    return None
