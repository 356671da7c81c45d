"""Several gateway processes on one port: the parent starts them, counts them together and ends them."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from yelpaze.app.live_node import opened_node, run_gc_less_often
from yelpaze.app.live_options import LiveOptions, greeting
from yelpaze.app.observing import served_live_metrics
from yelpaze.app.stopping import Stop, stopping
from yelpaze.grpc.address import Address, Held, can_share_ports
from yelpaze.live.config import Config
from yelpaze.live.core.statistics import NodeTotals, added
from yelpaze.live.transports.server import Server, listening
from yelpaze.model.errors import MisuseError, StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.process.child import Child
from yelpaze.process.frames import encode
from yelpaze.process.parenthood import Parent

_MAIN = "yelpaze.app.live_processes:child_main"
_REPORT_SECONDS = 0.5
_PAUSE_BASE, _PAUSE_CAP = 0.1, 10.0
_SOUND_SECONDS = 5.0
_FAILED_STARTS = 3
_END_SECONDS = 5.0


class Begin(msgspec.Struct, frozen=True):
    """What a child is told first."""

    config: Config
    port: int


class Ready(msgspec.Struct, frozen=True):
    """It listens."""


class Failed(msgspec.Struct, frozen=True):
    """It can't begin."""

    message: str


async def serve_processes(options: LiveOptions, report: Report) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    config = options.config
    if config.broker.type == "memory":
        raise MisuseError("--processes needs --broker redis://…: the processes have only that in common")
    if not can_share_ports():
        raise MisuseError("--processes needs a kernel that shares a port between processes: Linux")
    held = Held(Address(config.http_server.address, config.http_server.port))
    processes = _Processes(Begin(config, held.address.port), options.processes, report)
    try:
        with stopping() as stop:
            await processes.start()
            if stop.is_urgent:
                return
            with served_live_metrics(processes.totals, options.metrics):
                for notice in greeting(options, held.address):
                    report(notice)
                broken = await processes.run_until(stop)
                if not stop.is_urgent:
                    text = "stopping: clients are sent elsewhere; once more ends at once"
                    report(Notice("stopping", text))
                    await stop.unless_urgent(processes.stop(config.shutdown.timeout + _END_SECONDS))
        if broken is not None:
            raise StoppedError(broken)
    finally:
        processes.kill()
        held.close()


class _Process(Child):
    def __init__(self, processes: "_Processes") -> None:
        super().__init__()
        self._group = processes
        self.is_ready = False
        self.failed = ""
        self.totals = NodeTotals()
        self.since = asyncio.get_running_loop().time()

    def received(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, NodeTotals):
                self.totals = message
            elif isinstance(message, Notice):
                self._group.report(message)
            elif isinstance(message, Failed):
                self.failed = message.message
            elif isinstance(message, Ready):
                self.is_ready = True
                self._group.changed.set()

    def lost(self) -> None:
        self._group.lost(self)


class _Processes:
    """The processes; one that is lost is replaced."""

    def __init__(self, begin: Begin, count: int, report: Report) -> None:
        self._begin = encode(begin)
        self._count = count
        self.report = report
        self._processes: list[_Process] = []
        self._gone: list[NodeTotals] = []
        self._failures = 0
        self._is_stopping = False
        self._has_started = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: str | None = None
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Start all, and wait until they listen. Raises StoppedError."""
        for _ in range(self._count):
            await self._start()
        while not all(process.is_ready for process in self._processes) or len(self._processes) < self._count:
            if self._broken is not None:
                raise StoppedError(self._broken)
            self.changed.clear()
            await self.changed.wait()
        self._has_started = True

    async def _start(self) -> None:
        process = _Process(self)
        self._processes.append(process)
        await process.start(_MAIN, self._begin)

    def lost(self, process: _Process) -> None:
        """One has ended."""
        if process not in self._processes:
            return
        self._processes.remove(process)
        self._gone = [added([*self._gone, _past(process.totals)])]
        how, _ = process.reap()
        self.changed.set()
        if self._is_stopping:
            return
        lasted = asyncio.get_running_loop().time() - process.since
        self._failures = 1 if lasted >= _SOUND_SECONDS and process.is_ready else self._failures + 1
        is_failing = not process.is_ready and (process.failed or self._failures >= _FAILED_STARTS)
        if is_failing and not self._has_started:  # later it may be Redis that is away, and the others go on
            self._broken = f"the processes cannot start: {process.failed or how}"
            return
        pause = min(_PAUSE_CAP, _PAUSE_BASE * 2 ** min(10, self._failures - 1))
        why = process.failed or how
        text = f"process {process.pid} was lost: {why}; a new one starts in {pause:g} s"
        self.report(Notice("process.lost", text, Level.WARNING))
        task = asyncio.get_running_loop().create_task(self._start_later(pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_later(self, pause: float) -> None:
        await asyncio.sleep(pause)
        if not self._is_stopping:
            await self._start()

    def totals(self) -> NodeTotals:
        """All processes' counts together, those of the gone ones too."""
        return added([*self._gone, *(process.totals for process in list(self._processes))])

    async def run_until(self, stop: Stop) -> str | None:
        """Wait for the end that is asked for, or why it can't go on."""
        asked = asyncio.ensure_future(stop.wait())
        try:
            while not asked.done() and self._broken is None:
                self.changed.clear()
                changed = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait({asked, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            asked.cancel()
        return self._broken

    async def stop(self, seconds: float) -> None:
        """Have all drain and end; after so long they are killed."""
        self._is_stopping = True
        for process in self._processes:
            process.send(encode("stop"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._processes:
                    self.changed.clear()
                    await self.changed.wait()

    def kill(self) -> None:
        """End what is left."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        for process in list(self._processes):
            process.kill()
            process.reap()
        self._processes.clear()


def _past(totals: NodeTotals) -> NodeTotals:
    """What remains of a process's counts when it has ended: nothing is open any more."""
    return msgspec.structs.replace(totals, connections={}, users=0, channels=0, subscriptions=0)


# ── in the child ────────────────────────────────────────────────────────────────


def child_main(channel_fd: int, lifeline_fd: int) -> None:
    """One process."""
    import uvloop  # noqa: PLC0415  not in the parent

    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    begin: Begin = next(messages)
    uvloop.run(_serve(parent, messages, begin))


async def _serve(parent: Parent, messages: Any, begin: Begin) -> None:
    config, loop = begin.config, asyncio.get_running_loop()
    run_gc_less_often()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def hear() -> None:
        for _ in messages:
            loop.call_soon_threadsafe(stop.set)

    def report(notice: Notice) -> None:
        with contextlib.suppress(OSError):
            parent.send(notice)

    threading.Thread(target=hear, daemon=True).start()
    try:
        sock: socket.socket = listening(config.http_server.address, begin.port, shared=True)
        async with opened_node(config, report) as node, Server(node, sock) as server:
            parent.send(Ready())
            reporting = asyncio.create_task(_report(parent, node.totals))
            await stop.wait()
            await server.drain(config.shutdown.timeout)
            reporting.cancel()
            parent.send(node.totals())
    except (OSError, StoppedError, ValueError) as error:
        with contextlib.suppress(OSError):
            parent.send(Failed(str(error)))


async def _report(parent: Parent, totals: Callable[[], NodeTotals]) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        parent.send(totals())
