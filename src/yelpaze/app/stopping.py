"""Ctrl-C and SIGTERM."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_STOPPING = (signal.SIGTERM, signal.SIGINT)


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


class Stop:
    """Whether the end was requested, and whether a second request made it urgent."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._urged = asyncio.Event()

    def ask(self) -> None:
        """Request the end; the second request is urgent."""
        (self._urged if self._asked.is_set() else self._asked).set()

    async def wait(self) -> None:
        """Wait until the end is requested."""
        await self._asked.wait()

    @property
    def is_urgent(self) -> bool:
        """Whether nothing more is waited for."""
        return self._urged.is_set()

    async def unless_urgent(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, unless it gets urgent."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        urged: asyncio.Task[Any] = asyncio.create_task(self._urged.wait())
        await asyncio.wait({task, urged}, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, urged):
            one.cancel()
        await asyncio.gather(task, urged, return_exceptions=True)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Hear SIGTERM and SIGINT."""
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # it ends already; once more must not cut that off
