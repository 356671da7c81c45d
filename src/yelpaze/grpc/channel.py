"""A gRPC channel whose every call goes to the process with the least to do.

gRPC itself has no such policy in Python: `pick_first` keeps to one process, `round_robin` gives each
its turn, however busy it is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Self

import grpc
import msgspec

from yelpaze.grpc.control import RAN, REFUSED_BY
from yelpaze.grpc.peers import Peer, Peers
from yelpaze.grpc.target import Security
from yelpaze.model.errors import MisuseError

_ATTEMPTS = 4
_AGAIN = grpc.StatusCode.UNAVAILABLE
# CANCELLED comes from a server that stopped before it had looked at the call.
_LOST = (_AGAIN, grpc.StatusCode.CANCELLED)
_WAIT_SECONDS = 10.0
_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None
_Send = Callable[[Peer], Coroutine[Any, Any, Any]]


class _Deadline(msgspec.Struct, frozen=True):
    """When a call is over, attempts and waiting for a process included."""

    ends: float
    is_asked_for: bool

    @classmethod
    def after(cls, timeout: float | None) -> Self:
        seconds = _WAIT_SECONDS if timeout is None else timeout
        return cls(asyncio.get_running_loop().time() + seconds, timeout is not None)

    def left(self) -> float | None:
        """The timeout for gRPC; without one of its own, a call only waits so long for a process."""
        return max(0.0, self.ends - asyncio.get_running_loop().time()) if self.is_asked_for else None


class _Method(msgspec.Struct, frozen=True):
    """A method of a stub; `kind` is what `grpc.aio.Channel` calls its shape."""

    kind: str
    name: str
    serialize: _Serializer
    deserialize: _Deserializer


class _Placed(msgspec.Struct):
    """A call at a process, which counts as having it from here to the end; gives what begins it."""

    method: _Method
    peer: Peer

    def __enter__(self) -> Callable[..., Any]:
        method, peer = self.method, self.peer
        make = getattr(peer.channel, method.kind)
        begin: Callable[..., Any] = make(method.name, method.serialize, method.deserialize)
        peer.begin()
        return begin

    def __exit__(self, *_: object) -> None:
        self.peer.end()


class Channel:
    """For stubs of generated code, as `grpc.aio.insecure_channel` gives it.

        async with Channel("grpc://localhost:50051") as channel:
            reply = await GreeterStub(channel).SayHello(HelloRequest(name="Ada"), timeout=5)

    Calls are awaited, or iterated over where the answer is a stream.

    - `targets`: `grpc://host:port`, `grpcs://host:port`, `unix:path`; a name with several addresses, or
      several names, are all used.
    - `idempotent`: calls may be made twice, so those that are lost with their process are sent to another
      one, up to three times. Otherwise only calls are that a process refused before they ran
      (`max_concurrent`). A status that a servicer set itself is no
      reason, where its process could mark it (docs/decisions/0023). Streams are sent once.
    - `hedge`: seconds after which a call that has no answer is made a second time, at another process;
      needs `idempotent`.

    Calls raise `grpc.aio.AioRpcError`; UNAVAILABLE if no process can be reached within the timeout (10 s if
    none is given).
    """

    def __init__(
        self,
        *targets: str,
        idempotent: bool = False,
        hedge: float | None = None,
        security: Security | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if hedge is not None and not idempotent:
            raise MisuseError("hedge makes calls twice: it needs idempotent=True")
        self.peers = Peers(targets, security=security, arguments=options)
        self._idempotent = idempotent
        self._hedge = hedge

    async def __aenter__(self) -> Self:
        await self.peers.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.peers.close()

    # ── what stubs ask for ──────────────────────────────────────────────────────

    def unary_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """See grpc.aio.Channel."""
        made = _Method("unary_unary", method, request_serializer, response_deserializer)
        return _awaited(made, self._with_attempts)

    def unary_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., AsyncIterator[Any]]:
        """See grpc.aio.Channel."""
        return self._iterated(_Method("unary_stream", method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., AsyncIterator[Any]]:
        """See grpc.aio.Channel."""
        return self._iterated(_Method("stream_stream", method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """See grpc.aio.Channel. What was sent can't be sent again, so it goes to one process only."""
        made = _Method("stream_unary", method, request_serializer, response_deserializer)
        return _awaited(made, self._once)

    def _iterated(self, method: _Method) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, *, timeout: float | None = None, **options: Any) -> AsyncIterator[Any]:
            deadline = _Deadline.after(timeout)
            with _Placed(method, await self._picked(None, deadline)) as begin:
                async for response in begin(request, timeout=deadline.left(), **options):
                    yield response

        return call

    # ── attempts ────────────────────────────────────────────────────────────────

    async def _once(self, send: _Send, deadline: _Deadline) -> Any:
        return await send(await self._picked(None, deadline))

    async def _with_attempts(self, send: _Send, deadline: _Deadline) -> Any:
        peer = None
        for attempt in range(_ATTEMPTS):
            peer = await self._picked(peer, deadline)
            try:
                return await (send(peer) if self._hedge is None else self._hedged(send, peer))
            except grpc.aio.AioRpcError as error:
                may = self._is_refused(error) or (self._idempotent and _is_lost(error))
                if not may or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt has returned or raised")

    def _is_refused(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether one of our processes says that it refused the call before it ran."""
        metadata = error.trailing_metadata() or ()
        return any(name == REFUSED_BY and self.peers.has(value) for name, value in metadata)

    async def _hedged(self, send: _Send, peer: Peer) -> Any:
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(send(peer))}
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._hedge)
            other = self.peers.pick(avoid=peer)
            if not done and other is not None and other is not peer:
                tasks.add(loop.create_task(send(other)))
            pending = set(tasks)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                good = next((task for task in done if task.exception() is None), None)
                if good is not None or not pending:
                    return (good or done.pop()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _picked(self, avoid: Peer | None, deadline: _Deadline) -> Peer:
        """The process for a call, waiting for one if there is none."""
        while True:
            peer = self.peers.pick(avoid)
            if peer is not None:
                return peer
            try:
                async with asyncio.timeout_at(deadline.ends):
                    await self.peers.wait()
            except TimeoutError:
                why = f": {self.peers.trouble}" if self.peers.trouble else ""
                raise grpc.aio.AioRpcError(
                    _AGAIN, grpc.aio.Metadata(), grpc.aio.Metadata(), details=f"no process takes calls{why}"
                ) from None


def _is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call was lost with its process; a servicer's own status says that it ran."""
    return error.code() in _LOST and RAN not in (error.trailing_metadata() or ())


def _awaited(method: _Method, place: Callable[[_Send, _Deadline], Awaitable[Any]]) -> Callable[..., Any]:
    """The call of a method with one answer; `place` chooses the processes that it is sent to."""

    async def call(request: Any, *, timeout: float | None = None, **options: Any) -> Any:
        deadline = _Deadline.after(timeout)

        async def send(peer: Peer) -> Any:
            with _Placed(method, peer) as begin:
                return await begin(request, timeout=deadline.left(), **options)

        return await place(send, deadline)

    return call
