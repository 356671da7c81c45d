"""Several gateway processes on one port: what they are told, their counts together, and their own side."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from yelpaze.app.live_node import opened_node, run_gc_less_often
from yelpaze.app.live_options import LiveOptions, check_processes, greeting
from yelpaze.grpc.address import Address, Held
from yelpaze.live.config import Config
from yelpaze.live.core.statistics import NodeTotals, added
from yelpaze.live.transports.server import Server, listening
from yelpaze.model.errors import StoppedError
from yelpaze.model.notice import Notice, Report
from yelpaze.policy.restart import Restart
from yelpaze.process.frames import encode
from yelpaze.process.messages import Failed, Ready
from yelpaze.process.parenthood import Parent
from yelpaze.process.supervised import Supervised
from yelpaze.process.supervisor import Supervisor
from yelpaze.service.log import forward_logging

_MAIN = "yelpaze.app.live_processes:child_main"
_REPORT_SECONDS = 0.5
_MARGIN_SECONDS = 5.0
_RESTART = Restart(sound=5.0)


class GatewayTask(msgspec.Struct, frozen=True):
    """The task of a gateway process."""

    config: Config
    port: int


class _Process(Supervised):
    """A gateway process; `totals` are its counts as it last reported them."""

    def __init__(self, place: int, task: bytes, report: Report) -> None:
        super().__init__(place)
        self._task = task
        self._report = report
        self.totals = NodeTotals()

    async def open(self) -> None:
        await self.start(_MAIN, self._task)

    def on_message(self, message: Any) -> None:
        if isinstance(message, NodeTotals):
            self.totals = message
        elif isinstance(message, Notice):
            self._report(message)


class LiveProcesses:
    """The gateway in several processes, as a part of a service. Raises MisuseError."""

    def __init__(self, options: LiveOptions, report: Report) -> None:
        check_processes(options)
        self._options = options
        self._report = report
        self._gone = NodeTotals()
        self._held: Held | None = None
        self._task = b""
        self._supervisor: Supervisor[_Process] = Supervisor(
            lambda place: _Process(place, self._task, report),
            options.processes,
            _RESTART,
            report=report,
            on_gone=self._on_gone,
        )

    @property
    def is_ready(self) -> bool:
        return bool(self._supervisor.serving()) and not self._supervisor.is_stopping

    def totals(self) -> NodeTotals:
        """All processes' counts together, those of the gone ones too."""
        return added([self._gone, *(process.totals for process in list(self._supervisor.processes))])

    async def start(self) -> Sequence[Notice]:
        config = self._options.config
        self._held = Held(Address(config.http_server.address, config.http_server.port))
        self._task = encode(GatewayTask(config, self._held.address.port))
        await self._supervisor.start()
        return greeting(self._options, self._held.address)

    async def run(self) -> None:
        await self._supervisor.run()

    def under_way(self) -> str:
        count = sum(self.totals().connections.values())
        seconds = self._options.config.shutdown.timeout
        return f"{count} clients are disconnected within {seconds:g} s" if count else ""

    async def drain(self) -> None:
        await self._supervisor.stop(self._options.config.shutdown.timeout + _MARGIN_SECONDS)

    async def close(self) -> None:
        await self._supervisor.kill()
        if self._held is not None:
            self._held.close()

    def _on_gone(self, process: _Process, _how: str, _peak: float) -> None:
        self._gone = added([self._gone, _past(process.totals)])


def _past(totals: NodeTotals) -> NodeTotals:
    """What remains of a process's counts when it has ended: nothing is open any more."""
    return msgspec.structs.replace(totals, connections={}, users=0, channels=0, subscriptions=0)


# ── in the child ────────────────────────────────────────────────────────────────


def child_main(channel_fd: int, lifeline_fd: int) -> None:
    """One process."""
    import uvloop  # noqa: PLC0415  not in the parent

    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    task: GatewayTask | None = next(messages, None)
    if task is not None:
        uvloop.run(_serve(parent, messages, task))


async def _serve(parent: Parent, messages: Iterator[Any], task: GatewayTask) -> None:
    config = task.config
    run_gc_less_often()
    stop = asyncio.Event()
    parent.on_terminate(stop.set)
    parent.listen(messages, on_message=lambda _: stop.set(), on_end=stop.set)

    def report(notice: Notice) -> None:
        with contextlib.suppress(OSError):
            parent.send(notice)

    forward_logging(report)
    try:
        sock = listening(config.http_server.address, task.port, shared=True)
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
