"""How a fetch is shown: its progress, and the table of outcomes at its end."""

import sys
from collections.abc import Mapping

from yelpaze.app.fetch import Fetch
from yelpaze.fetch.record import Record, Tally
from yelpaze.jobs.progress import troubles

_FIRST_ERROR = 400
_KILO, _TENTHS = 1000, 10
_COLUMNS = ("status", "bytes", "time", "tries", "URL")


class View:
    """The job as the progress bar sees it."""

    title = "fetch"
    unit = "URLs"
    before = 0
    has_begun = True

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    @property
    def total(self) -> float | None:
        source = self._fetch.source
        return self._fetch.total if source is None else source.size

    @property
    def position(self) -> float:
        source = self._fetch.source
        return self.done if source is None else source.position * self.done / max(self._fetch.lines_read, 1)

    @property
    def done(self) -> int:
        return self._fetch.job.tally.done + self._fetch.job.tally.skipped

    @property
    def requests(self) -> int:
        return self._fetch.engine.statistics(by_host=False).attempts

    @property
    def failed(self) -> int:
        return self._fetch.job.tally.failed

    @property
    def failures(self) -> Mapping[str, int]:
        return self._fetch.job.tally.kinds

    def notes(self) -> list[str]:
        return troubles(self._fetch.engine.troubles())


def say(lines: list[str]) -> None:
    if lines:
        print("\n".join(lines), file=sys.stderr)  # noqa: T201


def report(fetch: Fetch, tally: Tally, *, silent: bool, errors: bool) -> None:
    for pattern in fetch.engine.statistics(by_host=False).unmatched:
        if not silent:
            say([f"yelpaze: warning: the host pattern {pattern!r} matched no host that was called"])
    if fetch.is_single or silent:
        if errors:
            say([f"yelpaze: {failure.url}: {_reason(failure)}" for failure in tally.failures])
        return
    if tally.failures or tally.successes:
        _table(tally)
    seconds = fetch.seconds
    state = "interrupted" if fetch.job.interrupted else "done"
    counts = f"{tally.succeeded:,} succeeded, {tally.failed:,} failed"
    if tally.skipped:
        counts += f", {tally.skipped:,} skipped as done before"
    lines = [f"{state}: {tally.done:,} URLs in {seconds:.2f} s, {size(tally.bytes)}: {counts}"]
    if tally.error_statuses:
        lines.append(
            f"  {tally.error_statuses:,} answered with a status of 400 or above; --fail makes that a failure"
        )
    if tally.empty:
        lines.append(f"  {tally.empty:,} empty bodies")
    say(lines)


def _table(tally: Tally) -> None:
    """Failures first; of many, the first few of each."""
    from rich.console import Console  # noqa: PLC0415  not worth its 25 ms where no table is shown
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        is_number = column in ("bytes", "time", "tries")
        table.add_column(
            column, justify="right" if is_number else "left", no_wrap=column != "URL", overflow="fold"
        )
    for record in tally.failures + tally.successes:
        is_odd = (record.status or 0) >= _FIRST_ERROR or not record.bytes
        style = "red" if not record.ok else "yellow" if is_odd else None
        where = f" → {record.path}" if record.path else ""
        text = f"{record.url}{where}" if record.ok else f"{record.url}  {_reason(record)}"
        empty = " (empty)" if record.ok and not record.bytes else ""
        table.add_row(
            str(record.status or (record.error.kind if record.error else "")),
            f"{size(record.bytes)}{empty}",
            f"{record.seconds:.2f}s",
            str(len(record.attempts)),
            text,
            style=style,
        )
    console = Console(stderr=True, markup=False, highlight=False)
    if console.is_terminal:
        console.print(table)
    else:  # a line each, for those who grep
        console.width = 10_000
        with console.capture() as capture:
            console.print(table)
        say([line.rstrip() for line in capture.get().splitlines()])
    for name, total, shown in (
        ("failures", tally.failed, len(tally.failures)),
        ("successes", tally.succeeded, len(tally.successes)),
    ):
        if total > shown:
            say([f"… and {total - shown:,} more {name}; --outcomes FILE has them all"])


def _reason(record: Record) -> str:
    return f"{record.error.kind}: {record.error.message}" if record.error else ""


def size(count: float) -> str:
    """`512 B`, `1.5 kB`, `20 MB`."""
    units = ["B", "kB", "MB", "GB"]
    while count >= _KILO and len(units) > 1:
        count /= _KILO
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= _TENTHS else f"{count:.1f} {units[0]}"
