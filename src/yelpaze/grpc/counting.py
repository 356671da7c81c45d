"""Calls counted as they come and go: how busy a process is, and its metrics.

Methods are wrapped once, when they are registered; an interceptor would cost several times as much
on each call.
"""

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

import grpc
import msgspec

from yelpaze.grpc.control import BUCKETS, RAN, REFUSED_BY, ProcessReport
from yelpaze.grpc.raised import answerable, is_cancelled
from yelpaze.grpc.threads import Threads

_RAN = ((RAN, "1"),)
_OVER = "the process has as many calls as it takes (max_concurrent)"


class Tally:
    """Counts of one process, by method and status. Servicers' threads share it, under `lock`.

    `id_` is the process's, by which clients know it.
    """

    def __init__(
        self, changed: Callable[[], None], threads: Threads | None, most: int | None, id_: str = ""
    ) -> None:
        self.refusal = ((REFUSED_BY, id_),)
        self._threads = threads
        self._most = most
        self._methods: dict[str, Counts] = {}
        self.lock = threading.Lock()
        self.changed = changed
        self.clock = time.perf_counter
        self.running = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._threads.waiting if self._threads is not None else 0

    @property
    def is_over(self) -> bool:
        """Whether the call that asks is one too many."""
        if self._threads is not None:
            return self._threads.is_refusing
        return self._most is not None and self.running >= self._most

    def of(self, method: str) -> "Counts":
        """The counts of that method."""
        with self.lock:
            return self._methods.setdefault(method, Counts(self))

    def report(self) -> ProcessReport:
        """All of it, as it is now."""
        with self.lock:
            methods = self._methods.items()
            return ProcessReport(
                started={method: counts.started for method, counts in methods if counts.started},
                handled={
                    (method, status): count
                    for method, counts in methods
                    for status, count in counts.handled.items()
                },
                seconds={method: list(counts.seconds) for method, counts in methods if any(counts.seconds)},
                running=self.running,
                waiting=self.waiting,
            )


class Counts:
    """Counts of one method, looked up once, so that a call needs no look-up by its method's name.

    `handled` is by status; `seconds` as in `ProcessReport`.
    """

    __slots__ = ("handled", "seconds", "started", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.started = 0
        self.handled: dict[str, int] = {}
        self.seconds = [0.0] * (len(BUCKETS) + 2)

    def begin(self) -> None:
        """Something that is counted as a method, but is none of gRPC's, begins."""
        with self.tally.lock:
            self.started += 1

    def end(self, status: str, began: float) -> None:
        """It has ended."""
        took = self.tally.clock() - began
        with self.tally.lock:
            self.handled[status] = self.handled.get(status, 0) + 1
            self.seconds[bisect_left(BUCKETS, took)] += 1
            self.seconds[-1] += took

    def refuse(self, context: Any) -> Any:
        """A call is one too many. Raises what ends it; where calls are async, gives what must be awaited."""
        with self.tally.lock:
            self.started += 1
            status = grpc.StatusCode.RESOURCE_EXHAUSTED.name
            self.handled[status] = self.handled.get(status, 0) + 1
        context.set_trailing_metadata(self.tally.refusal)
        return context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVER)


class CountedCall(msgspec.Struct, gc=False):
    """A call while it runs: counted as it begins and as it ends, however it does.

    Each call makes one, so it costs as little as can be: a struct is made in a third of the time of an
    object with `__init__`, and nothing refers back to it that the garbage collector would have to find.
    """

    counts: Counts
    context: Any
    began: float = 0.0

    def __enter__(self) -> None:
        counts = self.counts
        tally = counts.tally
        with tally.lock:
            tally.running += 1
            counts.started += 1
        tally.changed()
        # Before it begins: what `abort` of an async context says is sent at once.
        if hasattr(self.context, "trailing_metadata"):
            self.context.set_trailing_metadata(_RAN)
        self.began = tally.clock()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        counts = self.counts
        tally = counts.tally
        status = _status(self.context, error)
        took = tally.clock() - self.began
        if status == "OK" and getattr(self.context, "trailing_metadata", tuple)() is _RAN:
            self.context.set_trailing_metadata(())
        with tally.lock:
            tally.running -= 1
            handled, seconds = counts.handled, counts.seconds
            handled[status] = handled.get(status, 0) + 1
            seconds[bisect_left(BUCKETS, took)] += 1
            seconds[-1] += took
        tally.changed()


def counted(method: str, handler: Any, tally: Tally) -> Any:
    """The handler of a method, its calls counted and, if they are too many, refused."""
    kind = f"{_word(handler.request_streaming)}_{_word(handler.response_streaming)}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    behavior = getattr(handler, kind)
    wrapped = _wrapped(method, behavior, tally, is_stream=handler.response_streaming)
    return make(wrapped, handler.request_deserializer, handler.response_serializer)


def _word(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


def _status(context: Any, error: BaseException | None) -> str:
    # gRPC's async server runs what is not async in threads, with a context that can't be asked.
    code = context.code() if hasattr(context, "code") else None
    if code is not None and code != 0:
        return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")
    if error is None:
        return "OK"
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "UNKNOWN"


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _wrapped(method: str, behavior: Callable[..., Any], tally: Tally, *, is_stream: bool) -> Any:
    if isasyncgenfunction(behavior):
        wrap = _async_generator
    elif iscoroutinefunction(behavior):
        wrap = _coroutine
    else:
        wrap = _generator if is_stream else _function
    return wrap(behavior, tally, tally.of(method))


# What a servicer raises becomes what gRPC can answer within the count, which so has the status that is sent.


def _coroutine(behavior: Callable[..., Any], tally: Tally, counts: Counts) -> Any:
    async def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            await counts.refuse(context)
        with CountedCall(counts, context):
            try:
                return await behavior(request, context)
            except BaseException as error:
                if is_cancelled(error) or (other := answerable(error)) is None:
                    raise
                raise other from error

    return call


def _async_generator(behavior: Callable[..., Any], tally: Tally, counts: Counts) -> Any:
    async def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            await counts.refuse(context)
        is_left = False
        with CountedCall(counts, context):
            try:
                async for response in behavior(request, context):
                    is_left = True
                    yield response
                    is_left = False
            except BaseException as error:
                if is_left or is_cancelled(error) or (other := answerable(error)) is None:
                    raise
                raise other from error

    return call


def _function(behavior: Callable[..., Any], tally: Tally, counts: Counts) -> Any:
    def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            counts.refuse(context)
        with CountedCall(counts, context):
            try:
                return behavior(request, context)
            except BaseException as error:
                if (other := answerable(error)) is None:
                    raise
                raise other from error

    return call


def _generator(behavior: Callable[..., Any], tally: Tally, counts: Counts) -> Any:
    def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            counts.refuse(context)
        is_left = False
        with CountedCall(counts, context):
            try:
                for response in behavior(request, context):
                    is_left = True
                    yield response
                    is_left = False
            except BaseException as error:
                if is_left or (other := answerable(error)) is None:
                    raise
                raise other from error

    return call


class Registrar:
    """Stands for the server while servicers are added: what is added is counted."""

    def __init__(self, server: Any, tally: Tally) -> None:
        self._server = server
        self._tally = tally
        self.services: list[str] = []

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """See grpc.Server."""
        if service not in self.services:
            self.services.append(service)
        wrapped = {
            name: counted(f"{service}/{name}", handler, self._tally) for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, wrapped)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.Server."""
        for handler in handlers:
            if isinstance(handler, grpc.ServiceRpcHandler) and handler.service_name() not in self.services:
                self.services.append(handler.service_name())
        self._server.add_generic_rpc_handlers(tuple(_Counted(handler, self._tally) for handler in handlers))


class _Counted(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler, tally: Tally) -> None:
        self._handler = handler
        self._tally = tally
        self._known: dict[str, tuple[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = self._handler.service(handler_call_details)
        if found is None:
            return None
        name = handler_call_details.method
        known = self._known.get(name)
        if known is None or known[0] is not found:
            known = self._known[name] = found, counted(name.removeprefix("/"), found, self._tally)
        return known[1]
