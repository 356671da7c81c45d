"""Delivers what is due in the shards that this process owns.

    accepted ──offer──→ EndpointQueue ──turn──→ Sender ──answer──→ decide ──→ results ──→ the store
    another process ──ready──┘  ↑ claim: what the store has, endpoint by endpoint

Work is claimed for a ready endpoint, never by due time alone, so a dead endpoint's backlog costs nothing.
Claims run in the writer's thread, in order with the results: what has ended is never claimed again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from yelpaze.hooks.context import Context
from yelpaze.hooks.delivery.applying import apply_settings, apply_state
from yelpaze.hooks.delivery.claims import (
    Claim,
    Loaded,
    claim_due,
    has_notes,
    loaded_endpoints,
    shift_due,
    take_notes,
    work_of_shards,
)
from yelpaze.hooks.delivery.decision import EXPIRED, Answer, Decision, decide
from yelpaze.hooks.delivery.health import health_of
from yelpaze.hooks.delivery.queue import NEVER, EndpointQueue, Task
from yelpaze.hooks.delivery.results import Batch, Result, Results, write_results
from yelpaze.hooks.delivery.sender import Sender
from yelpaze.hooks.delivery.shards import Shards
from yelpaze.hooks.delivery.statistics import DeliveryCounters, HooksTotals
from yelpaze.hooks.delivery.turns import Turns
from yelpaze.hooks.delivery.wakes import Wakes
from yelpaze.hooks.kinds.protocol import Content
from yelpaze.hooks.log.messages import Accepted, Message
from yelpaze.hooks.tables import FAILED, PENDING, SHARDS, SUCCEEDED
from yelpaze.hooks.tls_files import TlsFiles
from yelpaze.model.errors import YelpazeError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.policy.breaker import Breaker
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.store.leases import Leases
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

_MOST_READY = 32  # deliveries of an endpoint in memory
_CLAIM = 50  # endpoints in one unit of work
_POLL_SECONDS = 0.1
_AGAIN_SECONDS = 1.0  # while the store is away
_MOST_RESULTS = 1000
_JUMP_MS = 2000  # a step of the wall clock that is no drift
_COUNT_SECONDS = 0.05
_MOST_IDLE = 50_000  # endpoints without work that are remembered

OnEvent = Callable[[str, dict[str, object]], None]


class Dispatcher:
    """The deliveries of one process.

    Args:
        store: Where everything is.
        context: Time, ids, keys, settings.
        leases: The shards.
        sender: What carries attempts.
        report: Is called with notices for the operator.
        on_event: Is called with operator events: a type, and a payload.
        monotonic: A clock in seconds that goes on while the machine sleeps.

    """

    def __init__(
        self,
        store: Store,
        context: Context,
        leases: Leases,
        sender: Sender,
        *,
        report: Report = lambda _: None,
        on_event: OnEvent = lambda _type, _payload: None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        settings = context.settings
        self._store = store
        self._context = context
        self._sender = sender
        self._report = report
        self._on_event = on_event
        self._monotonic = monotonic or _boottime
        self._shards = Shards(store, leases, self._monotonic)
        self._deliveries = settings.deliveries
        self._alarms = settings.alarms
        self._breaker = Breaker(
            share=1.0, calls=settings.breaker_failures, pause=settings.breaker_pause, probes=1
        )
        self._queues: dict[str, EndpointQueue] = {}
        self._turns = Turns(lambda: self._unproven * 2 < self._slots)
        self._wakes: Wakes
        self._to_load: dict[str, EndpointQueue] = {}
        self._results = Results()
        self._loading = asyncio.Event()
        self._has_results = asyncio.Event()
        self._must_renew = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._slots = 1
        self._running = 0
        self._unproven = 0  # attempts under way at endpoints that are not proven
        self._is_unavailable = False
        self._is_stopping = False
        self._to_reload: set[str] = set()  # endpoints that have changed while they were read
        self._pumping = False
        self._offset = 0.0
        self._counted_at = float("-inf")
        self._backlog = 0
        self._app_rates: dict[str, Gcra] = {}
        self._tls = TlsFiles()
        self._loop: asyncio.AbstractEventLoop
        self.jumped_at = float("-inf")  # when the wall clock was set, by `monotonic`
        self.broken: BaseException | None = None
        self.counters = DeliveryCounters()
        self.changed = asyncio.Event()  # an attempt has ended, and is in the store

    # ── life ────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Take a share of the shards, and begin. Raises StoreUnavailable."""
        self._loop = asyncio.get_running_loop()
        self._wakes = Wakes(self._loop, self._consider, self._pump)
        self._offset = self._context.wall() - self._monotonic()
        self._slots = await self._sender.start()
        await self._renew()
        for work in (self._keep_leases(), self._load_all(), self._write_all(), self._poll()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._on_task_done)
            self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """A task that ends by itself is a defect: nothing more is accepted, so that it is noticed."""
        if task.cancelled() or task.exception() is None:
            return
        self.broken = task.exception()
        self._report(Notice("delivery.broken", f"deliveries have ended: {self.broken!r}", Level.ERROR))

    async def run(self) -> None:
        """Wait for ever, or until something breaks: a defect of ours, which is raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    @property
    def leases(self) -> Leases:
        """The leases of this process."""
        return self._shards.leases

    @property
    def epochs(self) -> dict[int, int]:
        """The shards of this process, with their epochs."""
        return self._shards.epochs

    @property
    def is_ready(self) -> bool:
        """Whether the store can be used, and nothing is broken."""
        return not self._is_unavailable and self.broken is None

    @property
    def under_way(self) -> int:
        """Attempts that have begun and not ended."""
        return self._running

    @property
    def backlog(self) -> int:
        """Deliveries in memory that could start but for other endpoints', as a moment ago."""
        now = self._loop.time()
        if now >= self._counted_at + _COUNT_SECONDS:
            self._counted_at = now
            self._backlog = sum(len(queue.ready) for queue in self._turns)
        return self._backlog

    @property
    def unwritten(self) -> int:
        """Attempts that have ended and are not in the store yet."""
        return self._results.waiting

    def queue_ages(self) -> dict[int, float]:
        """Seconds that the oldest delivery of each shard has waited for its turn."""
        now = self._context.now()
        ages = dict.fromkeys(self.epochs, 0.0)
        for queue in self._turns:
            if queue.ready and queue.shard in ages:
                ages[queue.shard] = max(ages[queue.shard], (now - queue.ready[0].due) / 1000)
        return ages

    def totals(self) -> HooksTotals:
        """The counts as they stand."""
        return self.counters.totals(self.queue_ages(), self._running, self.backlog)

    async def drain(self, seconds: float) -> None:
        """Start no more attempts; let those under way end, and write down what came of them."""
        self._is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running or self._results.waiting:
                    await self._changed()

    async def close(self) -> None:
        """End at once. What is under way is delivered again by the next owner."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()
        if self._results.waiting:
            with contextlib.suppress(StoreUnavailable):
                await self._store.write(self._writing(self._results.take(_MOST_RESULTS * 10)))
        with contextlib.suppress(StoreUnavailable):
            await self._store.write(self.leases.release)
        self._wakes.cancel()
        self._tls.close()

    async def _changed(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    # ── shards ──────────────────────────────────────────────────────────────────

    async def _keep_leases(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.leases.seconds / 3):
                    await self._must_renew.wait()
            try:
                await self._renew()
                self._must_renew.clear()
            except StoreUnavailable as error:
                self._on_unavailable(error)
                await asyncio.sleep(_AGAIN_SECONDS)
                self._must_renew.set()
            self._forget_idle()

    async def _renew(self) -> None:
        busy = {queue.shard for queue in self._queues.values() if queue.running} | self._results.shards()
        change = await self._shards.renew(busy)
        if change.changed:
            self._share_rates()
        for queue in list(self._queues.values()):
            if queue.shard in change.changed:
                self._forget(queue)
            elif queue.shard in change.staying:
                self._consider(queue)
        await self._read_shards()
        self._on_available()

    async def _read_shards(self) -> None:
        """Find the endpoints that have something to do in shards of which we do not know that."""
        shards = sorted(self._shards.unread)
        if not shards:
            return
        for endpoint_id, shard, due in await self._store.write(partial(work_of_shards, shards=shards)):
            queue = self._queue(endpoint_id, shard)
            queue.more_at = min(queue.more_at, due)
            self._load(queue)
        self._shards.unread -= set(shards)

    def _share_rates(self) -> None:
        """Divide the rates of applications anew, as the shards have been."""
        limited = [queue for queue in self._queues.values() if queue.app_rate is not None]
        for queue in limited:
            queue.is_loaded = False
            self._load(queue)

    def _forget_idle(self) -> None:
        """Forget endpoints that have nothing to do, if there are very many."""
        if len(self._queues) > _MOST_IDLE:
            for queue in [queue for queue in self._queues.values() if queue.has_nothing]:
                del self._queues[queue.id]

    def _is_ours(self, queue: EndpointQueue) -> bool:
        """Whether attempts of it may start: it is in a shard that we hold and do not leave."""
        return self._queues.get(queue.id) is queue and self._shards.may_start_in(queue.shard)

    def _forget(self, queue: EndpointQueue) -> None:
        self._queues.pop(queue.id, None)
        self._to_load.pop(queue.id, None)
        queue.forget_ready()

    async def _follow_clock(self) -> None:
        """If the wall clock was set, move what is due by as much, so that schedules are kept."""
        offset = self._context.wall() - self._monotonic()
        jump = int((offset - self._offset) * 1000)
        if abs(jump) < _JUMP_MS:
            return
        await self._store.write(partial(shift_due, shards=list(self.epochs), milliseconds=jump))
        self._offset, self.jumped_at = offset, self._monotonic()
        self._report(Notice("clock.jumped", f"the clock was set by {jump / 1000:+g} s", Level.WARNING))
        for queue in list(self._queues.values()):
            queue.more_at += jump
            if queue.blocked_until:
                queue.blocked_until += jump
            self._consider(queue)

    # ── what there is to do ─────────────────────────────────────────────────────

    def offer(self, accepted: Accepted) -> None:
        """Take the deliveries of a message that is in the store now."""
        message = accepted.message
        now = self._context.now()
        due = max(message.created, message.deliver_at or 0)
        for target in accepted.targets:
            queue = self._queue(target.id, target.shard)
            task = _task_of(message, due)
            if due > now and task.order_key is not None:
                queue.drop_older(task)
            if due > now or target.shard in self._shards.unread or not queue.offer(task, _MOST_READY):
                queue.more_at = min(queue.more_at, due)
            self._consider(queue)
        self._pump()

    def has_jumped_within(self, seconds: float) -> bool:
        """Whether the wall clock was set within that time."""
        return self._monotonic() - self.jumped_at < seconds

    def rescan(self, error: StoreUnavailable) -> None:
        """A write of somebody else's has failed; it may be in the store without our knowledge."""
        self._shards.read_again()
        self._on_unavailable(error)
        self._must_renew.set()

    def look_at(self, endpoint_id: str, shard: int) -> None:
        """Read an endpoint and its deliveries again: something about them has changed."""
        if shard not in self.epochs:
            return
        queue = self._queue(endpoint_id, shard)
        queue.is_loaded = False
        queue.forget_ready()
        queue.more_at = 0
        self._load(queue)

    def _queue(self, endpoint_id: str, shard: int) -> EndpointQueue:
        queue = self._queues.get(endpoint_id)
        if queue is None:
            queue = self._queues[endpoint_id] = EndpointQueue(endpoint_id, shard, self._breaker)
            self._load(queue)
        return queue

    def _load(self, queue: EndpointQueue) -> None:
        if queue.is_loading:
            self._to_reload.add(queue.id)
            return
        self._to_load[queue.id] = queue
        self._loading.set()

    async def _poll(self) -> None:
        """Read the notes of other processes on endpoints of ours, and compare the clocks."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if not self.epochs:
                continue
            with contextlib.suppress(StoreUnavailable):
                await self._follow_clock()
                if not await self._store.read(partial(has_notes, shards=list(self.epochs))):
                    continue
                take = partial(take_notes, leases=self.leases, epochs=dict(self.epochs))
                for endpoint_id, shard in await self._store.write(take):
                    self.look_at(endpoint_id, shard)

    async def _load_all(self) -> None:
        while True:
            await self._loading.wait()
            self._loading.clear()
            while self._to_load:
                names = list(self._to_load)[:_CLAIM]
                queues = [self._to_load.pop(name) for name in names]
                for queue in queues:
                    queue.is_loading = True
                try:
                    await self._load_some(queues)
                    self._on_available()
                except StoreUnavailable as error:
                    self._on_unavailable(error)
                    self._to_reload.update(names)
                    await asyncio.sleep(_AGAIN_SECONDS)
                for queue in queues:
                    queue.is_loading = False
                    if queue.id in self._to_reload and self._queues.get(queue.id) is queue:
                        self._to_reload.discard(queue.id)
                        queue.is_loaded = False
                        self._load(queue)
                    self._consider(queue)
                self._pump()

    async def _load_some(self, queues: Sequence[EndpointQueue]) -> None:
        unknown = [queue.id for queue in queues if not queue.is_loaded]
        if unknown:
            found = await self._store.read(partial(loaded_endpoints, context=self._context, ids=unknown))
            for queue in queues:
                if queue.id in found:
                    self._apply(queue, found[queue.id])
                elif not queue.is_loaded:  # it has been deleted
                    self._forget(queue)
        now = self._context.now()
        claims = [
            Claim(queue.id, _MOST_READY + len(queue.taken))
            for queue in queues
            if queue.is_loaded and queue.may_claim and queue.more_at <= now
        ]
        if not claims:
            return
        by_id = {queue.id: queue for queue in queues}
        for endpoint_id, tasks, more_at in await self._store.write(
            partial(claim_due, claims=claims, now=now)
        ):
            queue = by_id[endpoint_id]
            for task in tasks:
                if task.message_id not in queue.taken:
                    queue.taken.add(task.message_id)
                    queue.ready.append(task)
            queue.more_at = NEVER if more_at is None else more_at

    def _apply(self, queue: EndpointQueue, loaded: Loaded) -> None:
        """Apply settings and state; an endpoint for which that fails is left alone, and reported."""
        try:
            if loaded.error is not None:
                raise loaded.error
            assert loaded.endpoint is not None
            endpoint = loaded.endpoint
            apply_settings(queue, endpoint, loaded.secrets, self._context.settings, self._tls)
            queue.app_rate = self._app_rate(endpoint.app_id, loaded.app_rate)
            apply_state(queue, endpoint, self._breaker, self._monotonic())
        except (YelpazeError, msgspec.MsgspecError, OSError) as error:  # it was good when it was made
            queue.is_idle = True
            text = f"endpoint {queue.id} cannot be delivered to: {error}"
            self._report(Notice("endpoint.broken", text, Level.ERROR, {"endpoint": queue.id}))
        queue.is_loaded = True

    def _app_rate(self, app_id: str, rate: int | None) -> Gcra | None:
        """The share of an application's rate that this process has: that of its shards."""
        if rate is None:
            self._app_rates.pop(app_id, None)
            return None
        share = Rate(rate * max(1, len(self.epochs)) / SHARDS, 1.0)
        known = self._app_rates.get(app_id)
        if known is None or known.rate != share:
            known = self._app_rates[app_id] = Gcra(share)
        return known

    # ── turns ───────────────────────────────────────────────────────────────────

    def _consider(self, queue: EndpointQueue) -> None:
        """Put the endpoint where it belongs: in line, on the clock, to be read from the store, or nowhere."""
        if queue.is_active or not queue.is_loaded or queue.is_idle or not self._is_ours(queue):
            return
        if not queue.ready and (queue.more_at == NEVER or (queue.settings.fifo and queue.taken)):
            return  # in order: not before the store knows what became of the last one
        now = self._context.now()
        seconds = queue.wait(now, self._monotonic())
        if seconds == NEVER:
            return
        if seconds > 0:
            self._wakes.add(queue, seconds)
        elif queue.ready:
            self._turns.join(queue)
        elif queue.more_at <= now:
            self._load(queue)
        else:
            self._wakes.add(queue, (queue.more_at - now) / 1000)

    def _pump(self) -> None:
        """Start what may start, endpoint by endpoint in turns."""
        if self._is_stopping or self._pumping or self._is_unavailable:
            return
        clock = self._monotonic()
        if not self._shards.is_valid(clock):  # others own them now
            return
        now = self._context.now()
        self._pumping = True
        try:
            while self._running < self._slots and (queue := self._turns.next()) is not None:
                if (
                    not queue.ready
                    or not self._is_ours(queue)
                    or queue.wait(now, clock) > 0
                    or self._start_one(queue, now, clock)
                ):
                    self._consider(queue)
        finally:
            self._pumping = False

    def _start_one(self, queue: EndpointQueue, now: int, clock: float) -> bool:
        """Start its next attempt; false if all that are ready wait for one that is under way."""
        task = queue.pop()
        if task is None:
            return False
        task.epoch = self.epochs.get(queue.shard, -1)
        if task.expires is not None and task.expires <= now:
            decision = Decision(
                FAILED, task.step, kind=EXPIRED, reason="expired: it was not delivered in time"
            )
            self.counters.expired += 1
            self._add_result(queue, task, Answer(), decision, now)
            return True
        assert queue.builder is not None
        try:
            call = queue.builder(
                Content(
                    message_id=task.message_id,
                    event_type=task.event_type,
                    payload=bytes(task.payload),
                    created=task.created / 1000,
                    now=now // 1000,
                    order_key=task.order_key,
                )
            )
        except Exception as error:  # noqa: BLE001  whatever a message and a template make together
            answer = Answer(kind="template", text=str(error) or type(error).__name__)
            self._loop.call_soon(
                partial(self._ended, queue, task, queue.is_proven, now, answer, counts=False)
            )
            return True
        queue.running += 1
        self._running += 1
        is_proven = queue.is_proven
        self._unproven += not is_proven
        if task.order_key is not None:
            queue.keys.add(task.order_key)
        for rate in (queue.rate, queue.app_rate):
            if rate is not None:
                rate.take(clock)
        task.generation = queue.breaker.generation
        settings = queue.settings
        self._sender.send(
            call,
            partial(self._ended, queue, task, is_proven, now),
            timeout=queue.timeout,
            tls=queue.tls,
            trusted=settings.trusted,
        )
        return True

    # ── the end of an attempt ───────────────────────────────────────────────────

    def _ended(
        self,
        queue: EndpointQueue,
        task: Task,
        was_proven: bool,
        began: int,
        answer: Answer,
        *,
        counts: bool = True,
    ) -> None:
        if counts:
            queue.running -= 1
            self._running -= 1
            self._unproven -= not was_proven
        if task.order_key is not None:
            queue.keys.discard(task.order_key)
        if answer.kind == "cancelled":  # the engine was closed: it never had a chance
            queue.taken.discard(task.message_id)
            self.changed.set()
            return
        assert queue.kind is not None
        now = self._context.now()
        schedule = self._alarms if task.schedule is not None else queue.schedule or self._deliveries
        decision = decide(
            answer,
            queue.kind,
            schedule,
            step=task.step,
            now=now,
            expires=task.expires,
            uniform=self._context.rng.uniform,
        )
        is_good = decision.state == SUCCEEDED
        queue.breaker.record(self._monotonic(), is_good, task.generation)
        queue.is_proven = is_good
        if decision.block:
            queue.blocked_until = max(queue.blocked_until, now + int(decision.block * 1000))
        if queue.settings.fifo and decision.state == PENDING:
            # The next one waits for this one's end: it keeps its place, and the endpoint waits.
            queue.blocked_until = max(queue.blocked_until, decision.due)
            queue.forget_ready()
            queue.more_at = 0
            decision = msgspec.structs.replace(decision, due=task.due)
        elif decision.state == PENDING:
            queue.more_at = min(queue.more_at, decision.due)
        self._count(queue, task, answer, decision, began, now)
        self._add_result(queue, task, answer, decision, began)
        self._consider(queue)
        self._pump()

    def _count(
        self, queue: EndpointQueue, task: Task, answer: Answer, decision: Decision, began: int, now: int
    ) -> None:
        kind = queue.settings.kind
        self.counters.attempts[kind, answer.status, decision.kind] += 1
        if task.attempts == 0:
            self.counters.first_attempt.add(max(0, began - task.created) / 1000)
        if decision.state == SUCCEEDED:
            self.counters.delivered.add(max(0, now - task.created) / 1000)

    def _add_result(
        self, queue: EndpointQueue, task: Task, answer: Answer, decision: Decision, began: int
    ) -> None:
        """Note what came of it, for the store; and what it says of the endpoint."""
        now = self._context.now()
        result = Result(
            attempt_id=self._context.ids.new("atmpt"),
            queue=queue,
            task=task,
            answer=answer,
            decision=decision,
            began=began,
            epoch=task.epoch,
        )
        self._results.add(result)
        self._has_results.set()
        if decision.kind == EXPIRED:
            return
        if decision.state == SUCCEEDED:
            if queue.failures or queue.failing_since is not None:
                queue.failures, queue.failing_since, queue.warned = 0, None, 0
                self._results.endpoints.add(queue)
            return
        queue.failures += 1
        queue.failing_since = queue.failing_since or began
        self._results.endpoints.add(queue)
        if decision.state == FAILED:
            self._publish_event(
                "message.attempt.exhausted",
                queue,
                {"msgId": task.message_id, "attemptCount": task.attempts + 1, "reason": decision.reason},
            )
        self._follow_health(queue, decision, now)

    def _follow_health(self, queue: EndpointQueue, decision: Decision, now: int) -> None:
        """Disable what has done nothing but fail for days, and say so before."""
        assert queue.failing_since is not None
        health = health_of(
            decision,
            self._context.settings,
            failures=queue.failures,
            since=queue.failing_since,
            warned=queue.warned,
            now=now,
        )
        if health.warn:
            queue.warned = now
            self._publish_event("endpoint.failing", queue, {"failSince": queue.failing_since})
            self._warn("endpoint.failing", queue, f"endpoint {queue.id}: {health.warn}; it will be disabled")
        elif health.disable and not queue.is_disabled:
            queue.is_idle = queue.is_disabled = True
            queue.forget_ready()
            self._results.disabled[queue] = health.disable
            self.counters.disabled += 1
            event = {"failSince": queue.failing_since, "reason": health.disable}
            self._publish_event("endpoint.disabled", queue, event)
            self._warn("endpoint.disabled", queue, f"endpoint {queue.id} is disabled: {health.disable}")

    def _warn(self, kind: str, queue: EndpointQueue, text: str) -> None:
        self._report(Notice(kind, text, Level.WARNING, {"endpoint": queue.id}))

    def _publish_event(self, event_type: str, queue: EndpointQueue, payload: dict[str, object]) -> None:
        self._on_event(event_type, {"appId": queue.app_id, "endpointId": queue.id, **payload})

    # ── writing results ─────────────────────────────────────────────────────────

    async def _write_all(self) -> None:
        while True:
            await self._has_results.wait()
            self._has_results.clear()
            while self._results.waiting:
                batch = self._results.take(_MOST_RESULTS)
                work = self._writing(batch)
                while True:
                    try:
                        refused = await self._store.write(work)
                        break
                    except StoreUnavailable as error:  # keep it: nothing more is started meanwhile
                        self._on_unavailable(error)
                        await asyncio.sleep(_AGAIN_SECONDS)
                self._on_available()
                self.counters.refused += refused
                self._written(batch)
                self.changed.set()

    def _written(self, batch: Batch) -> None:
        """The store knows of these now. A claim that came before that has skipped what is due again."""
        for result in batch.results:
            queue = result.queue
            queue.taken.discard(result.task.message_id)
            if result.decision.state == PENDING:
                queue.more_at = min(queue.more_at, result.decision.due)
            self._consider(queue)
        for queue in batch.queues_disabled:
            queue.is_disabled = False  # the store says so now
        self._pump()

    def _writing(self, batch: Batch) -> Callable[[Session], int]:
        return partial(
            write_results,
            leases=self.leases,
            batch=batch,
            now=self._context.now(),
            max_response=self._context.settings.max_response,
            version=self._context.version(),
        )

    def _on_unavailable(self, error: StoreUnavailable) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            self._report(Notice("store.unavailable", f"the store cannot be used: {error}", Level.WARNING))
            self.counters.outages += 1

    def _on_available(self) -> None:
        if self._is_unavailable:
            self._is_unavailable = False
            self._report(Notice("store.available", "the store can be used again"))
        self._pump()


def _task_of(message: Message, due: int) -> Task:
    return Task(
        message.id,
        message.app_id,
        message.event_type,
        message.payload,
        message.created,
        due,
        0,
        0,
        0,
        message.order_key,
        message.expires,
        message.schedule,
    )


def _boottime() -> float:
    """Seconds since the boot, sleep included where the system counts it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
