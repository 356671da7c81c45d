"""Blocking calls from the event loop, on threads that are kept for the next call.

asyncio's own executor does not fit: a program that ends waits for its threads, and a read from a silent
terminal or a stuck disk never returns. These are daemon threads. There are as many as calls that ever
blocked at the same time: a few.
"""

import contextlib
import os
import threading
from asyncio import get_running_loop
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class _Pool:
    """Starts a thread only if none is idle."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a forked child has none of the threads."""
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def run(self, job: Callable[[], None]) -> None:
        with self._lock:
            has_idle = self._idle > 0
            self._idle -= has_idle
        if not has_idle:
            threading.Thread(target=self._work, daemon=True, name="yelpaze-io").start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            with self._lock:
                self._idle += 1


_POOL = _Pool()  # of the process, as threads are
os.register_at_fork(after_in_child=_POOL.forget)


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread; the result, or what it raised."""
    loop = get_running_loop()
    future = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(value)

    def run() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as caught:  # noqa: BLE001  raised where it is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    _POOL.run(run)
    result: T = await future
    return result
