"""Functions of a module, called from Python at workers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import msgspec

from yelpaze.compute.protocol import CallError, Fault, Unit
from yelpaze.compute.remote import Remote
from yelpaze.compute.source import files_of
from yelpaze.compute.workers import LOCAL, Who, Workers, who
from yelpaze.model.errors import MisuseError, RemoteError, StoppedError

_AT_ONCE = 256


class _Codec:
    """Arguments as MessagePack; functions are numbered as they are met."""

    def __init__(self, module: str | ModuleType) -> None:
        name, files = module, dict[str, str]()
        if not isinstance(module, str):
            files = files_of(Path(module.__file__ or ""))
            name = module.__name__
        self.unit = Unit(str(name), (), files)
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number_of(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]

    def name_of(self, function: int) -> str:
        return self._names[function]

    def encode(self, function: int, payload: tuple[Any, Any, Any]) -> bytes:
        arguments, named, _ = payload
        try:
            return msgspec.msgpack.encode((arguments, named))
        except Exception as error:  # noqa: BLE001  encoding runs user code
            message = f"{self.name_of(function)}: the arguments can't be sent as MessagePack: {error}"
            raise CallError("misuse", message) from None

    def decode(self, function: int, payload: tuple[Any, Any, Any], data: bytes) -> Any:
        try:
            return msgspec.msgpack.decode(data, type=payload[2])
        except msgspec.DecodeError as error:
            raise CallError("result", f"{self.name_of(function)}: the value does not fit: {error}") from None


class Functions:
    """A module's functions, each call in a process of its own at some worker.

        async with Functions("grpc://localhost:50051", module="pricing") as pricing:
            quote = await pricing.call("quote", {"items": 3}, currency="EUR", timeout=5)

    Arguments and values are what MessagePack has, and what msgspec makes of Structs, dataclasses, dates, …;
    a worker converts arguments to what the function's annotations say. Functions should bear being called
    twice: a call whose worker is lost is made again at another one.

    - `workers`: `grpc://host:port`, several with commas or as a list, or `Workers(…)`; `local` is a worker
      that this machine's programs share: it is started if there is none, and ends with the last of them.
    - `module`: as workers were given it: `pricing` for both `pricing.py` and the module `pricing`. If it
      is the imported module, workers must have the same source.
    """

    def __init__(self, workers: Who, *, module: str | ModuleType) -> None:
        found = who(workers)
        if not isinstance(found, Workers):
            raise MisuseError("Functions takes addresses of workers")
        self._workers = found
        self._codec = _Codec(module)
        self._spec = module if isinstance(module, str) else str(Path(module.__file__ or "").resolve())
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Wait for the first worker. Raises InputError if it serves something else, StoppedError."""
        async with AsyncExitStack() as stack:
            workers = self._workers
            if LOCAL in workers.targets:
                from yelpaze.compute.local import with_local  # noqa: PLC0415  Unix only

                workers = await with_local(workers, self._spec, self._codec.unit, stack)
            self._remote = Remote(workers, self._codec)
            stack.push_async_callback(self._remote.close)
            await self._remote.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def call(
        self,
        function: str | Callable[..., Any],
        *arguments: Any,
        timeout: float = 60.0,  # noqa: ASYNC109  of the function's own running
        type: Any = Any,  # noqa: A002
        **named: Any,
    ) -> Any:
        """One call. `timeout`: seconds of its own running, after which its process is killed.

        The value is decoded to `type`. Raises RemoteError, MisuseError, StoppedError.
        """
        return await self._submit(function, arguments, named, timeout, type)

    async def map(
        self,
        function: str | Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        timeout: float = 60.0,  # noqa: ASYNC109  of the function's own running
        type: Any = Any,  # noqa: A002
        at_once: int = _AT_ONCE,
    ) -> AsyncIterator[Any]:
        """The function's value for each item, in order; `at_once` calls are under way at most."""
        pending: deque[asyncio.Future[Any]] = deque()
        try:
            async for item in _all_of(items):
                pending.append(self._submit(function, (item,), {}, timeout, type))
                if len(pending) >= at_once:
                    yield await pending.popleft()
            while pending:
                yield await pending.popleft()
        finally:
            for future in pending:
                future.cancel()

    def _submit(
        self, function: str | Callable[..., Any], arguments: Any, named: Any, timeout: float, kind: Any
    ) -> "asyncio.Future[Any]":
        if not timeout > 0:
            raise MisuseError(f"timeout takes seconds, more than 0: {timeout!r}")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(value: Any, fault: Fault | None) -> None:
            if future.done():
                return
            if fault is None:
                future.set_result(value)
            else:
                future.set_exception(self._error_of(fault))

        number = self._codec.number_of(_name_of(function))
        self._remote.submit(number, (arguments, named, kind), done, timeout=timeout)
        return future

    def _error_of(self, fault: Fault) -> Exception:
        if self._remote.broken:
            return StoppedError(fault.message)
        return (
            MisuseError(fault.message)
            if fault.kind == "misuse"
            else RemoteError(fault.kind, fault.message, fault.traceback)
        )


def _name_of(function: str | Callable[..., Any]) -> str:
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", repr(function))
    if "<" in name or "." in name or not name.isidentifier():
        raise MisuseError(
            f"{name}: workers can't find it: define it at the top level of the module that they serve"
        )
    return str(name)


async def _all_of(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
