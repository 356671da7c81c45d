"""Signals, and what they ask for.

A service hears SIGTERM and SIGINT: once drains, twice ends at once; SIGHUP reloads what can be reloaded. A
job (`run`, `fetch`) hears the same two, and SIGUSR1 prints where it is, as with dd.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from yelpaze.process.forks import restore_in_forks

T = TypeVar("T")
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    """Work that can be asked to stop."""

    def stop(self) -> bool | None:
        """Stop soon, keeping what is done; true if asking again would hurry it."""


async def until_stopped(job: Stoppable, work: Awaitable[T]) -> T:
    """Do the work; Ctrl-C or SIGTERM stops the job cleanly, and where that is no help any more, at once.

    After the work the process exits with its result: signals that come then are ignored.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if job.stop():
            return
        for number in _STOPPING:
            loop.remove_signal_handler(number)

    restore_in_forks(_STOPPING)
    for number in _STOPPING:
        loop.add_signal_handler(number, stop)
    try:
        return await work
    finally:
        for number in _STOPPING:
            if loop.remove_signal_handler(number):
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def on_status_request(show: Callable[[], None]) -> Iterator[None]:
    """Call `show` at SIGUSR1."""
    loop = asyncio.get_running_loop()
    restore_in_forks({signal.SIGUSR1})
    loop.add_signal_handler(signal.SIGUSR1, show)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


class Stop:
    """Whether the end was requested, and whether a second request made it urgent."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self._urged = asyncio.Event()

    def request(self) -> None:
        """Request the end; the second request is urgent."""
        (self._urged if self._requested.is_set() else self._requested).set()

    @property
    def is_urgent(self) -> bool:
        """Whether nothing more is waited for."""
        return self._urged.is_set()

    async def unless_requested(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; cancel it when the end is requested. Raises what the work raises."""
        await _unless(self._requested, work)

    async def unless_urgent(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; cancel it when the end becomes urgent. Raises what the work raises."""
        await _unless(self._urged, work)


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    task: asyncio.Task[None] = asyncio.create_task(work)
    waiting: asyncio.Task[Any] = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def stopping(on_hangup: Callable[[], None] | None = None, *, then_exits: bool = True) -> Iterator[Stop]:
    """Hear SIGTERM and SIGINT, and SIGHUP.

    Without `on_hangup` SIGHUP requests the end, too, unless it was ignored at the start (nohup(1)).

    `then_exits`: the process ends after that, and further signals are ignored; else handlers are restored.
    """
    stop, loop = Stop(), asyncio.get_running_loop()
    heard = dict.fromkeys(_STOPPING, stop.request)
    if on_hangup is not None or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard[signal.SIGHUP] = on_hangup or stop.request
    restore_in_forks(heard)
    before = {number: signal.getsignal(number) for number in heard}
    for number, callback in heard.items():
        loop.add_signal_handler(number, callback)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # Further ones must not cut the end off. A handler that is not Python's own cannot be restored.
            restored = signal.SIG_DFL if handler is None else handler
            signal.signal(number, signal.SIG_IGN if then_exits else restored)
