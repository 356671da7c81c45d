"""The limiter: how many calls may be under way, in all and for each host, and when.

Waiting calls stand in a queue a host, and free slots go round the hosts in turn, so a
slow host with a long queue neither starves the others nor loses its place. A queue that is
blocked for a time (its rate, a pause, an open breaker) leaves the round until it opens.

>>> slots = Slots(total=2)
>>> a, b = HostQueue(1), HostQueue(1)
>>> slots.take(a, 0.0), slots.take(a, 0.0), slots.take(b, 0.0)
(True, False, True)
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from yelpaze.policy.rate import Gcra

_SWEEP_FROM = 64


class Ticket(Protocol):
    """What waits: anything that can say that it no longer does."""

    @property
    def abandoned(self) -> bool:
        """Whether the slot is no longer wanted."""


T = TypeVar("T", bound=Ticket)


class HostQueue(Generic[T]):
    """One host's queue: calls under way, calls waiting, and until when it is blocked."""

    __slots__ = ("_gone", "blocked", "blocked_until", "busy", "in_ring", "limit", "rate", "waiting")

    def __init__(self, limit: int, rate: Gcra | None = None) -> None:
        self.limit = limit
        self.rate = rate
        self.busy = 0
        self.blocked_until = float("-inf")
        self.waiting: deque[T] = deque()
        self.in_ring = False
        self.blocked = False  # with calls waiting: `open` will be called for it
        self._gone = 0

    def left(self) -> None:
        """A waiting ticket has been abandoned; many of them are not kept."""
        self._gone += 1
        if self._gone > _SWEEP_FROM and self._gone * 2 > len(self.waiting):
            self.waiting = deque(ticket for ticket in self.waiting if not ticket.abandoned)
            self._gone = 0


class Slots(Generic[T]):
    """A counting limiter, in total and per queue. `take` or `wait`, then `give` back.

    `on_blocked(queue)` is called when a queue with waiting calls is blocked: call `open` for it at
    `blocked_until`. With `rate`, the starts of all queues together are spread in time; the queue
    passed to the callback is then `everything`.
    """

    def __init__(
        self,
        *,
        total: int,
        rate: Gcra | None = None,
        on_blocked: Callable[[HostQueue[T]], None] = lambda _: None,
    ) -> None:
        self.everything: HostQueue[T] = HostQueue(total, rate)
        self._on_blocked = on_blocked
        # Queues that could start a call of theirs as soon as a slot is free.
        self._ring: deque[HostQueue[T]] = deque()

    @property
    def busy(self) -> int:
        """Calls under way."""
        return self.everything.busy

    def take(self, queue: HostQueue[T], now: float) -> bool:
        """Take a slot at once if one is free and no call of this queue waits."""
        every = self.everything
        if (
            queue.busy >= queue.limit
            or every.busy >= every.limit
            or queue.waiting
            or queue.blocked_until > now
            or every.blocked_until > now
        ):
            return False
        self._start(queue, now)
        return True

    def wait(self, queue: HostQueue[T], ticket: T, now: float) -> None:
        """Wait for a slot; a later `next_ticket` returns the ticket, its slot taken."""
        queue.waiting.append(ticket)
        self._join_ring(queue, now)
        self._notice_blocked(now)

    def give(self, queue: HostQueue[T], now: float) -> T | None:
        """Give one slot back; the returned ticket (of any queue), if any, has taken it."""
        self.everything.busy -= 1
        queue.busy -= 1
        if queue.waiting:
            self._join_ring(queue, now)
        return self.next_ticket(now) if self._ring else None

    def open(self, queue: HostQueue[T], now: float) -> None:
        """The queue may be unblocked, or its limit higher: call `next_ticket` until it returns None."""
        queue.blocked = False
        self._join_ring(queue, now)

    def next_ticket(self, now: float) -> T | None:
        """Start the next waiting call if a slot is free for it."""
        ring, every = self._ring, self.everything
        while ring and every.busy < every.limit:
            if every.blocked_until > now:
                self._notice_blocked(now)
                return None
            queue = ring.popleft()
            queue.in_ring = False
            if queue.busy >= queue.limit:
                continue
            if queue.blocked_until > now:
                self._join_ring(queue, now)
                continue
            ticket = self._pop(queue)
            if ticket is None:
                continue
            self._start(queue, now)
            self._join_ring(queue, now)
            return ticket
        return None

    def _start(self, queue: HostQueue[T], now: float) -> None:
        every = self.everything
        every.busy += 1
        queue.busy += 1
        if queue.rate is not None:
            queue.blocked_until = queue.rate.take(now)
        if every.rate is not None:
            every.blocked_until = every.rate.take(now)

    def _join_ring(self, queue: HostQueue[T], now: float) -> None:
        if not queue.waiting or queue.in_ring or queue.busy >= queue.limit or queue is self.everything:
            return
        if queue.blocked_until <= now:
            queue.in_ring = True
            self._ring.append(queue)
        elif not queue.blocked:
            queue.blocked = True
            self._on_blocked(queue)

    def _notice_blocked(self, now: float) -> None:
        every = self.everything
        if self._ring and every.blocked_until > now and not every.blocked:
            every.blocked = True
            self._on_blocked(every)

    @staticmethod
    def _pop(queue: HostQueue[T]) -> T | None:
        while queue.waiting:
            ticket = queue.waiting.popleft()
            if not ticket.abandoned:
                return ticket
        return None
