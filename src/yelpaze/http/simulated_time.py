"""An event loop whose time jumps to the next timer, so that minutes of waiting pass in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_START = 1000.0


class _Selector(selectors.DefaultSelector):
    """Never sleeps while a timer is set: it moves the loop's clock instead."""

    loop: "SimulatedLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return list(super().select(None))
        events = list(super().select(0))
        if not events and timeout > 0:
            self.loop.now += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The loop; `now` is its time in seconds, which begins at 1,000."""

    def __init__(self) -> None:
        self.now = _START
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Simulated seconds."""
        return self.now


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in simulated time: what would take an hour of pauses takes milliseconds.

    Timers fire in order, each at its exact time. Real sockets and processes have no place in it: while they
    are waited for, the time jumps.

    >>> async def long():
    ...     began = asyncio.get_running_loop().time()
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time() - began
    >>> run_simulated(long())
    3600.0
    """
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
