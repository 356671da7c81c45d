"""Calls run in this process, on the event loop: no isolation, no time limit."""

import asyncio
from typing import Any

from yelpaze.compute.handler import call, load
from yelpaze.compute.protocol import Handler, OnResult, Target


class Inline:
    """The simplest backend. A call that never ends stops the whole program."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._handler: Handler | None = None

    async def start(self) -> None:
        self._handler = load(self._target)

    def submit(self, function: int, payload: Any, on_done: OnResult, *, timeout: float) -> None:  # noqa: ARG002
        # Not at once: results arrive after submit() has returned, as from every backend.
        asyncio.get_running_loop().call_soon(self._run, function, payload, on_done)

    def _run(self, function: int, payload: Any, on_done: OnResult) -> None:
        if self._handler is not None:
            on_done(*call(self._handler, function, payload))

    def peak_rss_mb(self) -> float:
        return 0.0

    async def close(self) -> None:
        self._handler = None
