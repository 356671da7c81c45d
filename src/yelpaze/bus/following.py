"""A consumer whose positions are in the store, committed together with its effect.

    read → handle → store.write(advance, effect) → ack, which only shows the lag

A batch whose transaction fails because the store is away is tried again; one that another member has taken
over is dropped, and the place to go on is read anew.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from yelpaze.bus.positions import FencedError, StoredPositions
from yelpaze.bus.protocol import (
    AssignmentListener,
    Bus,
    BusUnavailable,
    Consumer,
    Partition,
    Positions,
    Record,
)
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

Effect = Callable[[Session], object]
Handle = Callable[[list[Record]], Awaitable[Effect | None]]
_AGAIN_SECONDS = 0.5


class Follower:
    """Reads topics as one of a group.

    Args:
        name: Of the group, and of its positions.
        report: Is called when the bus or the store cannot be used.
        listener: Hears of partitions, too, and may know better where to start.

    Attributes:
        assigned: The partitions that it reads.

    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        topics: Sequence[str],
        name: str,
        report: Report,
        listener: AssignmentListener | None = None,
    ) -> None:
        self.name = name
        self._bus = bus
        self._store = store
        self._topics = list(topics)
        self._report = report
        self._listener = listener
        self._stored = StoredPositions(name)
        self._positions: dict[Partition, int] = {}
        self._consumer: Consumer | None = None
        self._is_away = False

    @property
    def assigned(self) -> frozenset[Partition]:
        return self._consumer.assigned if self._consumer is not None else frozenset()

    async def run(
        self,
        handle: Handle,
        *,
        most: int = 2000,
        wait: float = 0.5,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow until cancelled. `handle` gets records, and gives their effect; None for none yet."""
        while True:
            try:
                async with self._bus.consume(self._topics, self.name, self) as consumer:
                    self._consumer = consumer
                    while True:
                        records, ack = await consumer.read(most, wait)
                        self._back()
                        effect = await handle(records)
                        if effect is not None or records:
                            await self._commit(records, effect)
                            committed()
                            with contextlib.suppress(BusUnavailable):
                                await ack()
            except (BusUnavailable, StoreUnavailable) as error:
                self._away(error)
                await asyncio.sleep(_AGAIN_SECONDS)
            finally:
                self._consumer = None

    async def _commit(self, records: list[Record], effect: Effect | None) -> None:
        new: dict[Partition, int] = {}
        for record in records:
            new[record.topic, record.partition] = record.offset + 1
        old = {one: self._positions.get(one, 0) for one in new}

        def work(session: Session) -> None:
            self._stored.advance(session, old, new)
            if effect is not None:
                effect(session)

        while True:
            try:
                await self._store.write(work)
            except FencedError:
                await self._go_to_stored(list(new))
                return
            except StoreUnavailable as error:  # whether it was done is not known: the fence knows
                self._away(error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._positions.update(new)
                return

    async def _go_to_stored(self, partitions: list[Partition]) -> None:
        stored = await self._store.read(lambda session: self._stored.of(session, partitions))
        self._positions.update(stored)
        if self._listener is not None:  # what it knows is void, as with a new assignment
            stored = {**stored, **await self._listener.on_assigned(partitions)}
        if self._consumer is not None:
            await self._consumer.seek(stored)

    # ── assignment ──────────────────────────────────────────────────────────────

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        stored = await self._store.read(lambda session: self._stored.of(session, partitions))
        self._positions.update({one: stored.get(one, 0) for one in partitions})
        if self._listener is None:
            return stored
        return {**stored, **await self._listener.on_assigned(partitions)}

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        for one in partitions:
            self._positions.pop(one, None)
        if self._listener is not None:
            await self._listener.on_revoked(partitions)

    def _away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._report(Notice("bus.unavailable", f"{self.name}: {error}; trying again", Level.WARNING))

    def _back(self) -> None:
        if self._is_away:
            self._is_away = False
            self._report(Notice("bus.available", f"{self.name}: goes on"))
