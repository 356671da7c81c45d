"""How a run is shown while it goes: a bar on a terminal, plain lines on a pipe; all on stderr."""

import asyncio
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from yelpaze.app import Job, Summary

_BAR_SECONDS, _LINE_SECONDS = 0.2, 5.0
_MINUTE, _HOUR = 60, 3600


class Progress:
    """Shows a job's counters until it ends."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._terminal = sys.stderr.isatty()
        self._bar = _bar() if self._terminal else None
        self._last = (time.monotonic(), 0, 0)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task(self._job.flow.name, total=None, text="starting")
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
        if self._bar is not None:
            self._update()
            self._bar.stop()

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(_BAR_SECONDS if self._terminal else _LINE_SECONDS)
            if self._bar is not None:
                self._update()
            else:
                print(self._text(), file=sys.stderr, flush=True)  # noqa: T201

    def _update(self) -> None:
        assert self._bar is not None
        source = self._job.source
        task = self._bar.task_ids[0]
        self._bar.update(task, total=source.size, completed=self._position(), text=self._text())

    def _text(self) -> str:
        job, (then, rows_then, calls_then) = self._job, self._last
        now = time.monotonic()
        calls = job.machine.engine.statistics(by_host=False).attempts if job.machine else 0
        span = max(now - then, 1e-9)
        self._last = (now, job.rows, calls)
        parts = [
            f"{job.rows:,} rows",
            f"{(job.rows - rows_then) / span:,.0f} rows/s",
            f"{(calls - calls_then) / span:,.0f} requests/s",
        ]
        parts += [f"{kind}: {count:,}" for kind, count in job.failures.most_common(3)]
        if (left := self._left()) is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    def _left(self) -> float | None:
        """Seconds to go, by the share of the input that has been read."""
        size, position = self._job.source.size, self._position()
        if not size or not position or self._job.options.limit is not None:
            return None
        return (time.monotonic() - self._job.began) * (size - position) / position

    def _position(self) -> float:
        """How far into the input the rows that have ended reach: of what was read, their share."""
        job = self._job
        return job.source.position * job.rows / max(job.source.rows, 1)


def _bar() -> Bar:
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


def report(summary: Summary) -> None:
    """The summary, for people."""
    latency = summary.latency_ms
    state = "interrupted" if summary.interrupted else "done"
    lines = [
        f"{state}: {summary.rows:,} rows in {summary.seconds:.2f} s ({summary.rows_per_second:,.0f} rows/s)",
        f"  succeeded {summary.succeeded:,} · failed {summary.failed:,}",
        f"  requests  {summary.requests:,} · retries {summary.retries:,}",
        f"  latency   p50 {latency['p50']:g} ms · p95 {latency['p95']:g} ms · p99 {latency['p99']:g} ms",
        f"  memory    {summary.peak_rss_mb:,.0f} MB at the most, all processes",
        f"  results   {'stdout' if summary.output == '-' else summary.output}",
    ]
    if summary.failures_file:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in summary.failures.items())
        lines.append(f"  failures  {summary.failures_file} ({kinds})")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201
