"""Keeps a number of processes running: starts them, restarts those that end, stops them all.

What a process is and does belongs to the caller: `create` makes one, and the hooks tell of each that
serves or is gone. When one is started again is decided by `policy/restart.py`; processes that serve are
replaced by `process/replacement.py`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from yelpaze.model.errors import StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.policy.restart import Ending, Restart
from yelpaze.process.messages import Ready
from yelpaze.process.supervised import Supervised

P = TypeVar("P", bound=Supervised)
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_EXIT_SECONDS = 2.0  # between a drained process's last message and its end


class Supervisor(Generic[P]):
    """`count` processes, each in a place from 0.

    Args:
        create: Makes the process for a place; `open` starts it. Either may raise OSError or StoppedError.
        count: How many processes.
        restart: When one that ended is started again.
        report: Is called with notices for the operator.
        what: What messages call a process.
        on_ready: A process serves now; it is called before those who wait are notified.
        on_gone: A process has ended: how, and its peak memory in MB. Called for each one.
        on_change: The processes that serve have changed.
        on_broken: No process can be started any more, and why; called once.

    `restarts` counts replaced processes by reason; `broken` is the reason why no process can be started any
    more. `processes` holds those that have not ended.

    """

    def __init__(
        self,
        create: Callable[[int], P],
        count: int,
        restart: Restart,
        *,
        report: Report = lambda _: None,
        what: str = "process",
        on_ready: Callable[[P, Ready], None] = lambda _process, _message: None,
        on_gone: Callable[[P, str, float], None] = lambda _process, _how, _peak: None,
        on_change: Callable[[], None] = lambda: None,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._create = create
        self._rule = restart
        self._what = what
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._on_change = on_change
        self._on_broken = on_broken
        self._failures = Counter[int]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._has_started = False
        self.count = count
        self.report = report
        self.processes: list[P] = []
        self.restarts = Counter[str]()
        self.broken: str | None = None
        self.is_stopping = False

    def serving(self) -> list[P]:
        """Those that take work."""
        return [process for process in self.processes if process.state == "serving"]

    async def change(self) -> None:
        """Wait until something changes."""
        self._changed.clear()
        await self._changed.wait()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that ends with the supervisor."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def warn(self, kind: str, text: str) -> None:
        """Report a warning."""
        self.report(Notice(kind, text, Level.WARNING))

    # ── start ───────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start all and wait until they serve. Raises StoppedError."""
        why = ""
        try:
            async with asyncio.timeout(_START_SECONDS):
                for place in range(self.count):
                    if not self.is_stopping:
                        await self.spawn(place)
                while len(self.serving()) < self.count and not self.broken and not self.is_stopping:
                    await self.change()
        except TimeoutError:  # before OSError, which it is, too
            why = f"the {self._what}es did not start within {_START_SECONDS:g} s"
        except OSError as error:
            why = f"the {self._what}es cannot start: {error}"
        except BaseException:  # cancelled, too
            await self.kill()
            raise
        if why or self.broken:
            await self.kill()
            raise StoppedError(why or self.broken)
        if not self.is_stopping:
            self._has_started = True
            self.keep(self._watch())

    async def spawn(self, place: int) -> P:
        """Start one more for that place. Raises OSError, StoppedError."""
        process = self._create(place)
        process.on_ready = cast(Any, self._ready)
        process.on_lost = cast(Any, self._lost)
        self.processes.append(process)
        try:
            await process.open()
        except OSError:
            self.processes.remove(process)
            self._on_gone(process, "could not be started", 0.0)
            raise
        return process

    def _ready(self, process: P, message: Ready) -> None:
        if self.is_stopping:
            process.kill()
            return
        process.state = "serving"
        process.since = asyncio.get_running_loop().time()
        self._on_ready(process, message)
        self._notify()

    def _notify(self) -> None:
        self._on_change()
        self._changed.set()

    async def run(self) -> None:
        """Wait until all are stopped. Raises StoppedError if none can be started any more."""
        while not self.is_stopping and not self.broken:
            await self.change()
        if self.broken:
            await self.kill()
            raise StoppedError(self.broken)

    # ── the end of one ──────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Notice processes that are gone while a child of theirs keeps the channel open."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process in list(self.processes):
                if process.ended():
                    process.abort()

    def drain(self, process: P) -> None:
        """Tell it to take no more work, end what is under way, and exit."""
        if process.state == "serving":
            process.state = "draining"
            process.drain()
            self._notify()
        elif process.state == "starting":
            process.kill()

    def _lost(self, process: P) -> None:
        """Its channel has ended: it was told to, crashed, or never started."""
        if process.state == "draining" and not process.ended() and process in self.processes:
            self.keep(self._reap_later(process))
        else:
            self._gone(process)

    async def _reap_later(self, process: P) -> None:
        """Let it exit by itself, in a while; to wait for that in here would hold up all others."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                while not process.ended():  # noqa: ASYNC110  waitid(2) tells it in no other way
                    await asyncio.sleep(_LOOK_SECONDS / 5)
        self._gone(process)

    def _gone(self, process: P) -> None:
        if process not in self.processes:
            return
        process.kill()
        how, peak = process.reap()
        self.processes.remove(process)
        self._on_gone(process, how, peak)
        if not self.is_stopping and process.state != "draining":
            self._fill(process, process.failed.message if process.failed is not None else how)
        self._notify()

    def _fill(self, lost: P, why: str) -> None:
        """Fill the place of a process that has ended by itself."""
        other = next((one for one in self.processes if one.place == lost.place), None)
        if other is not None and lost.state == "starting" and other.state == "serving":
            text = f"{self._what} {other.pid} could not be replaced and goes on: {why}"
            self.warn("process.kept", text)
            return
        self.restarts["crashed"] += 1
        if other is not None and other.state == "starting":
            return  # its replacement is on its way
        now = asyncio.get_running_loop().time()
        served = now - lost.since if lost.state == "serving" else None
        ending = self._rule.ending(served, is_explained=lost.failed is not None)
        trace = lost.failed.traceback if lost.failed is not None else ""
        self._start_again(lost.place, ending, f"{self._what} {lost.pid} was lost: {why}", why, trace)

    def _start_again(self, place: int, ending: Ending, what: str, why: str, trace: str = "") -> None:
        """Start another process for that place after a pause, or give up, as the rule says."""
        failures = self._rule.failures_after(ending, self._failures[place])
        self._failures[place] = failures
        pause = self._rule.pause_after(ending, failures, has_served=self._has_started)
        if pause is None:
            self._give_up(f"the {self._what}es cannot start: {why}" + (f"\n{trace}" if trace else ""))
            return
        when = f"in {pause:g} s" if pause else "at once"
        self.warn("process.lost", f"{what}; a new one starts {when}")
        self.keep(self.spawn_later(place, pause))

    async def spawn_later(self, place: int, pause: float) -> None:
        """Start a process for that place after a pause; if that fails, do as after a failed start."""
        await asyncio.sleep(pause)
        if self.is_stopping:
            return
        try:
            await self.spawn(place)
        except (OSError, StoppedError) as error:
            what = f"a {self._what} could not be started: {error}"
            self._start_again(place, Ending.SILENT, what, str(error))

    def _give_up(self, why: str) -> None:
        """No process can be started any more; the first reason is the one that is told."""
        if self.broken is not None:
            return
        self.broken = why
        self._on_broken(why)
        self._changed.set()

    # ── the end of all ──────────────────────────────────────────────────────────

    async def stop(self, seconds: float) -> None:
        """Drain all processes; after so long, kill those that are left."""
        self.is_stopping = True
        self._changed.set()
        for process in list(self.processes):
            self.drain(process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.processes:
                    await self.change()
        await self.kill()

    async def kill(self) -> None:
        """End all at once."""
        self.is_stopping = True  # first: nothing may start while the rest ends
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        processes, self.processes = self.processes, []
        for process in processes:
            process.kill()
        for process in processes:
            self._on_gone(process, *process.reap())
        self._notify()
