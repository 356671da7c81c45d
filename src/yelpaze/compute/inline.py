"""Calls run in this process, on the event loop: no isolation, no time limit."""

import asyncio
import time
from collections import deque
from typing import Any

from yelpaze.compute.handler import call, load
from yelpaze.compute.protocol import EntryPoint, Handler, OnResult

_TURN_SECONDS = 0.005


class Inline:
    """The simplest backend. A call that never ends stops the whole program."""

    broken = None
    trouble = ""

    def __init__(self, target: EntryPoint) -> None:
        self._target = target
        self._handler: Handler | None = None
        self._queue: deque[tuple[int, Any, OnResult]] = deque()

    async def start(self) -> None:
        self._handler = load(self._target)

    def submit(
        self,
        function: int,
        payload: Any,
        on_done: OnResult,
        *,
        timeout: float,  # noqa: ARG002  nothing can stop it
        size: int = 0,  # noqa: ARG002  it goes nowhere
    ) -> None:
        # Not at once: results arrive after submit() has returned, as from every backend.
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._drain)
        self._queue.append((function, payload, on_done))

    def _drain(self) -> None:
        """Run calls for a while, then let the event loop have its turn."""
        loop = asyncio.get_running_loop()
        end = time.monotonic() + _TURN_SECONDS
        while self._queue and self._handler is not None:
            function, payload, on_done = self._queue[0]
            value, fault = call(self._handler, function, payload)
            try:
                on_done(value, fault)  # may submit: the queue is not empty, so no second drain starts
            except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others
                loop.call_exception_handler({"message": "a result's callback raised", "exception": error})
            self._queue.popleft()
            if self._queue and time.monotonic() >= end:
                loop.call_soon(self._drain)
                return

    def peak_rss_mb(self) -> float:
        return 0.0

    async def close(self) -> None:
        self._handler = None
        self._queue.clear()
