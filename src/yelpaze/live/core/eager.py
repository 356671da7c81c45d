"""Coroutines that run at once, up to their first wait.

Most of what a connection asks for needs no waiting: with the broker in memory nothing does. A task for
each would cost more than the work, so a coroutine is driven from where it is called; if it waits for a
future, it goes on when that is done. What it awaits must be futures: it has no task, so nothing that asks
for the current one (`asyncio.timeout`, `asyncio.sleep` is fine) may be awaited in it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(
    work: Coroutine[Any, Any, T],
    done: Callable[[T], None],
    failed: Callable[[Exception], None],
) -> None:
    """Run it; `done` or `failed` is called once, maybe before this returns."""
    _step(work, done, failed, None)


def _step(
    work: Coroutine[Any, Any, T],
    done: Callable[[T], None],
    failed: Callable[[Exception], None],
    _: "asyncio.Future[Any] | None",
) -> None:
    try:
        waited = work.send(None)
    except StopIteration as end:
        done(end.value)
    except Exception as error:  # noqa: BLE001  it is the caller's to judge
        failed(error)
    else:
        if waited is None:  # asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(_step, work, done, failed, None)
            return
        waited._asyncio_future_blocking = False  # noqa: SLF001  as a task does: it was awaited, and is heard
        waited.add_done_callback(lambda future: _step(work, done, failed, future))
