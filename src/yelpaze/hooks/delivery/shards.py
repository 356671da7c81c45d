"""The shards that this process owns: their leases, and those that it is about to leave."""

from collections.abc import Callable
from functools import partial

import msgspec

from yelpaze.store.leases import Leases
from yelpaze.store.store import Store

_TRUST = 0.9  # the share of a lease's time within which it is relied on


class Change(msgspec.Struct, frozen=True):
    """The changes of a renewal: shards gained or lost, and those that are kept after all."""

    changed: frozenset[int]
    staying: frozenset[int]


class Shards:
    """Leases on shards, as they were at the last renewal.

    Attributes:
        epochs: The shards that are held, with their epochs.
        unread: Those in which there may be work that is not known of.

    """

    def __init__(self, store: Store, leases: Leases, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._leaving: set[int] = set()
        self._valid_until = float("-inf")
        self.leases = leases
        self.epochs: dict[int, int] = {}
        self.unread: set[int] = set()

    async def renew(self, busy: set[int]) -> Change:
        """Renew, and give back what is left and not busy. Raises StoreUnavailable."""
        began = self._monotonic()
        renewal = await self._store.write(partial(self.leases.renew, idle=self._leaving - busy))
        epochs, leaving = renewal.epochs, set(renewal.leaving)
        gained = {shard for shard, epoch in epochs.items() if self.epochs.get(shard) != epoch}
        change = Change(
            frozenset(gained | (set(self.epochs) - set(epochs))), frozenset(self._leaving - leaving)
        )
        self._valid_until = began + self.leases.seconds * _TRUST
        self._leaving, self.epochs = leaving, epochs
        self.unread = (self.unread | gained) & set(epochs)
        return change

    def may_start_in(self, shard: int) -> bool:
        """Whether attempts may start there: it is not to be left to another process."""
        return shard not in self._leaving

    def is_valid(self, clock: float) -> bool:
        """Whether the leases can be relied on; not after a freeze, or while the store is unavailable."""
        return clock <= self._valid_until

    def read_again(self) -> None:
        """There may be work anywhere that is not known of."""
        self.unread |= set(self.epochs)
