"""Waiting for a condition that another process or thread makes true, with a bound in place of a fixed sleep."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS = 60.0
_PAUSE = 0.01


def until(condition: Callable[[], T], seconds: float = SECONDS) -> T:
    """Wait until `condition()` is true; return what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(_PAUSE)
    return found


async def until_true(condition: Callable[[], T], seconds: float = SECONDS) -> T:
    """The same on the event loop, which goes on meanwhile."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(_PAUSE)
    return found
