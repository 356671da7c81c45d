"""An event loop with real sockets whose clock a test can put forward: time-outs and pauses pass at once.

Everything that the loop times goes by that clock, `asyncio.sleep` too. An engine takes it as `clock=loop.time`.
"""

import asyncio
from collections.abc import Callable

_REAL_PAUSE = 0.005  # seconds between two steps, for what comes over sockets


class AdjustableLoop(asyncio.SelectorEventLoop):
    """`advance` puts its clock forward."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once. What is due then runs in the loop's next turn."""
        self._ahead += seconds
        self.call_soon(lambda: None)  # so that it does not go on sleeping

    async def advance_until(self, condition: Callable[[], object], step: float = 0.1) -> None:
        """Let time pass in steps, with a short real pause after each, until the condition is true."""
        for _ in range(10_000):
            if condition():
                return
            self.advance(step)
            await asyncio.sleep(_REAL_PAUSE)
        raise AssertionError("it did not come true, however much time passed")
