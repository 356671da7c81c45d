"""A worker's front: calls that come by gRPC, made in processes behind it.

The front unpacks no argument and runs nothing of the user's: it passes bytes on, so time limits that
kill, crashes, poison rows and recycling are those of `Processes`. One front serves about eight of them.
"""

import asyncio
import difflib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import blake2b
from typing import Any

import grpc
import msgspec

from yelpaze.compute import worker_pb2 as pb
from yelpaze.compute.front import FrontOptions
from yelpaze.compute.handler import load
from yelpaze.compute.processes import ComputeCall, Processes
from yelpaze.compute.protocol import Exports, Fault, Unit
from yelpaze.grpc.counting import Counts
from yelpaze.grpc.process import Server
from yelpaze.version import __version__

SERVICE = pb.DESCRIPTOR.services_by_name["Worker"].full_name
PROTOCOL = 1
_TIMEOUT = 60.0
_LONGEST = 86_400.0
_WINDOW_SECONDS = 0.1  # of calls that wait for a process: the way to the client and back, and more
_TOGETHER_SECONDS = 0.002
_MOST_CALLS, _MOST_BYTES = 20_000, 256 << 20  # that wait, of all clients
# What metrics say of calls that have no value, in gRPC's words.
_STATUSES = {
    "timeout.compute": "DEADLINE_EXCEEDED",
    "crashed": "ABORTED",
    "input": "INVALID_ARGUMENT",
    "validation": "INVALID_ARGUMENT",
    "misuse": "INVALID_ARGUMENT",
    "result": "INTERNAL",
}
_LEAST_OUT, _MOST_UNSENT = 64, 16 << 20  # calls of a batch that are given out; bytes of results
_MOST_TEXT = 16 << 10  # bytes
_FIELD = 8  # bytes for each result of a message
_FRAME = 1024  # bytes that a message needs beside its value


@asynccontextmanager
async def serving(options: FrontOptions, server: Server) -> AsyncIterator[None]:
    """Add the service to a server, for as long as the context lasts."""
    exports: Exports = load(options.exports)  # type: ignore[assignment]
    front = Front(exports, options, server)
    await front.start()
    try:
        methods: dict[str, Any] = {
            "Describe": grpc.unary_unary_rpc_method_handler(
                front.describe, pb.DescribeRequest.FromString, pb.Description.SerializeToString
            ),
            "Call": grpc.unary_stream_rpc_method_handler(
                front.call, pb.CallRequest.FromString, pb.CallReply.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        yield
    finally:
        await front.pool.close()


def fingerprint_of(units: tuple[Unit, ...]) -> str:
    """A hash that changes with the source."""
    data = msgspec.msgpack.encode([(unit.name, unit.functions, sorted(unit.files.items())) for unit in units])
    return blake2b(data, digest_size=12).hexdigest()


class Front:
    """The service's methods, and the load that clients are told."""

    def __init__(self, exports: Exports, options: FrontOptions, server: Server) -> None:
        self._server = server
        self.max_message = options.max_message
        share, more = divmod(options.workers, options.fronts)
        self._workers = share + (server.place < more)
        self.pool = Processes(
            exports.target,
            workers=self._workers,
            batch=options.batch,
            recycle=options.recycle,
            on_broken=self._broken,
        )
        names = [f"{unit.name}/{name}" for unit in exports.units for name in unit.functions]
        self._functions = {name: (number, server.counts(name)) for number, name in enumerate(names)}
        self._fingerprint = fingerprint_of(exports.units)
        self._open = self._bytes = 0
        self._has_started = False
        self._withdrawing: asyncio.Task[None] | None = None
        self._description = pb.Description(
            protocol=PROTOCOL,
            version=__version__,
            units=[
                pb.Unit(name=unit.name, functions=unit.functions, files=unit.files) for unit in exports.units
            ],
            fingerprint=self._fingerprint,
            processes=self._workers,
            max_message=options.max_message,
        )
        self.changed = server.set_load(self)

    # ── how busy ────────────────────────────────────────────────────────────────

    @property
    def running(self) -> int:
        """Processes at work."""
        return self.pool.running

    @property
    def waiting(self) -> int:
        """Calls that have come and do not run."""
        return max(0, self._open - self.running)

    @property
    def limit(self) -> int:
        """How many calls keep all processes at work until more have come; long ones don't wait here."""
        seconds = self.pool.seconds_a_call
        return self._workers * (1 + int(_WINDOW_SECONDS / seconds) if seconds is not None else 1)

    async def start(self) -> None:
        """Start the processes. Raises StoppedError."""
        await self.pool.start()
        self._has_started = True

    def _broken(self, why: str) -> None:
        if not self._has_started:
            return  # the front itself does not start, and says why
        self._server.want_replacement(why)
        self._withdrawing = asyncio.get_running_loop().create_task(self._server.set_serving(is_serving=False))

    # ── methods ─────────────────────────────────────────────────────────────────

    async def describe(self, request: Any, context: Any) -> Any:  # noqa: ARG002  gRPC's signature
        """What can be called here."""
        if self.pool.broken:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.pool.broken)
        return self._description

    async def call(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Make a batch of calls."""
        refusal = self._refusal(request)
        if refusal is not None:
            await context.abort(*refusal)
        batch = _Batch(self, request, context)
        try:
            while batch.left:
                batch.submit()
                await batch.arrived()
                if self.pool.broken:
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.pool.broken)
                for reply in batch.replies():
                    yield reply
        finally:
            batch.drop()

    def _refusal(self, request: Any) -> tuple[grpc.StatusCode, str] | None:
        if self.pool.broken:
            return grpc.StatusCode.FAILED_PRECONDITION, self.pool.broken
        if request.fingerprint not in ("", self._fingerprint):
            return grpc.StatusCode.FAILED_PRECONDITION, "the worker has another source now"
        if self._open + len(request.calls) > _MOST_CALLS or self._bytes > _MOST_BYTES:
            return grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait here already"
        return None

    def came(self, calls: int, size: int) -> None:
        """So many calls, with so many bytes, have come; or, below 0, have ended."""
        self._open += calls
        self._bytes += size
        self.changed()

    def function(self, name: str) -> tuple[int, Counts] | None:
        """A function's number, and its counts."""
        return self._functions.get(name)

    def hint(self, name: str) -> str:
        """What may have been meant."""
        short = {known.rpartition("/")[2]: known for known in self._functions}
        close = difflib.get_close_matches(name.rpartition("/")[2], short, n=1)
        return f"did you mean {short[close[0]]!r}?" if close else f"there are {', '.join(self._functions)}"


class _Batch:
    """The calls of one request.

    So that a client that does not read fills no memory, only as many are given out at once as keep the
    processes at work, and none while too much is unsent.
    """

    def __init__(self, front: Front, request: Any, context: Any) -> None:
        self._front = front
        self._calls = request.calls
        self._size = sum(len(call.arguments) for call in request.calls)
        # gRPC's own deadline holds for all calls together.
        self._longest = min(context.time_remaining() or _LONGEST, _LONGEST)
        self._next = 0
        self._unsent: list[tuple[int, Any, Fault | None]] = []
        self._unsent_bytes = 0
        self._began = time.perf_counter()
        self._sent_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._out: dict[int, ComputeCall] = {}
        self.left = len(request.calls)
        front.came(self.left, self._size)

    def submit(self) -> None:
        """Give out the next calls."""
        calls, most = self._calls, max(_LEAST_OUT, self._front.limit)
        while self._next < len(calls) and len(self._out) < most and self._unsent_bytes < _MOST_UNSENT:
            index = self._next
            self._next += 1
            self._submit(index, calls[index])

    def _submit(self, index: int, call: Any) -> None:
        found = self._front.function(call.function)
        if found is None:
            why = f"there is no function {call.function!r}: {self._front.hint(call.function)}"
            self._add(index, None, Fault("misuse", why))
            return
        number, counts = found
        timeout = min(call.timeout if call.timeout > 0 else _TIMEOUT, self._longest)
        counts.begin()
        self._out[index] = self._front.pool.submit(
            number,
            call.arguments,
            partial(self._done, index, counts),
            timeout=timeout,
            size=len(call.arguments),
        )

    def _done(self, index: int, counts: Counts, value: Any, fault: Fault | None) -> None:
        """A call has its result."""
        if self._out.pop(index, None) is None:
            return  # dropped
        counts.end("OK" if fault is None else _STATUSES.get(fault.kind, "UNKNOWN"), self._began)
        self._add(index, value, fault)

    def _add(self, index: int, value: Any, fault: Fault | None) -> None:
        """A result is to be sent."""
        self._unsent.append((index, value, fault))
        if value is not None:
            self._unsent_bytes += len(value)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def arrived(self) -> None:
        """Until there is something to send; results that come fast are sent together."""
        loop = asyncio.get_running_loop()
        if not self._unsent:
            self._waiter = loop.create_future()
            await self._waiter
        early = self._sent_at + _TOGETHER_SECONDS - loop.time()
        if early > 0 and len(self._unsent) < self.left:
            await asyncio.sleep(early)
        self._sent_at = loop.time()

    def replies(self) -> list[Any]:
        """What has come, in messages that are not too large."""
        most = self._front.max_message
        found: list[Any] = []
        results: list[Any] = []
        size = 0
        for index, value, fault in self._unsent:
            result = _result(index, value, fault, most)
            length = result.ByteSize() + _FIELD
            if results and size + length > most:
                found.append(pb.CallReply(results=results))
                results, size = [], 0
            results.append(result)
            size += length
        found.append(pb.CallReply(results=results))
        self.left -= len(self._unsent)
        self._front.came(-len(self._unsent), 0)
        self._unsent.clear()
        self._unsent_bytes = 0
        return found

    def drop(self) -> None:
        """Nobody waits for the others any more."""
        for call in self._out.values():
            call.drop(self._front.changed)
        self._out.clear()
        self._front.came(-self.left, -self._size)
        self.left = 0


def _result(index: int, value: Any, fault: Fault | None, most: int) -> Any:
    if fault is None and len(value) + _FRAME > most:
        fault = Fault("result", f"the value has {len(value):,} bytes: the worker's --max-message is {most:,}")
    if fault is None:
        return pb.Result(index=index, value=value)
    message = pb.Fault(
        kind=fault.kind, message=_text(fault.message), traceback=_text(fault.traceback), source=fault.source
    )
    return pb.Result(index=index, fault=message)


def _text(text: str) -> str:
    """The beginning, and no lone surrogates."""
    return text.encode("utf-8", "replace")[:_MOST_TEXT].decode("utf-8", "ignore")
