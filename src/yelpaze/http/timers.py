"""Many deadlines, one heap, one `call_later`.

Almost every deadline is cancelled because the answer came, so cancelling only marks an
entry; marked entries are swept out when they are more than half of the heap.
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

_SWEEP_FROM = 512


class Timer:
    """One deadline; `cancel()` it when it no longer matters."""

    __slots__ = ("_owner", "callback")

    def __init__(self, owner: "Timers", callback: Callable[[], None]) -> None:
        self._owner = owner
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the deadline; harmless if it has passed or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            self._owner.cancelled += 1


class Timers:
    """Calls each timer's callback once its time has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = count()
        self._wake: asyncio.TimerHandle | None = None
        self.cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when`, in seconds of the clock."""
        timer = Timer(self, callback)
        heapq.heappush(self._heap, (when, next(self._number), timer))
        if self._heap[0][2] is timer:
            self._arm()
        elif self.cancelled > _SWEEP_FROM and self.cancelled * 2 > len(self._heap):
            self._sweep()
        return timer

    def close(self) -> None:
        """Drop everything; no callback runs any more."""
        self._heap.clear()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].callback is not None]
        heapq.heapify(self._heap)
        self.cancelled = 0

    def _arm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None
        if self._heap:
            self._wake = self._loop.call_later(self._heap[0][0] - self._clock(), self._fire)

    def _fire(self) -> None:
        now = self._clock()
        heap = self._heap
        while heap and (heap[0][0] <= now or heap[0][2].callback is None):
            timer = heapq.heappop(heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is None:
                self.cancelled -= 1
                continue
            try:
                callback()
            except Exception as error:  # noqa: BLE001  the other deadlines hold all the same
                self._loop.call_exception_handler({"message": "a timer raised", "exception": error})
            heap = self._heap  # a sweep may have replaced it
        self._arm()
