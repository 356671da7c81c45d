"""The queue of one endpoint, and whether it may start an attempt now.

An endpoint is *proven* by a success since its last failure. Until then it has one attempt at a time, so that
a dead one never holds more than one slot, and those that are not proven hold half of all slots together.
"""

from collections import deque
from typing import Any

from yelpaze.hooks.kinds.protocol import Builder, Kind, Settings
from yelpaze.model.tls import Tls
from yelpaze.policy.breaker import Breaker, BreakerState, State
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.policy.schedule import Schedule

NEVER = float("inf")


class Task:
    """A delivery that is in memory. Times are milliseconds since 1970."""

    __slots__ = (
        "app_id",
        "attempts",
        "cause",
        "created",
        "due",
        "epoch",
        "event_type",
        "expires",
        "generation",
        "message_id",
        "order_key",
        "payload",
        "schedule",
        "step",
        "version",
    )

    def __init__(
        self,
        message_id: str,
        app_id: str,
        event_type: str,
        payload: bytes,
        created: int,
        due: int,
        attempts: int,
        step: int,
        cause: int,
        order_key: str | None,
        expires: int | None,
        schedule: str | None,
        version: int = 0,
    ) -> None:
        self.message_id = message_id
        self.app_id = app_id
        self.event_type = event_type
        self.payload = payload
        self.created = created
        self.due = due
        self.attempts = attempts
        self.step = step
        self.cause = cause
        self.order_key = order_key
        self.expires = expires
        self.schedule = schedule
        self.version = version  # of the delivery: a resend raises it
        self.generation = 0  # of the breaker, when it was started
        self.epoch = -1  # of the shard, likewise


class EndpointQueue:
    """Deliveries of an endpoint that are in memory, and its state.

    `taken` has the ids of all that are in memory: ready, under way, or ended and not yet in the store.
    `more_at` is when the store may have something due that is not in memory, in milliseconds since 1970.
    """

    __slots__ = (
        "app_id",
        "app_rate",
        "blocked_until",
        "breaker",
        "builder",
        "concurrency",
        "failing_since",
        "failures",
        "id",
        "is_active",
        "is_disabled",
        "is_idle",
        "is_loaded",
        "is_loading",
        "is_proven",
        "keys",
        "kind",
        "more_at",
        "per_second",
        "rate",
        "ready",
        "running",
        "schedule",
        "settings",
        "shard",
        "taken",
        "timeout",
        "timer",
        "tls",
        "warned",
    )

    def __init__(self, endpoint_id: str, shard: int, breaker: Breaker) -> None:
        self.id = endpoint_id
        self.shard = shard
        self.app_id = ""
        self.ready: deque[Task] = deque()
        self.taken: set[str] = set()
        self.keys: set[str] = set()  # order keys of those under way
        self.more_at: float = NEVER
        self.running = 0
        self.breaker = BreakerState(breaker)
        self.rate: Gcra | None = None
        self.per_second: int | None = None
        self.app_rate: Gcra | None = None  # shared by the endpoints of an application
        self.blocked_until = 0
        self.failures = 0
        self.failing_since: int | None = None
        self.warned = 0
        self.is_loaded = False
        self.is_loading = False
        self.is_idle = False  # paused or disabled
        self.is_active = False  # it waits for its turn
        self.is_disabled = False  # by us, and the store does not know it yet
        self.is_proven = False
        self.timer: Any = None
        self.concurrency = 1
        self.timeout = 15.0
        self.schedule: Schedule | None = None
        self.settings = Settings()
        self.kind: Kind | None = None
        self.builder: Builder | None = None
        self.tls: Tls | None = None

    def wait(self, now: int, clock: float) -> float:
        """Seconds until an attempt may start: 0 for now, infinity if one of its own must end first.

        `now` is milliseconds since 1970, `clock` monotonic seconds.
        """
        breaker = self.breaker
        breaker.cool(clock)
        if breaker.state is State.OPEN:
            return max(0.001, breaker.until - clock)
        is_probing = breaker.state is State.HALF_OPEN or not self.is_proven
        if self.running >= (1 if is_probing else self.concurrency):
            return NEVER
        if self.blocked_until > now:
            return (self.blocked_until - now) / 1000
        if self.rate is not None and self.rate.next > clock:
            return self.rate.next - clock
        if self.app_rate is not None and self.app_rate.next > clock:
            return self.app_rate.next - clock
        return 0.0

    @property
    def may_claim(self) -> bool:
        """Whether more may be read from the store; in FIFO not before the last one's end is written."""
        return not self.is_idle and not self.ready and not (self.settings.fifo and self.taken)

    @property
    def has_nothing(self) -> bool:
        """Whether it can be forgotten: nothing to do, and no state that matters."""
        return not self.taken and not self.running and self.more_at == NEVER and not self.failures

    def pop(self) -> Task | None:
        """The next one to send; None while all that are ready wait for one of their order key."""
        for _ in range(len(self.ready)):
            task = self.ready.popleft()
            if task.order_key is None or task.order_key not in self.keys:
                return task
            self.ready.append(task)
        return None

    def offer(self, task: Task, most: int) -> bool:
        """Take a delivery that was just accepted; false if it has to wait in the store."""
        if task.order_key is not None:
            self.drop_older(task)
        if self.is_idle or len(self.ready) >= most or self.breaker.state is State.OPEN:
            return False
        if self.more_at <= task.due:  # what is in the store is older
            return False
        self.taken.add(task.message_id)
        self.ready.append(task)
        return True

    def drop_older(self, newer: Task) -> None:
        """Forget what waits under the same order key: the store has canceled it."""
        for task in [task for task in self.ready if task.order_key == newer.order_key]:
            self.ready.remove(task)
            self.taken.discard(task.message_id)

    def forget_ready(self) -> None:
        """Leave what is ready to the store, to be read again in order."""
        self.taken -= {task.message_id for task in self.ready}
        self.ready.clear()

    def set_rate(self, per_second: int | None) -> None:
        """Limit the attempts in a second; one that stays the same goes on as it was."""
        if per_second == self.per_second:
            return
        self.per_second = per_second
        self.rate = None if per_second is None else Gcra(Rate(per_second, 1.0))
