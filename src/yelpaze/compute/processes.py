"""Worker processes on this machine.

Calls wait in one queue. A worker is given a batch of them as soon as it has few left, so
that it never waits for us; the batch is as long as about 20 ms of work, measured, and at
most `batch`. Results come back one by one and in order, so the first call that has no
result is the one that runs: when its process dies or it outruns its time, it alone is
to blame; the rest of the batch goes back into the queue.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from yelpaze.compute.protocol import EntryPoint, Fault, OnResult, UnreadableBatch
from yelpaze.model.errors import MisuseError
from yelpaze.policy.restart import Restart
from yelpaze.process.frames import Unreadable, encode
from yelpaze.process.messages import Ready
from yelpaze.process.replacement import RollingReplacement
from yelpaze.process.supervised import Supervised
from yelpaze.process.supervisor import Supervisor

_MAIN = "yelpaze.compute.worker:main"
# A process that could start is always replaced at once: its calls, not its program, made it end.
_RESTART = Restart(sound=0, keeps_trying=False)
_BATCH_SECONDS = 0.02
_BATCH_BYTES = 4 << 20
_SMOOTHING = 0.1
_TICK = 0.05
_UNWANTED_SECONDS = (
    1.0  # that a call may run on when nobody wants its result; a new process takes half of that
)
_LATE = 4


class ComputeCall:
    """A call that has no result yet."""

    __slots__ = (
        "function",
        "is_alone",
        "is_dropped",
        "number",
        "on_done",
        "payload",
        "size",
        "timeout",
        "tries",
    )

    def __init__(
        self, number: int, function: int, payload: Any, on_done: OnResult, timeout: float, size: int
    ) -> None:
        self.number = number
        self.function = function
        self.payload = payload
        self.on_done = on_done
        self.timeout = timeout
        self.size = size
        self.tries = 0
        self.is_dropped = False
        self.is_alone = False  # sent without others, since some batch with it could not be read

    def drop(self, ended: Callable[[], None]) -> None:
        """Nobody wants the result any more; if it runs, its process is soon killed, and `ended` called."""
        self.is_dropped = True
        self.on_done = lambda *_: ended()
        self.payload = None


class _Worker(Supervised):
    """One process, and the calls it has been given and not answered."""

    def __init__(
        self, place: int, target: bytes, on_results: "OnResults", on_refused: Callable[["_Worker", str], None]
    ) -> None:
        super().__init__(place)
        self._target = target
        self._on_results = on_results
        self._on_refused = on_refused
        self.given: deque[ComputeCall] = deque()
        self.calls = 0
        self.head_since = 0.0
        self.fault: Fault | None = None

    async def open(self) -> None:
        await self.start(_MAIN, self._target)

    def takes(self, few: int) -> bool:
        """Whether it has few calls left, and is there to take more."""
        return (
            self.state == "serving"
            and len(self.given) <= few
            and not (self.given and self.given[0].is_alone)
            and sum(call.size for call in self.given) <= _BATCH_BYTES
        )

    def give(self, calls: list[ComputeCall], now: float) -> None:
        frame = encode([(call.number, call.function, call.payload) for call in calls])  # may raise
        if not self.given:
            self.head_since = now
        self.given.extend(calls)
        self.calls += len(calls)
        self.send(frame)

    def received(self, messages: list[Any]) -> None:
        results: list[Result] = []
        for message in messages:
            if isinstance(message, tuple):
                results.append(message)
            elif isinstance(message, Unreadable):
                results.append(_unread(message))
            else:  # in order: what was answered before it is answered
                self._take(results)
                results = []
                super().received([message])
        self._take(results)

    def _take(self, results: "list[Result]") -> None:
        if results:
            self._on_results(self, results)

    def on_message(self, message: Any) -> None:
        if isinstance(message, UnreadableBatch):
            self._on_refused(self, message.why)

    def drain(self) -> None:
        """End once it has answered."""
        if not self.given:
            self.close()


def _unread(value: Unreadable) -> tuple[None, None, Fault]:
    return None, None, Fault("result", f"the value cannot be read back from the worker: {value.why}")


# The number is None for a value that could not be read.
Result = tuple[int | None, Any, Fault | None]
OnResults = Callable[[_Worker, list[Result]], None]


class Processes:
    """`workers` processes running `target`'s handler.

    `broken` is set once no process can be started any more; `on_broken` is called then.

    `batch` bounds the calls sent at once; `recycle` replaces a process after that many
    calls, the new one started before the old one goes; `tries` is how often a call may
    lose its process before it is given up.
    """

    trouble = ""

    def __init__(
        self,
        target: EntryPoint,
        *,
        workers: int,
        batch: int = 64,
        recycle: int | None = None,
        tries: int = 2,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        if workers < 1 or batch < 1 or (recycle is not None and recycle < 1):
            raise MisuseError("workers, batch and recycle take whole numbers of at least 1")
        target_frame = encode(target)
        self._size = workers
        self._batch = batch
        self._recycle = recycle
        self._tries = tries
        self._on_broken = on_broken
        self._supervisor: Supervisor[_Worker] = Supervisor(
            lambda place: _Worker(place, target_frame, self._take_results, self._take_refusal),
            workers,
            _RESTART,
            what="worker process",
            on_ready=self._on_ready,
            on_gone=self._on_gone,
            on_broken=self._break,
        )
        self._replacement = RollingReplacement(self._supervisor)
        self._queue: deque[ComputeCall] = deque()
        self._number = 0
        self._seconds_a_call: float | None = None
        self._dispatching = False
        self._peaks: list[float] = []
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._closed = False

    @property
    def broken(self) -> str | None:
        """Why no process can be started any more, if that is so."""
        return self._supervisor.broken

    async def start(self) -> None:
        """Start all processes. Raises StoppedError."""
        self._loop = asyncio.get_running_loop()
        await self._supervisor.start()
        self._watch()

    @property
    def running(self) -> int:
        """How many processes have calls."""
        return sum(bool(worker.given) for worker in self._supervisor.processes)

    @property
    def seconds_a_call(self) -> float | None:
        """How long calls take, of late; None if none has ended."""
        return self._seconds_a_call

    def submit(
        self, function: int, payload: Any, on_done: OnResult, *, timeout: float, size: int = 0
    ) -> ComputeCall:
        """See Compute. What it gives can be dropped."""
        self._number += 1
        call = ComputeCall(self._number, function, payload, on_done, timeout, size)
        if self.broken:
            self._loop.call_soon(on_done, None, Fault("crashed", self.broken))
            return call
        self._queue.append(call)
        self._dispatch_soon()
        return call

    # ── giving out ──────────────────────────────────────────────────────────────

    def _dispatch_soon(self) -> None:
        # What becomes ready in one turn of the loop travels in one batch.
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        if self._closed:
            return
        now = self._loop.time()
        size = max(1, min(self._batch, int(_BATCH_SECONDS / (self._seconds_a_call or _BATCH_SECONDS))))
        takers = [worker for worker in self._supervisor.processes if worker.takes(size // 2)]
        takers.sort(key=lambda worker: len(worker.given))
        for position, worker in enumerate(takers):
            if not self._queue:
                return
            if self._queue[0].is_alone and worker.given:
                continue
            share = -(-len(self._queue) // (len(takers) - position))
            calls = self._taken(min(size, share))
            if calls:
                self._give(worker, calls, now)
            if self._recycle is not None and worker.calls >= self._recycle:
                self._replacement.replace_soon(worker, "calls")

    def _taken(self, most: int) -> list[ComputeCall]:
        """The next calls in line, no more than that many and, beyond the first, _BATCH_BYTES."""
        calls: list[ComputeCall] = []
        left = _BATCH_BYTES
        while self._queue and len(calls) < most and (left > self._queue[0].size or not calls):
            if calls and self._queue[0].is_alone:
                break
            call = self._queue.popleft()
            most = 1 if call.is_alone else most
            if not call.is_dropped:
                calls.append(call)
                left -= call.size
        return calls

    def _give(self, worker: _Worker, calls: list[ComputeCall], now: float) -> None:
        try:
            worker.give(calls, now)
        except Exception as error:  # noqa: BLE001  pickling runs user code
            if len(calls) > 1:  # find the one that can't be pickled
                for call in calls:
                    self._give(worker, [call], now)
                return
            message = f"the arguments cannot be sent to a worker: {type(error).__name__}: {error}"
            self._complete(calls[0], None, Fault("exception", message))
            self._dispatch_soon()  # no result will ask for more

    # ── what comes back ─────────────────────────────────────────────────────────

    def _on_ready(self, _worker: _Worker, _message: Ready) -> None:
        self._dispatch_soon()

    def _take_results(self, worker: _Worker, results: list[Result]) -> None:
        """Results, in the order in which the calls were given."""
        now = self._loop.time()
        took = max(now - worker.head_since, 1e-6) / len(results)
        before = self._seconds_a_call
        self._seconds_a_call = took if before is None else before + _SMOOTHING * (took - before)
        worker.head_since = now
        given = worker.given
        for number, value, fault in results:
            call = given.popleft()
            if number is not None and call.number != number:
                raise AssertionError("a worker answered out of order")
            self._complete(call, value, fault)
        if worker.state == "draining" and not given:
            worker.close()
        if self._queue:
            self._dispatch_soon()

    def _take_refusal(self, worker: _Worker, why: str) -> None:
        """A batch cannot be unpickled: find the call, each one sent alone."""
        calls = list(worker.given)
        worker.given.clear()
        if len(calls) == 1:
            message = f"the arguments cannot be read in a worker: {why}"
            self._complete(calls[0], None, Fault("exception", message))
            self._dispatch_soon()
            return
        for call in calls:
            call.is_alone = True
        self._queue.extendleft(reversed(calls))
        worker.kill()  # later batches may lie in its channel
        worker.abort()

    def _complete(self, call: ComputeCall, value: Any, fault: Fault | None) -> None:
        try:
            call.on_done(value, fault)
        except Exception as error:  # noqa: BLE001  one caller's mistake must not cost the others
            self._loop.call_exception_handler({"message": "a result's callback raised", "exception": error})

    def _on_gone(self, worker: _Worker, how: str, peak: float) -> None:
        """A process has ended: expected, crashed, or killed for being late."""
        self._peaks.append(peak)
        if worker.given and not self._closed:
            self._blame(worker, worker.fault or Fault("crashed", f"the worker process was lost: {how}"))

    def _break(self, why: str) -> None:
        """No more processes: every call that waits fails, with the reason."""
        self._on_broken(why)
        queue, self._queue = self._queue, deque()
        for call in queue:
            call.on_done(None, Fault("crashed", why))

    def _blame(self, worker: _Worker, fault: Fault) -> None:
        """The first call without a result was running; the others only waited behind it."""
        head, *rest = worker.given
        worker.given.clear()
        self._queue.extendleft(reversed(rest))
        head.tries += 1
        if head.tries < self._tries and not head.is_dropped:
            self._queue.appendleft(head)
        else:
            head.on_done(None, fault)
        self._dispatch_soon()

    # ── time limits ─────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        self._tick_at = self._loop.time() + _TICK
        self._tick = self._loop.call_at(self._tick_at, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        # If we ourselves were held up, results may lie unread: start counting anew.
        late = now - self._tick_at > _TICK * _LATE
        for worker in list(self._supervisor.processes):
            if not worker.given:
                continue
            limit = worker.given[0].timeout
            if late:
                worker.head_since = max(worker.head_since, now - _TICK)
            elif worker.given[0].is_dropped and now - worker.head_since > _UNWANTED_SECONDS:
                worker.kill()
                worker.abort()
            elif now - worker.head_since > limit and worker.fault is None:
                worker.fault = Fault("timeout.compute", f"the call ran longer than {limit:g} s")
                worker.kill()
                worker.abort()
        self._watch()

    # ── end ─────────────────────────────────────────────────────────────────────

    def peak_rss_mb(self) -> float:
        # As many processes as there are at once; replaced ones gave their memory back.
        return sum(sorted(self._peaks, reverse=True)[: self._size])

    async def close(self) -> None:
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        await self._supervisor.kill()
        self._queue.clear()
