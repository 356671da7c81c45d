"""How far an input may be read ahead of the finished work: the bound on memory.

Items whose calls are parked (by a host's limit, a pause, an open breaker) do not count, up to eight times
the bound. So one host that is away does not block the others.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PARKED_FACTOR = 8
_SECONDS = 0.005  # an input that takes longer for an item is not waited for more of them


def some_of(items: Iterator[T], most: int, clock: Callable[[], float]) -> list[T]:
    """The next items, at most so many; fewer where they take long to come. None at the end.

    >>> some_of(iter("abc"), 2, lambda: 0.0)
    ['a', 'b']
    """
    found: list[T] = []
    end = clock() + _SECONDS
    for item in items:
        found.append(item)
        if len(found) >= most or clock() >= end:
            break
    return found


class LookAhead:
    """Counts the items held, and how many of them are parked.

    >>> ahead = LookAhead(2)
    >>> ahead.held = 2
    >>> ahead.has_room
    False
    >>> ahead.parked = 1
    >>> ahead.has_room
    True
    """

    __slots__ = ("_max_parked", "held", "parked", "size")

    def __init__(self, size: int, *, parks: bool = True) -> None:
        self.size = size
        self._max_parked = size * _PARKED_FACTOR if parks else 0
        self.held = self.parked = 0

    @property
    def busy(self) -> int:
        """Items that are held and not parked."""
        return self.held - min(self.parked, self._max_parked)

    @property
    def has_room(self) -> bool:
        """Whether one more item may be taken from the input."""
        return self.held < self.size or self.busy < self.size
