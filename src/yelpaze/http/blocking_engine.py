"""The engine for programs without an event loop: Flask, Django, Celery, scripts.

One `Engine` in one event loop in one thread; every method hands its arguments over and waits. So limits,
policies and kept connections are shared by all threads that call.
"""

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from yelpaze.http.engine import Engine
from yelpaze.http.spool import Destination
from yelpaze.model.errors import MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request
from yelpaze.model.statistics import Statistics
from yelpaze.policy.look_ahead import some_of

T = TypeVar("T")


class BlockingEngine:
    """An engine whose methods block, for any number of threads. It takes the options of `yelpaze.Engine`.

        from yelpaze import get
        from yelpaze.blocking import Engine

        with Engine(per_host=20) as engine:
            page = engine.gather({"user": get(…), "orders": get(…)})

    Without `with` it opens at the first call, and closes with the process or by `close()`: one for a whole
    application, as `requests.Session`. A process that is forked after the first call needs one of its own.

    Raises MisuseError for options that make no sense, and for calls from async code, where `yelpaze.Engine`
    does not hold up the event loop.
    """

    def __init__(self, **options: Any) -> None:
        self._engine = Engine(**options)
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._finalizer: weakref.finalize[..., BlockingEngine] | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(
        self,
        request: Request,
        *,
        to: Destination | None = None,
        deadline: float | None = None,
        trace_id: str | None = None,
    ) -> Outcome:
        """See `Engine.send`. A callable given as `to` is called in the engine's thread."""
        thread = self._opened()
        return thread.wait_for(self._engine.send(request, to=to, deadline=deadline, trace_id=trace_id))

    def gather(
        self,
        requests: Mapping[str, Request],
        *,
        mode: Literal["settle", "fail_fast"] = "settle",
        deadline: float | None = None,
        trace_id: str | None = None,
    ) -> dict[str, Outcome]:
        """See `Engine.gather`."""
        thread = self._opened()
        return thread.wait_for(self._engine.gather(requests, mode=mode, deadline=deadline, trace_id=trace_id))

    def stream(
        self, requests: Iterable[Request], *, concurrency: int | None = None, ordered: bool = False
    ) -> Iterator[Outcome]:
        """See `Engine.stream`. The requests are taken in the calling thread, a window of them at a time.

        Calls go on while the caller works on an outcome. At most twice `concurrency` outcomes wait.
        """
        thread = self._opened()
        size = concurrency or self._engine.concurrency
        source = iter(requests)
        exchange = thread.wait_for(_opened_exchange(self._engine, size, concurrency, ordered=ordered))
        try:
            while (outcomes := thread.wait_for(exchange.next())) != []:
                if outcomes is None:
                    thread.loop.call_soon_threadsafe(exchange.supply, some_of(source, size, time.monotonic))
                else:
                    yield from outcomes
        finally:
            with suppress(MisuseError):  # the engine was closed, and has ended it
                thread.wait_for(exchange.close())

    def statistics(self, *, by_host: bool = True) -> Statistics:
        """See `Engine.statistics`."""
        thread = self._thread
        if thread is None or self._is_closed:
            return self._engine.statistics(by_host=by_host)

        async def read() -> Statistics:
            return self._engine.statistics(by_host=by_host)

        return thread.wait_for(read())

    def close(self, *, drain: float = 0.0) -> None:
        """Close every socket and end the thread; see `Engine.close`. Other threads' calls get an outcome."""
        with self._lock:
            self._is_closed = True
            closing = None if self._finalizer is None else self._finalizer.detach()
        if closing is not None and self._thread is not None:
            _shut(self._thread, self._engine, drain)

    def _opened(self) -> "_LoopThread":
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._thread is None:
                thread = _LoopThread()
                try:
                    thread.wait_for(self._engine.__aenter__())
                except BaseException:
                    _shut(thread, self._engine)
                    raise
                self._thread = thread
                self._finalizer = weakref.finalize(self, _shut, thread, self._engine)
            return self._thread


def _shut(thread: "_LoopThread", engine: Engine, drain: float = 0.0) -> None:
    """Also where nobody closed the engine: at its collection, or the end of the process."""
    if not thread.is_of_another_process:
        thread.end(engine.close(drain=drain))


class _LoopThread:
    """An event loop that runs in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._submitting = threading.Lock()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="yelpaze engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one whose thread it is."""
        return os.getpid() != self._process

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result, waited for in the calling thread; Ctrl-C there cancels it. Raises MisuseError."""
        try:
            self._check()
            future = self._submit(work)
        except MisuseError:
            work.close()
            raise
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, CancelledError) and self._is_ending:
                raise _closed() from None
            raise

    def _check(self) -> None:
        if self.is_of_another_process:
            raise MisuseError(
                "the engine was opened before this process was forked: open one in each process, "
                "or make the first call after the fork"
            )
        if _has_running_loop():
            raise MisuseError(
                "a blocking engine would hold up the event loop that is running here: use yelpaze.Engine"
            )

    def _submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        with self._submitting:  # what is submitted runs, before the loop ends
            if self._is_ending:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def end(self, closing: Coroutine[Any, Any, None]) -> None:
        """Close, cancel what else runs, and end the thread; wait for it, unless an event loop runs here."""
        with self._submitting:
            self._is_ending = True
            ended = asyncio.run_coroutine_threadsafe(self._end(closing), self.loop)
        if not _has_running_loop():
            ended.result()
            self._thread.join()

    async def _end(self, closing: Coroutine[Any, Any, None]) -> None:
        try:
            await closing
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.sleep(0)  # those that the engine's end has ended
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        finally:
            self.loop.call_soon(self.loop.stop)


def _closed() -> MisuseError:
    return MisuseError("the engine is closed")


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Exchange:
    """Requests in, outcomes out, between a calling thread and the loop."""

    def __init__(self, engine: Engine, size: int, concurrency: int | None, *, ordered: bool) -> None:
        self._size = size
        self._ready: deque[Outcome] = deque()
        self._changed, self._has_room = asyncio.Event(), asyncio.Event()
        self._supply: asyncio.Future[list[Request]] | None = None
        self._wants = False
        outcomes = engine.stream(self._requests(), concurrency=concurrency, ordered=ordered)
        self._task = asyncio.ensure_future(self._pump(outcomes))
        self._task.add_done_callback(lambda _: self._changed.set())

    async def _requests(self) -> AsyncIterator[Request]:
        while True:
            self._supply = asyncio.get_running_loop().create_future()
            self._wants = True
            self._changed.set()
            batch = await self._supply
            if not batch:
                return
            for request in batch:
                yield request

    async def _pump(self, outcomes: AsyncIterator[Outcome]) -> None:
        async for outcome in outcomes:
            self._ready.append(outcome)
            self._changed.set()
            while len(self._ready) >= self._size:
                self._has_room.clear()
                await self._has_room.wait()

    async def next(self) -> list[Outcome] | None:
        """Some outcomes, none at the end; None if more requests are wanted. Raises what the stream raises."""
        while not (self._wants or self._ready or self._task.done()):
            self._changed.clear()
            await self._changed.wait()
        if self._wants:
            self._wants = False
            return None
        outcomes = list(self._ready)
        self._ready.clear()
        self._has_room.set()
        if not outcomes:
            await self._task
        return outcomes

    def supply(self, requests: list[Request]) -> None:
        """The requests that were wanted; none if there are no more."""
        if self._supply is not None and not self._supply.done():
            self._supply.set_result(requests)

    async def close(self) -> None:
        """Cancel what is under way."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def _opened_exchange(engine: Engine, size: int, concurrency: int | None, *, ordered: bool) -> _Exchange:
    return _Exchange(engine, size, concurrency, ordered=ordered)
