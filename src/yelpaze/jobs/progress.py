"""How work is shown while it goes: a bar on a terminal, plain lines on a pipe; all on stderr."""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from yelpaze.flow.context import RunContext
from yelpaze.flow.plan import Plan
from yelpaze.http.engine import Engine
from yelpaze.jobs.feed import RowFeed
from yelpaze.jobs.report import duration
from yelpaze.jobs.tally import Tally
from yelpaze.model.statistics import HostStatistics

if TYPE_CHECKING:  # not worth its time where no bar is shown
    from rich.progress import Progress as Bar

_BAR_SECONDS, _LINE_SECONDS = 0.2, 5.0
_TROUBLES = 3
_TITLE = 16  # characters
_BAR_WIDTH = 20
_BAR_COLUMNS = _BAR_WIDTH + len(" 100% ") + 1  # what the line has beside title and text
_REASONS = 3
_NEEDED = 3  # rate, failures and time left, or what is wrong
_FAILED = 2  # the rank of failures


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

    @property
    def failed(self) -> int:
        """How many failed, of all that are done."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Those that failed since this began, by reason."""

    def notes(self) -> list[str]:
        """What else is worth saying."""


class RunningJob(Protocol):
    """What is read of a job."""

    plan: Plan
    feed: RowFeed
    tally: Tally
    engine: Engine
    context: RunContext | None
    is_stopping: bool


class JobView:
    """A run as the progress bar sees it."""

    unit = "rows"

    def __init__(self, job: RunningJob) -> None:
        self._job = job
        self.title = job.plan.name

    @property
    def total(self) -> float | None:
        return self._job.feed.progress[1]

    @property
    def position(self) -> float:
        return self._job.feed.progress[0]

    @property
    def before(self) -> int:
        return self._job.feed.counted - self._job.tally.ended

    @property
    def has_begun(self) -> bool:
        return self._job.context is not None

    @property
    def done(self) -> int:
        return self._job.feed.counted

    @property
    def requests(self) -> int:
        return self._job.engine.statistics(by_host=False).attempts

    @property
    def failed(self) -> int:
        return self._job.tally.failed

    @property
    def failures(self) -> Mapping[str, int]:
        return self._job.tally.reasons

    def notes(self) -> list[str]:
        stopping = ["stopping"] if self._job.is_stopping else []
        compute = self._job.context.compute.trouble if self._job.context is not None else ""
        return [compute][: bool(compute)] + stopping + troubles(self._job.engine.troubles())


class Progress:
    """Shows a view until the work ends."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._terminal = sys.stderr.isatty()
        self._bar = _bar() if self._terminal else None
        self._began: float | None = None
        self._last = (time.monotonic(), 0, 0)
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
        if self._bar is not None and self._begun():
            # The last line shows rates over all of the time.
            self._last = (self._began or 0.0, self._view.before, 0)
            self._update()
            self._bar.stop()

    def _begun(self) -> bool:
        """Whether the work has begun; time counts from then on, not from the start of workers."""
        if self._began is None and self._view.has_begun:
            self._began = time.monotonic()
            self._last = (self._began, self._view.before, 0)
        return self._began is not None

    async def _show(self) -> None:
        seconds = _BAR_SECONDS if self._terminal else _LINE_SECONDS
        pause = min(seconds, _BAR_SECONDS)
        shown = time.monotonic()
        while True:
            await asyncio.sleep(pause)
            if not self._begun() or time.monotonic() - shown < seconds - pause / 2:
                continue
            shown = time.monotonic()
            if self._bar is not None:
                self._update()
            else:
                print(self.text(), file=sys.stderr, flush=True)  # noqa: T201

    def _update(self) -> None:
        assert self._bar is not None
        view = self._view
        if not self._bar.tasks:
            self._bar.start()
            self._bar.add_task(view.title[:_TITLE], total=None, text="starting")
        width = self._bar.console.width - len(view.title[:_TITLE]) - _BAR_COLUMNS
        text = self.text(width=width)
        self._bar.update(self._bar.task_ids[0], total=view.total, completed=view.position, text=text)

    def text(self, *, width: int | None = None) -> str:
        """Where it stands, and how fast it went since this was last asked, in so many columns."""
        view, (then, done_then, requests_then) = self._view, self._last
        now, done, requests = time.monotonic(), view.done, view.requests
        span = max(now - then, 1e-9)
        self._last = (now, done, requests)
        notes = view.notes()
        left = None if notes else self._left()  # a host that is away, or a stop: nobody knows
        failed = f"{view.failed:,} failed" if view.failed else ""
        reasons = _reasons(view.failures)
        # What matters most has the lowest number, and goes last when there is little room.
        parts = [
            (4, f"{done:,} {view.unit}"),
            (0, f"{(done - done_then) / span:,.0f} {view.unit}/s"),
            (5, f"{(requests - requests_then) / span:,.0f} requests/s"),
            *((1 if not number else 5 + number, note) for number, note in enumerate(notes)),
            (2, failed),
            (3, f"{duration(left)} left" if left is not None else ""),
        ]
        whole = [
            (rank, f"{text} ({reasons})" if rank == _FAILED and reasons else text) for rank, text in parts
        ]
        return _fitted([part for part in whole if part[1]], [part for part in parts if part[1]], width)

    def _left(self) -> float | None:
        """Seconds to go, by what was done since the beginning."""
        view = self._view
        total, position, done = view.total, view.position, view.done
        now_done = done - view.before
        if not total or not position or now_done <= 0 or self._began is None:
            return None
        return (time.monotonic() - self._began) * (total - position) / (position * now_done / done)


def _reasons(failures: Mapping[str, int]) -> str:
    most = sorted(failures.items(), key=lambda item: -item[1])[:_REASONS]
    return ", ".join(f"{reason}: {count:,}" for reason, count in most)


def _fitted(whole: list[tuple[int, str]], short: list[tuple[int, str]], width: int | None) -> str:
    """The parts with the lowest ranks that fit, in their order."""
    for parts in (whole, short):
        kept = list(parts)
        while kept:
            text = " · ".join(part for _, part in kept)
            if width is None or len(text) <= width:
                return text
            if parts is whole and len(kept) <= _NEEDED:
                break
            kept.remove(max(kept))
    return ""


def troubles(hosts: dict[str, HostStatistics]) -> list[str]:
    """Hosts that are away or asked for a pause, a few of them."""
    lines = []
    for place, host in hosts.items():
        name = place.removeprefix("http://").removeprefix("https://")
        if host.state == "down":
            lines.append(f"{name} given up")
        elif host.state == "open":
            lines.append(f"{name} away for {host.paused:.0f}s")
        elif host.paused >= 1 and host.waiting:
            lines.append(f"{name} paused for {host.paused:.0f}s")
    return lines[:_TROUBLES]


def _bar() -> "Bar":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
    )


def say(*lines: str) -> None:
    """On stderr: stdout belongs to results."""
    print("\n".join(lines), file=sys.stderr)  # noqa: T201
