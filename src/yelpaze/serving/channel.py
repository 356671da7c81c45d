"""A gRPC channel whose every call goes to the process with the least to do.

gRPC itself has no such policy in Python: `pick_first` keeps to one process, `round_robin` gives each
its turn, however busy it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import grpc

from yelpaze.model.errors import MisuseError
from yelpaze.serving.peers import Peer, Peers, Security

_ATTEMPTS = 4
_AGAIN = grpc.StatusCode.UNAVAILABLE
# CANCELLED comes from a server that stopped before it had looked at the call.
_LOST = (_AGAIN, grpc.StatusCode.CANCELLED)
_REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED
_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None


class Channel:
    """For stubs of generated code, as `grpc.aio.insecure_channel` gives it.

        async with Channel("grpc://localhost:50051") as channel:
            reply = await GreeterStub(channel).SayHello(HelloRequest(name="Ada"), timeout=5)

    Calls are awaited, or iterated over where the answer is a stream.

    - `targets`: `grpc://host:port`, `grpcs://host:port`, `unix:path`; a name with several addresses, or
      several names, are all used.
    - `idempotent`: calls may be made twice, so those that are lost with their process are sent to another
      one, up to three times. Otherwise only calls that a process refused are.
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
        await self.peers.close()

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

        async def once(peer: Peer, request: Any, timeout: float | None, options: dict[str, Any]) -> Any:
            call = peer.channel.unary_unary(method, request_serializer, response_deserializer)
            peer.begin()
            try:
                return await call(request, timeout=timeout, **options)
            finally:
                peer.end()

        async def call(request: Any, *, timeout: float | None = None, **options: Any) -> Any:
            return await self._with_attempts(once, request, timeout, options)

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., AsyncIterator[Any]]:
        """See grpc.aio.Channel."""
        return self._streaming("unary_stream", method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., AsyncIterator[Any]]:
        """See grpc.aio.Channel."""
        return self._streaming("stream_stream", method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """See grpc.aio.Channel. What was sent can't be sent again, so it goes to one process only."""

        async def call(requests: Any, *, timeout: float | None = None, **options: Any) -> Any:
            ends = _end_of(timeout)
            peer = await self._picked(None, ends)
            peer.begin()
            try:
                made = peer.channel.stream_unary(method, request_serializer, response_deserializer)
                return await made(requests, timeout=_left(ends, timeout), **options)
            finally:
                peer.end()

        return call

    def _streaming(
        self, kind: str, method: str, serialize: _Serializer, deserialize: _Deserializer
    ) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, *, timeout: float | None = None, **options: Any) -> AsyncIterator[Any]:
            ends = _end_of(timeout)
            peer = await self._picked(None, ends)
            peer.begin()
            try:
                made = getattr(peer.channel, kind)(method, serialize, deserialize)
                async for response in made(request, timeout=_left(ends, timeout), **options):
                    yield response
            finally:
                peer.end()

        return call

    # ── attempts ────────────────────────────────────────────────────────────────

    async def _with_attempts(
        self, once: Callable[..., Any], request: Any, timeout: float | None, options: dict[str, Any]
    ) -> Any:
        ends, peer = _end_of(timeout), None
        for attempt in range(_ATTEMPTS):
            peer = await self._picked(peer, ends)
            try:
                if self._hedge is None:
                    return await once(peer, request, _left(ends, timeout), options)
                return await self._hedged(once, peer, request, ends, timeout, options)
            except grpc.aio.AioRpcError as error:
                may = error.code() is _REFUSED or (error.code() in _LOST and self._idempotent)
                if not may or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt has returned or raised")

    async def _hedged(
        self,
        once: Callable[..., Any],
        peer: Peer,
        request: Any,
        ends: float,
        timeout: float | None,
        options: dict[str, Any],
    ) -> Any:
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(once(peer, request, _left(ends, timeout), options))}
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._hedge)
            other = self.peers.pick(avoid=peer)
            if not done and other is not None and other is not peer:
                tasks.add(loop.create_task(once(other, request, _left(ends, timeout), options)))
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

    async def _picked(self, avoid: Peer | None, ends: float) -> Peer:
        """The process for a call, waiting for one if there is none."""
        while True:
            peer = self.peers.pick(avoid)
            if peer is not None:
                return peer
            try:
                async with asyncio.timeout_at(ends):
                    await self.peers.wait()
            except TimeoutError:
                why = f": {self.peers.trouble}" if self.peers.trouble else ""
                raise grpc.aio.AioRpcError(
                    _AGAIN, grpc.aio.Metadata(), grpc.aio.Metadata(), details=f"no process takes calls{why}"
                ) from None


_WAIT_SECONDS = 10.0


def _end_of(timeout: float | None) -> float:
    return asyncio.get_running_loop().time() + (_WAIT_SECONDS if timeout is None else timeout)


def _left(ends: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, ends - asyncio.get_running_loop().time())
