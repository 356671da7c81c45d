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
            if len(self.get_map()) <= 1 and not self.loop.in_threads:  # the loop's own wake-up alone
                raise RuntimeError(f"nothing is left to wait for at simulated time {self.loop.now:g}")
            return list(super().select(None))
        events = list(super().select(0))
        if not events and timeout > 0:
            self.loop.now += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The loop; `now` is its time in seconds, which begins at 1,000."""

    def __init__(self) -> None:
        self.now = _START
        self.in_threads = 0  # calls that other threads make for the loop
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Simulated seconds."""
        return self.now

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As asyncio's own; counted, since it ends in real time."""

        def ended(_: object) -> None:
            self.in_threads -= 1

        future: asyncio.Future[Any] = super().run_in_executor(*arguments)
        self.in_threads += 1
        future.add_done_callback(ended)
        return future


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in simulated time: what would take an hour of pauses takes milliseconds.

    Timers fire in order, each at its exact time. When nothing can happen any more, RuntimeError is raised.
    Real sockets and processes have no place in it: while they are waited for, the time jumps.

    >>> async def long():
    ...     began = asyncio.get_running_loop().time()
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time() - began
    >>> run_simulated(long())
    3600.0
    """
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
