"""Concurrency: how many calls may be under way, in all and for each host.

Waiting calls stand in a queue a host, and free slots go round the hosts in turn, so a
slow host with a long queue neither starves the others nor loses its place.

>>> slots = Slots(total=2, per_host=1)
>>> a, b = slots.lane(), slots.lane()
>>> slots.take(a), slots.take(a), slots.take(b)
(True, False, True)
"""

from collections import deque
from typing import Protocol


class Ticket(Protocol):
    """What waits: anything that can say that it no longer does."""

    @property
    def abandoned(self) -> bool:
        """Whether the slot is no longer wanted."""


class Lane:
    """One host's share: how many are under way, and who waits."""

    __slots__ = ("busy", "in_ring", "waiting")

    def __init__(self) -> None:
        self.busy = 0
        self.waiting: deque[Ticket] = deque()
        self.in_ring = False


class Slots:
    """A counting limiter, total and per lane. `take` or `wait`, then `give` back."""

    def __init__(self, *, total: int, per_host: int) -> None:
        self.total = total
        self.per_host = per_host
        self.busy = 0
        # Lanes that could start a call of theirs as soon as a slot is free.
        self._ring: deque[Lane] = deque()

    def lane(self) -> Lane:
        """A new host's lane."""
        return Lane()

    def take(self, lane: Lane) -> bool:
        """Take a slot at once if one is free and nobody of this lane waits for it."""
        if self.busy >= self.total or lane.busy >= self.per_host or lane.waiting:
            return False
        self.busy += 1
        lane.busy += 1
        return True

    def wait(self, lane: Lane, ticket: Ticket) -> None:
        """Queue for a slot; some later `give` hands the ticket out, its slot taken."""
        lane.waiting.append(ticket)
        self._join_ring(lane)

    def give(self, lane: Lane) -> Ticket | None:
        """Give one slot back; the ticket returned, if any, has taken it (of any lane)."""
        self.busy -= 1
        lane.busy -= 1
        if lane.waiting:
            self._join_ring(lane)
        return self.next_ticket() if self._ring else None

    def next_ticket(self) -> Ticket | None:
        """Start the next waiting call if a slot is free for it."""
        ring = self._ring
        while ring and self.busy < self.total:
            lane = ring.popleft()
            lane.in_ring = False
            ticket = self._pop(lane)
            if ticket is None:
                continue
            self.busy += 1
            lane.busy += 1
            self._join_ring(lane)
            return ticket
        return None

    def _join_ring(self, lane: Lane) -> None:
        if lane.waiting and not lane.in_ring and lane.busy < self.per_host:
            lane.in_ring = True
            self._ring.append(lane)

    @staticmethod
    def _pop(lane: Lane) -> Ticket | None:
        while lane.waiting:
            ticket = lane.waiting.popleft()
            if not ticket.abandoned:
                return ticket
        return None
