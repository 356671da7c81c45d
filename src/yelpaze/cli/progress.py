"""How work is shown while it goes: a bar on a terminal, plain lines on a pipe; all on stderr."""

import asyncio
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from yelpaze.model.statistics import HostStatistics

if TYPE_CHECKING:  # not worth its time where no bar is shown
    from rich.progress import Progress as Bar

_BAR_SECONDS, _LINE_SECONDS = 0.2, 5.0
_MINUTE, _HOUR = 60, 3600
_TROUBLES = 3


class View(Protocol):
    """What is shown of a piece of work. `unit` names what `done` counts."""

    title: str
    unit: str

    @property
    def total(self) -> float | None:
        """How much there is to do, in the unit of `position`, or None if that is unknown."""

    @property
    def position(self) -> float:
        """How far it has come."""

    @property
    def done(self) -> int:
        """How many are done."""

    @property
    def before(self) -> int:
        """How many of them were done before this began."""

    @property
    def has_begun(self) -> bool:
        """Whether there is something to show yet."""

    @property
    def requests(self) -> int:
        """How many requests that took."""

    def notes(self) -> list[str]:
        """What else is worth saying."""


class Progress:
    """Shows a view until the work ends."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._terminal = sys.stderr.isatty()
        self._bar = _bar() if self._terminal else None
        self._began = time.monotonic()
        self._last = (self._began, 0, 0)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._show())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._bar is not None and self._view.has_begun:
            # The last line shows rates over all of the time.
            self._last = (self._began, self._view.before, 0)
            self._update()
            self._bar.stop()

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(_BAR_SECONDS if self._terminal else _LINE_SECONDS)
            if not self._view.has_begun:
                continue
            if self._bar is not None:
                self._update()
            else:
                print(self.text(), file=sys.stderr, flush=True)  # noqa: T201

    def _update(self) -> None:
        assert self._bar is not None
        view = self._view
        if not self._bar.tasks:
            self._last = (self._last[0], max(self._last[1], view.before), self._last[2])
            self._bar.start()
            self._bar.add_task(view.title, total=None, text="starting")
        self._bar.update(self._bar.task_ids[0], total=view.total, completed=view.position, text=self.text())

    def text(self) -> str:
        """Where it stands, and how fast it went since this was last asked."""
        view, (then, done_then, requests_then) = self._view, self._last
        now, done, requests = time.monotonic(), view.done, view.requests
        span = max(now - then, 1e-9)
        self._last = (now, done, requests)
        parts = [
            f"{done:,} {view.unit}",
            f"{(done - done_then) / span:,.0f} {view.unit}/s",
            f"{(requests - requests_then) / span:,.0f} requests/s",
            *view.notes(),
        ]
        if (left := self._left()) is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    def _left(self) -> float | None:
        """Seconds to go, by the share that is done."""
        total, position = self._view.total, self._view.position
        if not total or not position:
            return None
        return (time.monotonic() - self._began) * (total - position) / position


def troubles(hosts: dict[str, HostStatistics]) -> list[str]:
    """Hosts that are away or asked for a pause, a few of them."""
    lines = []
    for name, host in hosts.items():
        if host.state == "down":
            lines.append(f"{name} given up")
        elif host.state == "open":
            lines.append(f"{name} away, asked again in {host.paused:.0f}s")
        elif host.paused >= 1 and host.waiting:
            lines.append(f"{name} paused for {host.paused:.0f}s")
    return lines[:_TROUBLES]


def _bar() -> "Bar":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
    )


def duration(seconds: float) -> str:
    """`45s`, `3m20s`, `2h05m`."""
    whole = int(seconds + 0.5)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
