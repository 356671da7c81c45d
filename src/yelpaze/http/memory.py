"""Which transfers may go on when bodies fill the memory.

The bodies that are being received and those that callers hold come to at most `size` bytes, or
so. When they come to more, the younger transfers are paused: libcurl reads their sockets no more, so
their servers wait. The oldest row (or call) always goes on, so there is progress, and its end sets
others free.

Weighing looks at every transfer, so it is not done at each event: `unweighed` counts events up from
as many as surely fit into what is free, and at 0 it is time to weigh.
"""

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

_LARGE = 64 << 10  # bytes of a body from which on one event may bring a whole socket buffer
_LARGE_EVENT_BYTES, _EVENT_BYTES = 4 << 20, 64 << 10
_PROOF = 64  # answers after which they are known to be small
_NEVER = float("inf")
_AT_ONCE = 8  # paused transfers that go on at a time
_ROOM = 0.75  # of the memory in use: paused transfers go on


class Receiving(Protocol):
    """What is received: `order` says how old its row is, `body` is what has come."""

    body: bytearray

    @property
    def order(self) -> int:
        """The age of its row: lower is older."""


Some = TypeVar("Some", bound=Receiving)


def _nothing() -> None:
    """Nobody waits for memory."""


def _order(transfer: Receiving) -> int:
    return transfer.order


class Memory:
    """What bodies hold of `size` bytes."""

    __slots__ = ("_answers", "_has_large", "_held", "_holders", "_size", "on_freed", "unweighed")

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._holders: dict[int, int] = {}
        self._answers = 0
        self._has_large = False
        self.on_freed: Callable[[], None] = _nothing
        self.unweighed = -max(1, size // _LARGE_EVENT_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether callers hold all the memory there is."""
        return self._held >= self._size

    def hold(self, order: int, size: int) -> None:
        """The holder with that order keeps so many bytes of answers from now on; 0 for none."""
        before = self._holders.pop(order, 0)
        self._held += size - before
        if size:
            self._holders[order] = size
        if size < before:
            self.on_freed()

    def ended(self, transfer: Receiving) -> None:
        """A transfer is over: its body says what bodies are like here."""
        self._answers += 1
        if not self._has_large and len(transfer.body) > _LARGE:
            self._has_large, self.unweighed = True, 0

    def weigh(self, active: Collection[Some], paused: Collection[Some]) -> tuple[list[Some], list[Some]]:
        """Which of the active transfers to pause, and which of those paused go on.

        >>> class Body:
        ...     def __init__(self, order):
        ...         self.order, self.body = order, bytes(600)
        >>> old, young = Body(1), Body(2)
        >>> Memory(1000).weigh([young, old], [])[0] == [young]
        True
        """
        total = self._held + sum(len(transfer.body) for transfer in active)
        # Look again before what may come until then fills the memory.
        self._has_large |= any(len(transfer.body) > _LARGE for transfer in active)
        is_small = self._answers >= _PROOF and not self._has_large
        self.unweighed = -max(1, (self._size - total) // (_EVENT_BYTES if is_small else _LARGE_EVENT_BYTES))
        if not active:
            return [], []
        going = self._oldest(active, total)
        if total >= self._size:
            stopping = [one for one in active if one not in going and one not in paused]
            return stopping, [one for one in paused if one in going]
        if total < self._size * _ROOM:
            going.update(sorted(paused, key=_order)[:_AT_ONCE])
        return [], [one for one in paused if one in going]

    def _oldest(self, active: Collection[Some], total: int) -> set[Some]:
        """Those that must get on.

        If the oldest row waits for something else, that may be a slot which a paused transfer has: then
        the next one goes on, and so on.
        """
        oldest = min(min(active, key=_order).order, min(self._holders, default=_NEVER))
        going = {transfer for transfer in active if transfer.order == oldest}
        receiving = [transfer for transfer in active if transfer.body]
        if not going or (receiving and total < self._size * 2):
            going.add(min(receiving or active, key=_order))
        return going
