"""A service's part in several processes that share its port: the parent's side, and the child's."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from yelpaze.grpc.address import Address, Held
from yelpaze.model.errors import YelpazeError
from yelpaze.model.notice import Notice, Report
from yelpaze.policy.restart import Restart
from yelpaze.process.frames import encode
from yelpaze.process.messages import Failed, Ready
from yelpaze.process.parenthood import Parent
from yelpaze.process.supervised import Supervised
from yelpaze.process.supervisor import Supervisor
from yelpaze.service.log import forward_logging
from yelpaze.service.runner import Part

T = TypeVar("T")
C_co = TypeVar("C_co", covariant=True)
_MAIN = "yelpaze.app.part_processes:child_main"
_REPORT_SECONDS = 0.5
_MARGIN_SECONDS = 5.0
_RESTART = Restart(sound=5.0)


class CountedPart(Part, Protocol[C_co]):
    """A part with counts."""

    def totals(self) -> C_co: ...


class PartTask(msgspec.Struct, frozen=True):
    """A process's task: `factory` ("module:function") makes the part of `options`, a port and a report."""

    factory: str
    options: Any
    port: int


class PartKind(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A kind of part, as the parent knows it.

    Attributes:
        factory: "module:function" that makes it, in the child.
        address: Where it listens; port 0 for a free one, which all processes share.
        empty: The counts of none.
        added: The counts of several.
        past: Keep of an ended process's counts what remains true.
        grace: Seconds for draining.
        under_way: Describes unfinished work.
        greeting: Notices for the start.

    """

    factory: str
    address: Address
    empty: T
    added: Callable[[Sequence[T]], T]
    past: Callable[[T], T]
    grace: float
    under_way: Callable[[T], str]
    greeting: Callable[[Address], Sequence[Notice]]


class _Process(Supervised):
    """A process; `totals` are its counts as it last reported them."""

    def __init__(self, place: int, task: bytes, totals: Any, report: Report) -> None:
        super().__init__(place)
        self._task = task
        self._report = report
        self.totals = totals

    async def open(self) -> None:
        await self.start(_MAIN, self._task)

    def on_message(self, message: Any) -> None:
        if isinstance(message, Notice):
            self._report(message)
        elif isinstance(message, type(self.totals)):
            self.totals = message


class PartProcesses(Generic[T]):
    """A part in `count` processes, as a part of a service itself."""

    def __init__(self, kind: PartKind[T], options: Any, count: int, report: Report) -> None:
        self._kind = kind
        self._options = options
        self._gone = kind.empty
        self._held: Held | None = None
        self._task = b""
        self._supervisor: Supervisor[_Process] = Supervisor(
            lambda place: _Process(place, self._task, kind.empty, report),
            count,
            _RESTART,
            report=report,
            on_gone=self._on_gone,
        )

    @property
    def is_ready(self) -> bool:
        return bool(self._supervisor.serving()) and not self._supervisor.is_stopping

    def totals(self) -> T:
        """All processes' counts together, those of the gone ones too."""
        return self._kind.added(
            [self._gone, *(process.totals for process in list(self._supervisor.processes))]
        )

    async def start(self) -> Sequence[Notice]:
        self._held = Held(self._kind.address)
        self._task = encode(PartTask(self._kind.factory, self._options, self._held.address.port))
        await self._supervisor.start()
        return self._kind.greeting(self._held.address)

    async def run(self) -> None:
        await self._supervisor.run()

    def under_way(self) -> str:
        return self._kind.under_way(self.totals())

    async def drain(self) -> None:
        await self._supervisor.stop(self._kind.grace + _MARGIN_SECONDS)

    async def close(self) -> None:
        await self._supervisor.kill()
        if self._held is not None:
            self._held.close()

    def _on_gone(self, process: _Process, _how: str, _peak: float) -> None:
        self._gone = self._kind.added([self._gone, self._kind.past(process.totals)])


# ── in the child ────────────────────────────────────────────────────────────────


def child_main(channel_fd: int, lifeline_fd: int) -> None:
    """One process."""
    import uvloop  # noqa: PLC0415  not in the parent

    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    task: PartTask | None = next(messages, None)
    if task is not None:
        uvloop.run(_serve(parent, messages, task))


async def _serve(parent: Parent, messages: Iterator[Any], task: PartTask) -> None:
    stop = asyncio.Event()
    parent.on_terminate(stop.set)
    parent.listen(messages, on_message=lambda _: stop.set(), on_end=stop.set)

    def report(notice: Notice) -> None:
        with contextlib.suppress(OSError):
            parent.send(notice)

    forward_logging(report)
    module, _, name = task.factory.partition(":")
    part: CountedPart[Any] = getattr(import_module(module), name)(task.options, task.port, report)
    try:
        await part.start()
        parent.send(Ready())
        reporting = asyncio.create_task(_report(parent, part.totals))
        running = asyncio.ensure_future(part.run())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await part.drain()
        for one in (reporting, running, stopped):
            one.cancel()
        parent.send(part.totals())
    except (OSError, YelpazeError, ValueError) as error:
        with contextlib.suppress(OSError):
            parent.send(Failed(str(error)))
    finally:
        await part.close()


async def _report(parent: Parent, totals: Callable[[], Any]) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        parent.send(totals())
