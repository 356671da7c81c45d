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

from yelpaze.serving.control import BUCKETS, Report
from yelpaze.serving.threads import Threads

_OVER = "the process has as many calls as it takes (max_concurrent)"


class Tally:
    """Counts of one process, by method and status. Servicers' threads share it."""

    def __init__(self, changed: Callable[[], None], threads: Threads | None, most: int | None) -> None:
        self._changed = changed
        self._threads = threads
        self._most = most
        self._lock = threading.Lock()
        self._started: dict[str, int] = {}
        self._handled: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, list[float]] = {}
        self.running = 0
        self.clock = time.perf_counter

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

    def start(self, method: str) -> float:
        """A call of that method begins; the time, for `end`."""
        with self._lock:
            self.running += 1
            self._started[method] = self._started.get(method, 0) + 1
        self._changed()
        return self.clock()

    def end(self, method: str, status: str, began: float) -> None:
        """It has ended with that status."""
        took = self.clock() - began
        with self._lock:
            self.running -= 1
            self._handled[method, status] = self._handled.get((method, status), 0) + 1
            seconds = self._seconds.get(method)
            if seconds is None:
                seconds = self._seconds[method] = [0.0] * (len(BUCKETS) + 2)
            seconds[bisect_left(BUCKETS, took)] += 1
            seconds[-1] += took
        self._changed()

    def refuse(self, method: str) -> None:
        """A call was one too many."""
        with self._lock:
            key = method, grpc.StatusCode.RESOURCE_EXHAUSTED.name
            self._started[method] = self._started.get(method, 0) + 1
            self._handled[key] = self._handled.get(key, 0) + 1

    def report(self) -> Report:
        """All of it, as it is now."""
        with self._lock:
            return Report(
                started=dict(self._started),
                handled=dict(self._handled),
                seconds={method: list(seconds) for method, seconds in self._seconds.items()},
                running=self.running,
                waiting=self.waiting,
            )


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
    code = context.code()
    if code is not None and code != 0:
        return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")
    if error is None:
        return "OK"
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "UNKNOWN"


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _wrapped(method: str, behavior: Callable[..., Any], tally: Tally, *, is_stream: bool) -> Any:
    if isasyncgenfunction(behavior):
        return _async_generator(method, behavior, tally)
    if iscoroutinefunction(behavior):
        return _coroutine(method, behavior, tally)
    return _generator(method, behavior, tally) if is_stream else _function(method, behavior, tally)


def _coroutine(method: str, behavior: Callable[..., Any], tally: Tally) -> Any:
    async def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            tally.refuse(method)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVER)
        began, error = tally.start(method), None
        try:
            return await behavior(request, context)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tally.end(method, _status(context, error), began)

    return call


def _async_generator(method: str, behavior: Callable[..., Any], tally: Tally) -> Any:
    async def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            tally.refuse(method)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVER)
        began, error = tally.start(method), None
        try:
            async for response in behavior(request, context):
                yield response
        except BaseException as raised:
            error = raised
            raise
        finally:
            tally.end(method, _status(context, error), began)

    return call


def _function(method: str, behavior: Callable[..., Any], tally: Tally) -> Any:
    def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            tally.refuse(method)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVER)
        began, error = tally.start(method), None
        try:
            return behavior(request, context)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tally.end(method, _status(context, error), began)

    return call


def _generator(method: str, behavior: Callable[..., Any], tally: Tally) -> Any:
    def call(request: Any, context: Any) -> Any:
        if tally.is_over:
            tally.refuse(method)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVER)
        began, error = tally.start(method), None
        try:
            yield from behavior(request, context)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tally.end(method, _status(context, error), began)

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
        self._known: dict[int, tuple[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = self._handler.service(handler_call_details)
        if found is None:
            return None
        known = self._known.get(id(found))
        if known is None or known[0] is not found:
            method = handler_call_details.method.removeprefix("/")
            known = self._known[id(found)] = found, counted(method, found, self._tally)
        return known[1]
