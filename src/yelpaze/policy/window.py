"""Two counters over the last seconds, in ten steps: what ratios are judged by."""

_STEPS = 10


class Window:
    """Counts calls, and those of them that are marked, over about the last `seconds`.

    >>> window = Window(10.0)
    >>> window.add(0.0, marked=True); window.add(5.0, marked=False)
    >>> window.calls, window.marked
    (2, 1)
    >>> window.roll(10.5); window.calls, window.marked
    (1, 0)
    """

    __slots__ = ("_at", "_calls", "_marked", "_step", "_turn", "calls", "ends", "marked")

    def __init__(self, seconds: float) -> None:
        self._step = seconds / _STEPS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._calls = [0] * _STEPS
        self._marked = [0] * _STEPS
        self._at = 0
        self._turn: int | None = None
        self.ends = float("-inf")  # from here on `roll` has work to do
        self.calls = self.marked = 0

    def add(self, now: float, *, marked: bool) -> None:
        """Count one call."""
        if now >= self.ends:
            self.roll(now)
        self._calls[self._at] += 1
        self.calls += 1
        if marked:
            self._marked[self._at] += 1
            self.marked += 1

    def mark(self, now: float) -> None:
        """Count a mark without a call."""
        if now >= self.ends:
            self.roll(now)
        self._marked[self._at] += 1
        self.marked += 1

    def roll(self, now: float) -> None:
        """Drop what is older than the window."""
        turn = int(now // self._step)
        if self._turn is None or turn - self._turn >= _STEPS:
            self.clear()
        elif turn > self._turn:
            for old in range(self._turn + 1, turn + 1):
                at = old % _STEPS
                self.calls -= self._calls[at]
                self.marked -= self._marked[at]
                self._calls[at] = self._marked[at] = 0
        self._turn = turn
        self._at = turn % _STEPS
        self.ends = (turn + 1) * self._step
