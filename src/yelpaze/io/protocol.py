"""What a source and a sink promise.

The sink owns progress. `commit(progress)` makes everything written so far durable together
with the progress, and `recover()` gives back the progress of the last commit, with all
that was written after it undone. So after a crash each row is either wholly there and in
the progress, or neither.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

# (number, raw JSON or None, value where there is no raw JSON); numbers count from 1 and
# are places in the whole input, so they are the same in every run over it.
Row = tuple[int, bytes | None, Any]


class Progress(msgspec.Struct, frozen=True):
    """The rows that are done: all up to `through`, and those in `beyond`."""

    through: int = 0
    beyond: tuple[int, ...] = ()


class Source(Protocol):
    """Where rows come from."""

    @property
    def size(self) -> int | None:
        """How much there is, in the unit of `position`, or None if that is unknown."""

    @property
    def position(self) -> int:
        """How much has been read."""

    @property
    def rows(self) -> int:
        """How many rows that was."""

    def blocks(self) -> AsyncIterator[list[Row]]:
        """Rows in order, some at a time. Raises InputError if it can't be read on."""


class Sink(Protocol):
    """Where results and failures go. Methods raise OSError when there is no room or right."""

    def recover(self) -> Progress:
        """Open, cut back to the last commit; Progress() where there is none."""

    def write(self, row: int, result: bytes) -> None:
        """Take a row's result, encoded as JSON."""

    def fail(self, record: dict[str, Any]) -> None:
        """Take a failed row's record."""

    def flush(self) -> None:
        """Hand over to the operating system what was taken, for readers to see."""

    def commit(self, progress: Progress) -> None:
        """Make durable what was taken, and the progress with it."""

    def finish(self) -> None:
        """The whole input is done: commit, and drop what only a continuation would need."""

    def close(self) -> None:
        """Give the files back. What was not committed may be lost."""


class Ledger:
    """Turns rows that start in order and end in any order into a Progress.

    >>> ledger = Ledger()
    >>> for number in (1, 2, 4, 7):  # 3, 5 and 6 were blank lines
    ...     ledger.start(number)
    >>> for number in (1, 4, 7):
    ...     ledger.done(number)
    >>> ledger.progress()
    Progress(through=1, beyond=(4, 7))
    """

    def __init__(self, start: Progress = Progress()) -> None:  # noqa: B008  frozen
        self._open: dict[int, None] = {}
        self._last = start.through
        self._beyond = set(start.beyond)

    def start(self, number: int) -> None:
        """The row is under way."""
        self._open[number] = None
        self._last = number

    def done(self, number: int) -> None:
        """The sink has taken the row."""
        del self._open[number]
        self._beyond.add(number)

    def progress(self) -> Progress:
        """As it stands."""
        through = next(iter(self._open)) - 1 if self._open else self._last
        self._beyond = {number for number in self._beyond if number > through}
        return Progress(through, tuple(sorted(self._beyond)))
