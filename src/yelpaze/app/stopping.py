"""Ctrl-C and SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Stoppable(Protocol):
    """Work that can be asked to stop."""

    def stop(self) -> bool | None:
        """Stop soon, keeping what is done; true if asking again would hurry it."""


async def until_stopped(job: Stoppable, work: Awaitable[T]) -> T:
    """Do the work; Ctrl-C or SIGTERM stops the job cleanly, and where that is no help any more, at once."""
    loop = asyncio.get_running_loop()
    handled = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        if job.stop():
            return
        for number in handled:
            loop.remove_signal_handler(number)

    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        return await work
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
