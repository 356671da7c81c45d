"""Acknowledgements: items that start in order and end in any order, as one resumable position.

A reader hands items out in blocks. Each block has a *cursor*, from which the reader can read it again. The
state after a crash is the highest item started, the items below it that are still open, and the cursor of
the oldest open one.
"""

from typing import Any

import msgspec


class AckState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Acknowledged are all items up to `through`, except those in `open`. `cursor` lies before these."""

    through: int = 0
    open: tuple[int, ...] = ()
    cursor: Any = None


class AckTracker:
    """Tracks which items are open. Item numbers grow; gaps are allowed.

    >>> tracker = AckTracker()
    >>> tracker.block(0, first=1)
    >>> for number in (1, 2, 4, 7):  # 3, 5 and 6 were blank lines
    ...     tracker.start(number)
    >>> for number in (1, 4, 7):
    ...     tracker.done(number)
    >>> tracker.state()
    AckState(through=7, open=(2,), cursor=0)
    """

    def __init__(self, start: AckState = AckState()) -> None:  # noqa: B008  frozen
        self._open = dict.fromkeys(start.open)
        self._last = start.through
        self._cursors: list[tuple[int, Any]] = [(0, start.cursor)]

    def block(self, cursor: Any, *, first: int) -> None:
        """A block begins; its first item has that number."""
        oldest = next(iter(self._open), self._last + 1)
        cursors = self._cursors
        while len(cursors) > 1 and cursors[1][0] <= oldest:
            cursors.pop(0)
        cursors.append((first, cursor))

    def cursor_of(self, number: int) -> Any:
        """The cursor of the block that an open item is in."""
        return next(cursor for first, cursor in reversed(self._cursors) if first <= number)

    def start(self, number: int) -> None:
        """The item is handed out."""
        self._open[number] = None
        self._last = max(self._last, number)

    def done(self, number: int) -> None:
        """The item is acknowledged."""
        del self._open[number]

    def state(self) -> AckState:
        """The current state."""
        oldest = next(iter(self._open), self._last + 1)
        return AckState(self._last, tuple(self._open), self.cursor_of(oldest))
