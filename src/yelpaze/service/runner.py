"""Runs a long-lived command from its start to its end.

    starting ──all parts have started──→ serving ──signal, or a part ends──→ draining ──→ ended
        └── a signal: ended at once          └── a part cannot go on: ended ──┘  └ a second signal: at once

A command is a list of parts in one process. They start in order; at the end they drain in the same order,
so that the last of them delivers what the first has taken in, and are closed in the reverse one.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from prometheus_client import CollectorRegistry

from yelpaze.model.notice import Notice, Report
from yelpaze.process.descriptors import raise_limit
from yelpaze.service.endpoint import liveness_of, served_metrics
from yelpaze.service.signals import Stop, stopping


class Part(Protocol):
    """One component of a long-lived command."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes work; read from any thread."""

    async def start(self) -> Sequence[Notice]:
        """Begin to take work; return notices for the operator. Raises InputError, StoppedError."""

    async def run(self) -> None:
        """Return when it has ended by itself; raise StoppedError if it cannot go on."""

    def under_way(self) -> str:
        """Describe unfinished work and its time limit, as in `3 calls, up to 30 s`; empty for none."""

    async def drain(self) -> None:
        """Take no more work and end what is under way, within a bound of its own."""

    async def close(self) -> None:
        """End at once; harmless after `drain`."""


@runtime_checkable
class Reloadable(Protocol):
    """A part that reloads at SIGHUP."""

    async def reload(self) -> None:
        """Reload what has changed on disk."""


class Service:
    """A long-lived command: its parts, its log and its metrics.

    `metrics` is the address `[HOST:]PORT` of `/metrics`, `/healthz` and `/readyz`, if they are wanted.
    `then_exits` is false in a program that goes on afterwards: its signal handlers are restored.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        report: Report,
        *,
        metrics: str | None = None,
        registries: Iterable[CollectorRegistry] = (),
        then_exits: bool = True,
    ) -> None:
        self._parts = parts
        self._report = report
        self._metrics = metrics
        self._registries = registries
        self._then_exits = then_exits
        self._is_serving = False
        self._reloads: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether all parts take work."""
        return self._is_serving and all(part.is_ready for part in self._parts)

    async def run(self) -> None:
        """Run until a signal or a part ends it. Raises InputError, MisuseError, StoppedError."""
        raise_limit()
        reloadable = any(isinstance(part, Reloadable) for part in self._parts)
        with (
            stopping(self._reload if reloadable else None, then_exits=self._then_exits) as stop,
            served_metrics(
                self._registries,
                self._metrics,
                is_alive=liveness_of(asyncio.get_running_loop()),
                is_ready=lambda: self.is_ready,
                started=self._metrics_at,
            ),
        ):
            async with contextlib.AsyncExitStack() as stack:
                for part in self._parts:
                    stack.push_async_callback(part.close)
                stack.callback(self._forget)
                await stop.unless_requested(self._start())
                if self._is_serving:
                    await stop.unless_requested(self._serve())
                    await self._end(stop)

    def _forget(self) -> None:
        self._is_serving = False
        for task in self._reloads:
            task.cancel()

    def _metrics_at(self, url: str) -> None:
        self._report(Notice("metrics", f"metrics at {url}", data={"url": url}))

    async def _start(self) -> None:
        notices: list[Notice] = []
        for part in self._parts:
            notices += await part.start()
        self._is_serving = True
        for notice in notices:
            self._report(notice)

    async def _serve(self) -> None:
        """Until a part ends, or cannot go on."""
        running = [asyncio.ensure_future(part.run()) for part in self._parts]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _end(self, stop: Stop) -> None:
        self._is_serving = False
        under_way = ", ".join(filter(None, (part.under_way() for part in self._parts)))
        text = f"stopping: {under_way}; once more ends at once" if under_way else "stopping"
        self._report(Notice("stopping", text))
        await stop.unless_urgent(self._drain())
        how = "stopped at once" if stop.is_urgent else "stopped"
        self._report(Notice("stopped", how))

    async def _drain(self) -> None:
        for part in self._parts:
            await part.drain()

    def _reload(self) -> None:
        for part in self._parts:
            if isinstance(part, Reloadable):
                task = asyncio.get_running_loop().create_task(part.reload())
                self._reloads.add(task)
                task.add_done_callback(self._reloads.discard)
