"""Functions of a module, called from Python at workers."""

import asyncio
import importlib.util
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

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
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
            return payload[2](data)
        except Exception as error:  # noqa: BLE001  decoding runs the types' own code
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
        self._module = module
        name = module if isinstance(module, str) else _name_of_module(module)
        files = {} if isinstance(module, str) else files_of(Path(module.__file__ or ""))
        self._codec = _Codec(Unit(name, (), files))
        self._remote: Remote | None = None
        self._stack = AsyncExitStack()
        self._open: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        """Wait for the first worker. Raises InputError if it serves something else, StoppedError."""
        async with AsyncExitStack() as stack:
            workers = self._workers
            if LOCAL in workers.targets:
                from yelpaze.compute.local import with_local  # noqa: PLC0415  Unix only

                spec, unit = _source_of(self._codec.unit.name, self._module)
                workers = await with_local(workers, spec, unit, stack)
            remote = Remote(workers, self._codec)
            stack.push_async_callback(remote.close)
            await remote.start()
            self._remote = remote
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._remote = None
        for future in self._open:
            if not future.done():
                future.set_exception(StoppedError("the workers were left before the call had ended"))
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
                if not future.cancel():
                    future.exception()  # nobody else will ask for it

    def _submit(
        self, function: str | Callable[..., Any], arguments: Any, named: Any, timeout: float, kind: Any
    ) -> "asyncio.Future[Any]":
        remote = self._remote
        if remote is None:
            raise MisuseError("Functions is not open: call inside `async with Functions(…) as …:`")
        if not (isinstance(timeout, int | float) and timeout > 0):
            raise MisuseError(f"timeout takes seconds, more than 0: {timeout!r}")
        name = _name_of(function)
        decode = _decoder(kind)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.add(future)
        future.add_done_callback(self._open.discard)

        def done(value: Any, fault: Fault | None) -> None:
            if future.done():
                return
            if fault is None:
                future.set_result(value)
            else:
                future.set_exception(_error_of(fault, remote))

        number = self._codec.number_of(name)
        call = remote.submit(number, (arguments, named, decode), done, timeout=timeout)
        future.add_done_callback(lambda _: call.drop() if future.cancelled() else None)
        return future


def _error_of(fault: Fault, remote: Remote) -> Exception:
    if remote.broken:
        return StoppedError(fault.message)
    if fault.kind == "misuse":
        return MisuseError(fault.message)
    return RemoteError(fault.kind, fault.message, fault.traceback)


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    try:
        return msgspec.msgpack.Decoder(kind).decode
    except Exception as error:  # noqa: BLE001  msgspec evaluates the type's own annotations
        raise MisuseError(f"type={kind!r}: values can't be decoded to that: {error}") from None


def _name_of(function: str | Callable[..., Any]) -> str:
    name = function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
    if not (isinstance(name, str) and name.isidentifier()):
        raise MisuseError(
            f"{name}: workers can't find it: define it at the top level of the module that they serve"
        )
    return name


def _name_of_module(module: ModuleType) -> str:
    """As workers name it."""
    spec = getattr(module, "__spec__", None)
    return spec.name if spec is not None else module.__name__


def _source_of(name: str, module: str | ModuleType) -> tuple[str, Unit]:
    """What a local worker is started with, and what makes it another one."""
    if isinstance(module, str):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError) as error:
            raise MisuseError(f"{name}: there is no such module: {error}") from None
        origin = spec.origin if spec is not None else None
    else:
        origin = module.__file__
    if origin is None or not Path(origin).is_file():
        raise MisuseError(f"{name}: there is no such module with a source of its own")
    path = Path(origin).resolve()
    # A module of a package must be imported as such.
    return (name if "." in name else str(path)), Unit(f"{name} {path}", (), files_of(path))


async def _all_of(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
