"""Worker processes on other machines, by gRPC.

Calls wait in one queue here, not at the workers: a worker is given a batch as soon as it has room, so that
the least busy one gets the next calls. What a worker does not answer, because it is gone, is sent to
another one; a call that has lost several workers is given up.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import grpc

from yelpaze.compute import worker_pb2 as pb
from yelpaze.compute.directory import RemoteWorker, WorkerDirectory
from yelpaze.compute.protocol import CallError, Codec, Fault, OnResult
from yelpaze.compute.workers import Workers
from yelpaze.model.errors import StoppedError

_TRIES = 5  # workers that a call may lose
_BATCH_BYTES = 4 << 20
_FRAME = 1024  # bytes that a message needs beside its calls
_FIELD = 8  # and for each call
_START_SECONDS = 10.0
_SETTLE_SECONDS = 0.5
_AWAY_SECONDS = 600.0  # as long as for a host that is down
_REFUSED_SECONDS = 60.0  # those that are there can't be used: others may be just coming
_TICK = 0.5
_FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
_TOO_LARGE = "larger than max"  # what gRPC says then, with the same code
_CHANGED = grpc.StatusCode.FAILED_PRECONDITION
_NOT_FOR_US = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class _RemoteCall:
    __slots__ = (
        "copies",
        "function",
        "goes_alone",
        "is_done",
        "losses",
        "message",
        "on_done",
        "payload",
        "size",
    )

    def __init__(self, function: int, payload: Any, on_done: OnResult) -> None:
        self.function = function
        self.payload = payload
        self.message: Any = None
        self.on_done = on_done
        self.size = 0
        self.losses = 0
        self.goes_alone = False  # in a batch of its own: it may be to blame for the others' loss
        self.copies = 0  # on their way
        self.is_done = False

    def drop(self) -> None:
        """Nobody wants the result any more; what is at a worker goes on to its end."""
        self.is_done = True


class Remote:
    """All workers behind the targets. Raises InputError for what is no address."""

    def __init__(self, workers: Workers, codec: Codec, *, batch: int = 64) -> None:
        self._options = workers
        self._codec = codec
        self._batch = batch
        self._queue: deque[_RemoteCall] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatching = False
        self._closed = False
        self._changed = asyncio.Event()
        self._away_since: float | None = None
        self._directory = WorkerDirectory(workers, codec.unit, self._directory_changed)
        self.broken: str | None = None

    # ── start and end ───────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Wait for the first worker. Raises InputError if none has the same source, StoppedError."""
        self._loop = asyncio.get_running_loop()
        await self._directory.open()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not self._directory.usable():
                    if self._directory.refusal is not None:
                        raise self._directory.refusal
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise StoppedError(f"no worker answers: {self._directory.why_away}") from None
        with contextlib.suppress(TimeoutError):  # or the first one to answer would get all that there is
            async with asyncio.timeout(_SETTLE_SECONDS):
                while not self._directory.is_settled:
                    self._changed.clear()
                    await self._changed.wait()
        self._keep(self._watch())

    async def close(self) -> None:
        """Drop everything."""
        self._closed = True
        self._queue.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._directory.close()

    def peak_rss_mb(self) -> float:
        """Other machines' memory is not counted."""
        return 0.0

    def _keep(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── who is there ────────────────────────────────────────────────────────────

    def _directory_changed(self) -> None:
        self._changed.set()
        if not self._closed:
            self._dispatch_soon()

    @property
    def trouble(self) -> str:
        """What an operator should know."""
        if self._away_since is not None and self._directory.refusal is None:
            return "no worker answers"
        return next(iter(self._directory.refusals), "")

    async def _watch(self) -> None:
        """Give up when all workers have been away for too long."""
        while True:
            await asyncio.sleep(_TICK)
            now = self._loop.time()
            if self._directory.usable():
                self._away_since = None
            elif self._away_since is None:
                self._away_since = now
            elif self._directory.refusal is not None and now - self._away_since > _REFUSED_SECONDS:
                self._break(str(self._directory.refusal))
            elif now - self._away_since > _AWAY_SECONDS:
                self._break(f"no worker has answered for {_AWAY_SECONDS:g} s: {self._directory.why_away}")

    def _break(self, why: str) -> None:
        """No more workers: every call that waits fails, with the reason."""
        self.broken = why
        queue, self._queue = self._queue, deque()
        for call in queue:
            self._complete(call, None, Fault("crashed", why))

    # ── giving out ──────────────────────────────────────────────────────────────

    def submit(
        self, function: int, payload: Any, on_done: OnResult, *, timeout: float, size: int = 0
    ) -> _RemoteCall:
        """See Compute. What it gives can be dropped."""
        del size  # what is encoded is measured
        call = _RemoteCall(function, payload, on_done)
        try:
            data = self._codec.encode(function, payload)
        except CallError as error:
            self._loop.call_soon(
                self._complete, call, None, Fault(error.kind, str(error), source=error.source)
            )
            return call
        if self.broken:
            self._loop.call_soon(self._complete, call, None, Fault("crashed", self.broken))
            return call
        name = f"{self._codec.unit.name}/{self._codec.name_of(function)}"
        call.message = pb.Call(function=name, arguments=data, timeout=timeout)
        call.size = call.message.ByteSize() + _FIELD
        self._queue.append(call)
        self._dispatch_soon()
        return call

    def _dispatch_soon(self) -> None:
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        if self._closed or not self._queue:
            return
        now = self._loop.time()
        takers = [worker for worker in self._directory.usable() if worker.takes(now)]
        while self._queue and takers:
            worker = min(takers, key=_share)
            size = min(self._batch, worker.batch, -(-len(self._queue) // len(takers)))
            calls = self._taken(size, worker)
            if calls:
                self._send(worker, calls)
            takers = [worker for worker in takers if worker.takes(now)]

    def _taken(self, most: int, worker: RemoteWorker) -> list[_RemoteCall]:
        """The next calls in line: no more than that many, and in all no more bytes than it takes."""
        calls: list[_RemoteCall] = []
        bound = worker.max_message - _FRAME
        left = min(bound, _BATCH_BYTES)
        while self._queue and len(calls) < most:
            call = self._queue[0]
            if call.is_done:
                self._queue.popleft()
            elif call.size > bound:
                self._queue.popleft()
                limit = f"more than fits into the worker's --max-message of {worker.max_message:,}"
                self._complete(
                    call, None, Fault("result", f"the arguments have {call.size:,} bytes, {limit}")
                )
            elif calls and (call.size > left or call.goes_alone):
                break
            else:
                calls.append(self._queue.popleft())
                left -= call.size
                if call.goes_alone:
                    break
        return calls

    def _send(self, worker: RemoteWorker, calls: Sequence[_RemoteCall]) -> None:
        worker.batches += 1
        worker.peer.begin(len(calls))
        for call in calls:
            call.copies += 1
        left = dict(enumerate(calls))
        task = self._loop.create_task(self._exchange(worker, left))
        self._tasks.add(task)
        task.add_done_callback(partial(self._batch_ended, worker, left))

    def _batch_ended(
        self, worker: RemoteWorker, left: dict[int, _RemoteCall], task: "asyncio.Task[None]"
    ) -> None:
        """A batch has ended; a task that is cancelled may never have begun."""
        self._tasks.discard(task)
        worker.batches -= 1
        worker.peer.end(len(left))
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or self._closed:
            return
        if left:
            self._lost(worker, list(left.values()), error)
        else:
            worker.succeeded()
        self._dispatch_soon()

    async def _exchange(self, worker: RemoteWorker, left: dict[int, _RemoteCall]) -> None:
        """Send a batch to a worker and take its results."""
        request = pb.CallRequest(
            calls=[call.message for call in left.values()], fingerprint=worker.fingerprint
        )
        hedging = None
        if self._options.hedge is not None:
            hedging = self._loop.call_later(self._options.hedge, self._hedge, worker, left)
        try:
            async for reply in worker.call(request):
                for result in reply.results:
                    call = left.pop(result.index, None)
                    if call is not None:
                        worker.peer.end()
                        self._result(call, result)
                self._dispatch_soon()
        finally:
            if hedging is not None:
                hedging.cancel()

    def _hedge(self, worker: RemoteWorker, left: Mapping[int, _RemoteCall]) -> None:
        """Its calls take long: make them at another worker, too."""
        now = self._loop.time()
        others = [other for other in self._directory.usable() if other is not worker and other.takes(now)]
        calls = [call for call in left.values() if call.copies == 1 and not call.is_done]
        if others and calls:
            other = min(others, key=_share)
            self._send(other, calls[: other.room])

    # ── what comes back ─────────────────────────────────────────────────────────

    def _result(self, call: _RemoteCall, result: Any) -> None:
        call.copies -= 1
        if result.WhichOneof("outcome") == "fault":
            fault = result.fault
            self._complete(call, None, Fault(fault.kind, fault.message, fault.traceback, fault.source))
            return
        try:
            value = self._codec.decode(call.function, call.payload, result.value)
        except CallError as error:
            self._complete(call, None, Fault(error.kind, str(error), source=error.source))
        else:
            self._complete(call, value, None)

    def _complete(self, call: _RemoteCall, value: Any, fault: Fault | None) -> None:
        if call.is_done:  # a hedge was faster
            return
        call.is_done = True
        try:
            call.on_done(value, fault)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others
            self._loop.call_exception_handler({"message": "a result's callback raised", "exception": error})

    def _lost(self, worker: RemoteWorker, calls: Sequence[_RemoteCall], error: BaseException | None) -> None:
        """A worker has not answered them: others shall."""
        code, details = grpc.StatusCode.UNAVAILABLE, str(error or "it ended the batch before its time")
        if isinstance(error, grpc.aio.AioRpcError):
            code, details = error.code(), error.details() or error.code().name
        self._loop.call_at(worker.failed(self._loop.time()), self._dispatch_soon)
        if code is _CHANGED:
            self._directory.ask(worker)
        elif code in _NOT_FOR_US:
            self._directory.refuse(worker, f"{code.name}: {details}")
        is_too_large = code is _FULL and _TOO_LARGE in details
        again = []
        for call in calls:
            call.copies -= 1
            call.losses += code not in (_FULL, _CHANGED, *_NOT_FOR_US)
            call.goes_alone = call.goes_alone or is_too_large or call.losses > 1
            if call.is_done or call.copies:
                continue
            if is_too_large and len(calls) == 1:
                self._complete(call, None, Fault("result", details))
            elif self.broken or call.losses >= _TRIES:
                message = f"{call.losses} workers were lost that had the call; the last said: {details}"
                self._complete(call, None, Fault("crashed", self.broken or message))
            else:
                again.append(call)
        self._queue.extendleft(reversed(again))


def _share(worker: RemoteWorker) -> float:
    return worker.share
