"""Keeps what cannot be published while the brokers are away, on disk, and publishes it in order afterwards.

While anything is in the spool, everything new goes through it, so that records of one key keep their order.
It is bounded: when it is full, the oldest records that may be dropped go first, then the oldest of all; they
are counted.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Self

from yelpaze.bus.protocol import (
    AssignmentListener,
    Bus,
    BusUnavailable,
    Consumer,
    Lag,
    NewRecord,
    Partition,
    Topic,
    TopicState,
)
from yelpaze.bus.settings import BusSpool
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.store.migrations import Migrations
from yelpaze.store.opening import open_store
from yelpaze.store.session import Row, Session, StoreUnavailable, Table
from yelpaze.store.store import Store

SPOOL = Migrations(
    "spool",
    (
        """
        CREATE TABLE spool (
            id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT NOT NULL,
            value BYTEA NOT NULL, partition BIGINT, droppable BIGINT NOT NULL
        );
        CREATE INDEX spool_droppable ON spool (id) WHERE droppable = 1
        """,
    ),
)
_SPOOL = Table("spool", dict.fromkeys(("topic", "key", "value", "partition", "droppable"), ""))
_AT_ONCE = 1000
_AGAIN_SECONDS = 1.0
_OVERHEAD = 60  # bytes of a row beside key and value


class SpoolingBus:
    """A bus that can always be published to. See Bus.

    Attributes:
        spooled: Records in the spool.
        dropped: Records that were lost for want of room.

    """

    def __init__(self, bus: Bus, settings: BusSpool, report: Report) -> None:
        self.shown = bus.shown
        self.spooled = 0
        self.dropped = 0
        self._bytes = 0
        self._bus = bus
        self._most = settings.size
        self._report = report
        self._store: Store = open_store(settings.path, SPOOL)
        self._is_open = False
        self._missing: dict[str, Topic] = {}  # topics that are to be made
        self._draining: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        self.spooled, self._bytes = await self._store.read(_size)
        with contextlib.suppress(BusUnavailable):
            await self._connect()
        if not self._is_open or self.spooled:
            self._begin_draining()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
        if self._is_open:
            await self._bus.__aexit__(None, None, None)
        await self._store.close()

    async def _connect(self) -> None:
        """Raises BusUnavailable, and InputError for what the brokers refuse."""
        if not self._is_open:
            await self._bus.__aenter__()
            self._is_open = True
        if self._missing:
            await self._bus.create(list(self._missing.values()))
            self._missing.clear()

    async def create(self, topics: Sequence[Topic]) -> None:
        self._missing.update({topic.name: topic for topic in topics})
        if self._is_open:
            try:
                await self._connect()
            except BusUnavailable:  # they are made when the brokers are back
                self._begin_draining()

    async def publish(self, topic: str, records: Sequence[NewRecord]) -> None:
        if self._is_open and self._draining is None:
            try:
                await self._bus.publish(topic, records)
            except BusUnavailable as error:
                text = f"{error}; records are kept until the brokers are back"
                self._report(Notice("bus.spooling", text, Level.WARNING))
                self._begin_draining()  # from now on everything goes through the spool, in order
            else:
                return
        kept = [record for record in records if not record.is_transient]
        if kept:
            await self._keep(topic, kept)

    async def _keep(self, topic: str, records: Sequence[NewRecord]) -> None:
        rows = [(topic, one.key, one.value, one.partition, int(one.is_droppable)) for one in records]
        size = sum(_bytes_of(row) for row in rows)
        async with self._lock:
            excess = self._bytes + size - self._most
            try:
                lost, freed = await self._store.write(partial(_append, rows=rows, excess=excess))
            except StoreUnavailable as error:
                raise BusUnavailable(f"{self._store.shown}: {error}") from None
            self.spooled += len(rows) - lost
            self.dropped += lost
            self._bytes += size - freed
        self._begin_draining()

    def _begin_draining(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Publish what is kept, oldest first, until nothing is left."""
        published, refusal = 0, ""
        while True:
            try:
                await self._connect()
                rows = await self._store.read(_oldest)
                if not rows:
                    async with self._lock:  # nothing can be added between the look and the end
                        rows = await self._store.read(_oldest)
                        if not rows:
                            self._draining = None
                            break
                published += await self._publish_kept(rows)
            except (BusUnavailable, StoreUnavailable):
                await asyncio.sleep(_AGAIN_SECONDS)
            except InputError as error:  # the brokers refuse us, which somebody may mend
                if str(error) != refusal:
                    refusal = str(error)
                    self._report(Notice("bus.refused", refusal, Level.ERROR))
                await asyncio.sleep(_AGAIN_SECONDS)
        if published:
            lost = f", {self.dropped:,} were lost for want of room" if self.dropped else ""
            text = f"{self.shown}: the brokers are back; {published:,} kept records are published{lost}"
            self._report(Notice("bus.back", text))

    async def _publish_kept(self, rows: Sequence[Row]) -> int:
        for topic, group in groupby(rows, key=lambda row: str(row[1])):
            records = [NewRecord(key, value, part) for _, _, key, value, part, _ in group]
            await self._bus.publish(topic, records)
        async with self._lock:
            gone = await self._store.write(partial(_delete, ids=[row[0] for row in rows]))
            self.spooled -= len(rows)
            self._bytes -= sum(_bytes_of(row[1:]) for row in rows)
            if gone != len(rows):  # some were dropped meanwhile
                self.spooled, self._bytes = await self._store.read(_size)
        return len(rows)

    # ── what the brokers must be there for ──────────────────────────────────────

    def consume(
        self, topics: Sequence[str], group: str | None = None, listener: AssignmentListener | None = None
    ) -> Consumer:
        return self._bus.consume(topics, group, listener)

    async def offsets_at(self, topic: str, at: int) -> dict[Partition, int]:
        return await self._bus.offsets_at(topic, at)

    async def topics(self) -> list[TopicState]:
        return await self._bus.topics()

    async def lag(self) -> list[Lag]:
        return await self._bus.lag()


def _bytes_of(row: Row) -> int:
    return len(row[1]) + len(row[2]) + _OVERHEAD


def _size(session: Session) -> tuple[int, int]:
    [(count, size)] = session.rows(
        f"SELECT count(*), coalesce(sum(length(key) + length(value) + {_OVERHEAD}), 0) FROM spool"  # noqa: S608
    )
    return int(count), int(size)


def _append(session: Session, rows: Sequence[Row], excess: int) -> tuple[int, int]:
    """Append, and make room: the number of records and bytes that went."""
    session.insert(_SPOOL, rows)
    lost = freed = 0
    for condition in ("droppable = 1", "droppable IN (0, 1)"):
        while freed < excess:
            found = session.rows(
                f"SELECT id, length(key) + length(value) FROM spool WHERE {condition} ORDER BY id LIMIT ?",  # noqa: S608
                _AT_ONCE,
            )
            if not found:
                break
            ids = []
            for number, size in found:
                ids.append(number)
                freed += size + _OVERHEAD
                if freed >= excess:
                    break
            _delete(session, ids)
            lost += len(ids)
    return lost, freed


def _oldest(session: Session) -> list[Row]:
    return session.rows(
        "SELECT id, topic, key, value, partition, droppable FROM spool ORDER BY id LIMIT ?", _AT_ONCE
    )


def _delete(session: Session, ids: Sequence[int]) -> int:
    return session.run("DELETE FROM spool WHERE id IN ??", list(ids))
