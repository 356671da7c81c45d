"""The limiter: how many calls may be under way, in all and for each host, and when.

Waiting calls stand in a queue a host, and free slots go round the hosts in turn, so a
slow host with a long queue neither starves the others nor loses its place. A lane that is
shut for a time (its rate, a pause, an open breaker) leaves the round until it opens.

>>> slots = Slots(total=2)
>>> a, b = slots.lane(1), slots.lane(1)
>>> slots.take(a, 0.0), slots.take(a, 0.0), slots.take(b, 0.0)
(True, False, True)
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from yelpaze.policy.rate import Gcra

_SWEEP_FROM = 64


class Ticket(Protocol):
    """What waits: anything that can say that it no longer does."""

    @property
    def abandoned(self) -> bool:
        """Whether the slot is no longer wanted."""


class Lane:
    """One host's share: how many are under way, who waits, and until when it is shut."""

    __slots__ = ("_gone", "busy", "dozing", "in_ring", "limit", "rate", "shut_until", "waiting")

    def __init__(self, limit: int, rate: Gcra | None = None) -> None:
        self.limit = limit
        self.rate = rate
        self.busy = 0
        self.shut_until = float("-inf")
        self.waiting: deque[Ticket] = deque()
        self.in_ring = False
        self.dozing = False  # shut with calls waiting: somebody will `open` it
        self._gone = 0

    def left(self) -> None:
        """A waiting ticket has been abandoned; many of them are not kept."""
        self._gone += 1
        if self._gone > _SWEEP_FROM and self._gone * 2 > len(self.waiting):
            self.waiting = deque(ticket for ticket in self.waiting if not ticket.abandoned)
            self._gone = 0


class Slots:
    """A counting limiter, total and per lane. `take` or `wait`, then `give` back.

    `on_doze(lane)` is called when a lane has calls waiting and is shut: call `open` for it
    when its time has come. With `rate`, starts of all lanes together are spread in time; the
    lane that is told of is then `everything`.
    """

    def __init__(
        self,
        *,
        total: int,
        rate: Gcra | None = None,
        on_doze: Callable[[Lane], None] = lambda _: None,
    ) -> None:
        self.everything = Lane(total, rate)
        self._on_doze = on_doze
        # Lanes that could start a call of theirs as soon as a slot is free.
        self._ring: deque[Lane] = deque()

    @staticmethod
    def lane(limit: int, rate: Gcra | None = None) -> Lane:
        """A new host's lane."""
        return Lane(limit, rate)

    @property
    def busy(self) -> int:
        """Calls under way."""
        return self.everything.busy

    def take(self, lane: Lane, now: float) -> bool:
        """Take a slot at once if one is free and nobody of this lane waits for it."""
        every = self.everything
        if (
            lane.busy >= lane.limit
            or every.busy >= every.limit
            or lane.waiting
            or lane.shut_until > now
            or every.shut_until > now
        ):
            return False
        self._start(lane, now)
        return True

    def wait(self, lane: Lane, ticket: Ticket, now: float) -> None:
        """Queue for a slot; some later `next_ticket` hands the ticket out, its slot taken."""
        lane.waiting.append(ticket)
        self._join_ring(lane, now)
        self._doze_if_shut(now)

    def give(self, lane: Lane, now: float) -> Ticket | None:
        """Give one slot back; the ticket returned, if any, has taken it (of any lane)."""
        self.everything.busy -= 1
        lane.busy -= 1
        if lane.waiting:
            self._join_ring(lane, now)
        return self.next_ticket(now) if self._ring else None

    def open(self, lane: Lane, now: float) -> None:
        """The lane may have opened, or its limit have grown: call `next_ticket` until None."""
        lane.dozing = False
        self._join_ring(lane, now)

    def next_ticket(self, now: float) -> Ticket | None:
        """Start the next waiting call if a slot is free for it."""
        ring, every = self._ring, self.everything
        while ring and every.busy < every.limit:
            if every.shut_until > now:
                self._doze_if_shut(now)
                return None
            lane = ring.popleft()
            lane.in_ring = False
            if lane.busy >= lane.limit:
                continue
            if lane.shut_until > now:
                self._join_ring(lane, now)
                continue
            ticket = self._pop(lane)
            if ticket is None:
                continue
            self._start(lane, now)
            self._join_ring(lane, now)
            return ticket
        return None

    def _start(self, lane: Lane, now: float) -> None:
        every = self.everything
        every.busy += 1
        lane.busy += 1
        if lane.rate is not None:
            lane.shut_until = lane.rate.take(now)
        if every.rate is not None:
            every.shut_until = every.rate.take(now)

    def _join_ring(self, lane: Lane, now: float) -> None:
        if not lane.waiting or lane.in_ring or lane.busy >= lane.limit or lane is self.everything:
            return
        if lane.shut_until <= now:
            lane.in_ring = True
            self._ring.append(lane)
        elif not lane.dozing:
            lane.dozing = True
            self._on_doze(lane)

    def _doze_if_shut(self, now: float) -> None:
        every = self.everything
        if self._ring and every.shut_until > now and not every.dozing:
            every.dozing = True
            self._on_doze(every)

    @staticmethod
    def _pop(lane: Lane) -> Ticket | None:
        while lane.waiting:
            ticket = lane.waiting.popleft()
            if not ticket.abandoned:
                return ticket
        return None
