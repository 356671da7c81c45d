"""Two counters over the last seconds, in ten steps: what ratios are judged by.

Counting is left to the caller, who does it with every call and should not pay for more:

    if now >= window.ends:
        window.roll(now)
    window.calls += 1
"""

from collections import deque

_STEPS = 10


class Window:
    """Counts calls, and those of them that are marked, over about the last `seconds`.

    >>> window = Window(10.0)
    >>> window.roll(0.5); window.calls += 1
    >>> window.roll(5.5); window.calls += 1; window.marked += 1
    >>> window.roll(10.5); window.calls, window.marked
    (1, 1)
    """

    __slots__ = ("_past", "_step", "_turn", "calls", "ends", "marked")

    def __init__(self, seconds: float) -> None:
        self._step = seconds / _STEPS
        # What each past step added: (turn, calls, marked).
        self._past: deque[tuple[int, int, int]] = deque()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._past.clear()
        self._turn = 0
        self.ends = float("-inf")  # from here on `roll` has work to do
        self.calls = self.marked = 0

    def roll(self, now: float) -> None:
        """Begin a new step, if it is time, and drop what is older than the window."""
        if now < self.ends:
            return
        past, turn = self._past, int(now // self._step)
        calls = self.calls - sum(entry[1] for entry in past)
        marked = self.marked - sum(entry[2] for entry in past)
        if calls or marked:
            past.append((self._turn, calls, marked))
        while past and past[0][0] <= turn - _STEPS:
            _, calls, marked = past.popleft()
            self.calls -= calls
            self.marked -= marked
        self._turn = turn
        self.ends = (turn + 1) * self._step
