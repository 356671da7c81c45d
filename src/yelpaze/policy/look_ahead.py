"""How far an input may be read ahead of what is done: the bound on memory.

Work whose calls wait for a host (its limit, a pause, an open breaker) does not count, up to
eight times as much, so that one host that is away does not hold up the others.
"""

_ASIDE = 8


class LookAhead:
    """Counts what is held of an input, and how much of it waits for a host.

    >>> ahead = LookAhead(2)
    >>> ahead.held = 2
    >>> ahead.has_room
    False
    >>> ahead.aside = 1
    >>> ahead.has_room
    True
    """

    __slots__ = ("_most_aside", "aside", "held", "size")

    def __init__(self, size: int, *, sets_aside: bool = True) -> None:
        self.size = size
        self._most_aside = size * _ASIDE if sets_aside else 0
        self.held = self.aside = 0

    @property
    def busy(self) -> int:
        """What is held and does not wait."""
        return self.held - min(self.aside, self._most_aside)

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken from the input."""
        return self.held < self.size or self.busy < self.size
