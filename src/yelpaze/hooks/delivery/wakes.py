"""One timer for all endpoints that wait for a point in time."""

import asyncio
import heapq
from collections.abc import Callable

from yelpaze.hooks.delivery.queue import EndpointQueue

_LONGEST_SECONDS = 60.0
_EARLY_SECONDS = 0.001


class Wakes:
    """Calls `on_wake` for each endpoint whose time has come, then `on_all`. It belongs to one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_wake: Callable[[EndpointQueue], None],
        on_all: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_wake = on_wake
        self._on_all = on_all
        self._waiting: list[tuple[float, int, EndpointQueue]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, queue: EndpointQueue, seconds: float) -> None:
        """Wake it after so long, or earlier: whoever is woken looks at the clock."""
        when = self._loop.time() + min(seconds, _LONGEST_SECONDS)
        if queue.timer is not None and queue.timer <= when:
            return
        queue.timer = when
        self._number += 1
        heapq.heappush(self._waiting, (when, self._number, queue))
        if self._waiting[0][2] is queue:
            self.cancel()
            self._timer = self._loop.call_at(when, self._on_timer)

    def cancel(self) -> None:
        """Wake nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now + _EARLY_SECONDS:
            when, _, queue = heapq.heappop(self._waiting)
            if queue.timer == when:
                queue.timer = None
                self._on_wake(queue)
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._on_timer)
        self._on_all()
