"""The bus of one machine: an SQLite file, on disk when `publish` returns.

    topic(name, partitions, retention)   partition(topic, number, next)   record(topic, partition, offset, …)
    committed(grp, topic, partition, next)   lease(…): which member of a group reads which partition

Any number of processes may publish and consume. The partitions of a group are leased to its members; who is
killed loses them when its leases end.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar
from zlib import crc32

from yelpaze.bus.protocol import (
    Ack,
    AssignmentListener,
    BusUnavailable,
    Lag,
    NewRecord,
    Partition,
    Positions,
    Record,
    Topic,
    TopicState,
)
from yelpaze.model.errors import InputError
from yelpaze.store.leases import Leases, Renewal
from yelpaze.store.migrations import Migrations
from yelpaze.store.opening import open_store
from yelpaze.store.session import Session, StoreUnavailable, Table, first
from yelpaze.store.store import Store

_T = TypeVar("_T")
BUS = Migrations(
    "bus",
    (
        """
        CREATE TABLE topic (name TEXT PRIMARY KEY, partitions BIGINT NOT NULL, retention BIGINT NOT NULL);
        CREATE TABLE partition (
            topic TEXT NOT NULL, number BIGINT NOT NULL, next BIGINT NOT NULL, PRIMARY KEY (topic, number)
        ) WITHOUT ROWID;
        CREATE TABLE record (
            topic TEXT NOT NULL, partition BIGINT NOT NULL, offset BIGINT NOT NULL, at BIGINT NOT NULL,
            key TEXT NOT NULL, value BYTEA NOT NULL, PRIMARY KEY (topic, partition, offset)
        ) WITHOUT ROWID;
        CREATE TABLE committed (
            grp TEXT NOT NULL, topic TEXT NOT NULL, partition BIGINT NOT NULL, next BIGINT NOT NULL,
            PRIMARY KEY (grp, topic, partition)
        ) WITHOUT ROWID
        """,
    ),
)
_RECORD = Table("record", dict.fromkeys(("topic", "partition", "offset", "at", "key", "value"), ""))
_LOOK_SECONDS = 0.1  # for what other processes publish
_LEASE_SECONDS = 10.0
_CLEAN_SECONDS = 60.0
_MOST_DELETED = 50_000


class SqliteBus:
    """See Bus.

    Args:
        path: The file.
        wall: UNIX seconds.
        monotonic: A clock in seconds, for leases.
        lease: Seconds after which the partitions of a killed member go to others.

    """

    def __init__(
        self,
        path: str,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        lease: float = _LEASE_SECONDS,
    ) -> None:
        self.shown = path
        self.wall = wall
        self.monotonic = monotonic
        self.lease = lease
        self._store: Store = open_store(path, BUS)
        self._topics: dict[str, int] = {}
        self._published = asyncio.Event()
        self._cleaning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        self._cleaning = asyncio.get_running_loop().create_task(self._clean())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.gather(self._cleaning, return_exceptions=True)
        await self._store.close()

    async def create(self, topics: Sequence[Topic]) -> None:
        await self.write(partial(_create, topics=topics))
        self._topics.update({topic.name: topic.partitions for topic in topics})

    async def publish(self, topic: str, records: Sequence[NewRecord]) -> None:
        partitions = await self.partitions_of(topic)
        by_partition: dict[int, list[NewRecord]] = {}
        for record in records:
            number = crc32(record.key.encode()) % partitions if record.partition is None else record.partition
            by_partition.setdefault(number, []).append(record)
        await self.write(partial(_append, topic=topic, given=by_partition, now=int(self.wall() * 1000)))
        self._published.set()
        self._published = asyncio.Event()

    def consume(
        self, topics: Sequence[str], group: str | None = None, listener: AssignmentListener | None = None
    ) -> "SqliteConsumer":
        return SqliteConsumer(self, topics, group, listener)

    async def offsets_at(self, topic: str, at: int) -> dict[Partition, int]:
        return await self.read(partial(_offsets_at, topic=topic, at=at))

    async def topics(self) -> list[TopicState]:
        rows = await self.read(
            lambda session: session.rows(
                "SELECT name, partitions, (SELECT count(*) FROM record WHERE topic = name) "
                "FROM topic ORDER BY name"
            )
        )
        return [TopicState(*row) for row in rows]

    async def lag(self) -> list[Lag]:
        rows = await self.read(
            lambda session: session.rows(
                "SELECT c.grp, c.topic, c.partition, c.next, p.next FROM committed c JOIN partition p "
                "ON p.topic = c.topic AND p.number = c.partition ORDER BY 1, 2, 3"
            )
        )
        return [Lag(*row) for row in rows]

    # ── for consumers ───────────────────────────────────────────────────────────

    async def partitions_of(self, topic: str) -> int:
        """The number of a topic's partitions. Raises InputError."""
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = await self.read(partial(_partitions, topic=topic))
        return known

    async def read(self, work: Callable[[Session], _T]) -> _T:
        """Read from the file. Raises BusUnavailable."""
        return await _usable(self.shown, self._store.read(work))

    async def write(self, work: Callable[[Session], _T]) -> _T:
        """Write to the file. Raises BusUnavailable."""
        return await _usable(self.shown, self._store.write(work))

    async def published(self, seconds: float) -> None:
        """Wait until this process publishes something, or others may have."""
        event = self._published
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _LOOK_SECONDS)):
                await event.wait()

    async def _clean(self) -> None:
        while True:
            with contextlib.suppress(BusUnavailable):
                is_more = True
                while is_more:
                    is_more = await self.write(partial(_delete_old, now=int(self.wall() * 1000)))
            await asyncio.sleep(_CLEAN_SECONDS)


class SqliteConsumer:
    """See Consumer."""

    def __init__(
        self, bus: SqliteBus, topics: Sequence[str], group: str | None, listener: AssignmentListener | None
    ) -> None:
        self._bus = bus
        self._names = list(topics)
        self._group = group
        self._listener = listener
        self._owner = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._positions: dict[Partition, int] = {}
        self._leases: dict[str, Leases] = {}
        self._epochs: dict[Partition, int] = {}
        self._leaving: set[Partition] = set()
        self._renewed_at = float("-inf")
        self._turn = 0

    @property
    def assigned(self) -> frozenset[Partition]:
        return frozenset(self._positions)

    async def __aenter__(self) -> Self:
        for name in self._names:
            count = await self._bus.partitions_of(name)
            if self._group is not None:
                lease = Leases(f"{self._group}/{name}", count, self._owner, self._bus.lease)
                self._leases[name] = lease
        if self._group is None:
            await self._assign_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leases:
            with contextlib.suppress(BusUnavailable):
                await self._bus.write(partial(_release, leases=self._leases))
        if self._positions and self._listener is not None:
            await self._listener.on_revoked(sorted(self._positions))
        self._positions.clear()

    async def read(self, most: int = 1000, wait: float = 1.0) -> tuple[list[Record], Ack]:
        end = self._bus.monotonic() + wait
        while True:
            await self._renew()
            self._turn += 1
            order = sorted(self._positions)
            place = self._turn % len(order) if order else 0  # so that no partition is always the last one
            wanted = [(one, self._positions[one]) for one in (*order[place:], *order[:place])]
            records = await self._bus.read(partial(_read, wanted=wanted, most=most)) if wanted else []
            if records:
                for record in records:
                    self._positions[record.topic, record.partition] = record.offset + 1
                return records, partial(self._ack, dict(self._positions))
            left = end - self._bus.monotonic()
            if left <= 0:
                return [], partial(self._ack, {})
            await self._bus.published(left)

    async def seek(self, positions: Positions) -> None:
        self._positions.update({one: at for one, at in positions.items() if one in self._positions})

    async def _ack(self, positions: dict[Partition, int]) -> None:
        if self._group is not None and positions:
            await self._bus.write(partial(_commit, group=self._group, positions=positions))

    # ── assignment ──────────────────────────────────────────────────────────────

    async def _assign_all(self) -> None:
        partitions = [
            (name, number) for name in self._names for number in range(await self._bus.partitions_of(name))
        ]
        given = await self._listener.on_assigned(partitions) if self._listener is not None else {}
        ends = await self._bus.read(partial(_ends, topics=self._names))
        self._positions = {one: given.get(one, ends.get(one, 0)) for one in partitions}
        for one, position in self._positions.items():
            if position > ends.get(one, 0):  # the file was made anew
                self._positions[one] = 0

    async def _renew(self) -> None:
        now = self._bus.monotonic()
        if self._group is None or now - self._renewed_at < self._bus.lease / 3:
            return
        renewals = await self._bus.write(partial(_renew, leases=self._leases, idle=frozenset(self._leaving)))
        self._renewed_at = now
        epochs = {
            (topic, number): epoch
            for topic, renewal in renewals.items()
            for number, epoch in renewal.epochs.items()
        }
        leaving = {(topic, number) for topic, renewal in renewals.items() for number in renewal.leaving}
        # With another epoch somebody else has had it meanwhile: what is known of it is void.
        void = {one for one in self._positions if epochs.get(one) != self._epochs.get(one)}
        lost = sorted(void | (leaving & set(self._positions)))
        gained = sorted(
            one for one in epochs if one not in leaving and (one not in self._positions or one in void)
        )
        self._epochs = {one: epoch for one, epoch in epochs.items() if one not in leaving}
        self._leaving = leaving
        for one in lost:
            self._positions.pop(one, None)
        if lost and self._listener is not None:
            await self._listener.on_revoked(lost)
        if leaving:
            self._renewed_at = float("-inf")  # give them back at once
        if gained:
            given: Positions
            if self._listener is not None:
                given = await self._listener.on_assigned(gained)
            else:
                given = await self._bus.read(partial(_committed, group=self._group, partitions=gained))
            self._positions.update({one: given.get(one, 0) for one in gained})


# ── units of work ───────────────────────────────────────────────────────────────


async def _usable(shown: str, work: Awaitable[_T]) -> _T:
    try:
        return await work
    except StoreUnavailable as error:
        raise BusUnavailable(f"{shown}: {error}") from None


def _create(session: Session, topics: Sequence[Topic]) -> None:
    for topic in topics:
        row = first(session.rows("SELECT partitions FROM topic WHERE name = ?", topic.name))
        if row is not None and row[0] != topic.partitions:
            raise mismatch(topic, row[0])
    for topic in topics:
        session.run(
            "INSERT INTO topic (name, partitions, retention) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET retention = excluded.retention",
            *(topic.name, topic.partitions, int(topic.retention * 1000)),
        )
        for number in range(topic.partitions):
            session.run(
                "INSERT INTO partition (topic, number, next) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
                *(topic.name, number),
            )


def mismatch(topic: Topic, found: int) -> InputError:
    """The error for a topic with another number of partitions."""
    return InputError(
        f"topic {topic.name} has {found} partitions, and {topic.partitions} are needed: "
        "the number of partitions must not change; use another bus, or make the topic anew"
    )


def _partitions(session: Session, topic: str) -> int:
    row = first(session.rows("SELECT partitions FROM topic WHERE name = ?", topic))
    if row is None:
        names = [name for (name,) in session.rows("SELECT name FROM topic ORDER BY name")]
        known = f"; there are {', '.join(names)}" if names else ""
        raise InputError(f"there is no topic {topic}{known}")
    return int(row[0])


def _append(session: Session, topic: str, given: dict[int, list[NewRecord]], now: int) -> None:
    rows = []
    for number, records in given.items():
        found = session.rows(
            "UPDATE partition SET next = next + ? WHERE topic = ? AND number = ? RETURNING next",
            *(len(records), topic, number),
        )
        if not found:
            raise InputError(f"topic {topic} has no partition {number}")
        offset = found[0][0] - len(records)
        for place, record in enumerate(records, offset):
            rows.append((topic, number, place, now, record.key, record.value))
    session.insert(_RECORD, rows)


def _read(session: Session, wanted: Sequence[tuple[Partition, int]], most: int) -> list[Record]:
    topics = {topic for (topic, _), _ in wanted}
    ends = _ends(session, topics)
    found: list[Record] = []
    for (topic, number), offset in wanted:
        if ends.get((topic, number), 0) <= offset:
            continue
        rows = session.rows(
            "SELECT offset, at, key, value FROM record WHERE topic = ? AND partition = ? AND offset >= ? "
            "ORDER BY offset LIMIT ?",
            *(topic, number, offset, most - len(found)),
        )
        found += [Record(topic, number, *row) for row in rows]
        if len(found) >= most:
            break
    return found


def _ends(session: Session, topics: Iterable[str]) -> dict[Partition, int]:
    rows = session.rows("SELECT topic, number, next FROM partition WHERE topic IN ??", sorted(topics))
    return {(topic, number): end for topic, number, end in rows}


def _offsets_at(session: Session, topic: str, at: int) -> dict[Partition, int]:
    found = {}
    for (_, number), end in sorted(_ends(session, [topic]).items()):
        row = first(
            session.rows(
                "SELECT min(offset) FROM record WHERE topic = ? AND partition = ? AND at >= ?",
                *(topic, number, at),
            )
        )
        found[topic, number] = end if row is None or row[0] is None else row[0]
    return found


def _committed(session: Session, group: str, partitions: Sequence[Partition]) -> dict[Partition, int]:
    rows = session.rows("SELECT topic, partition, next FROM committed WHERE grp = ?", group)
    return {(topic, number): at for topic, number, at in rows if (topic, number) in partitions}


def _commit(session: Session, group: str, positions: dict[Partition, int]) -> None:
    for (topic, number), offset in positions.items():
        session.run(
            "INSERT INTO committed (grp, topic, partition, next) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (grp, topic, partition) DO UPDATE SET next = excluded.next "
            "WHERE committed.next < excluded.next",
            *(group, topic, number, offset),
        )


def _renew(session: Session, leases: dict[str, Leases], idle: frozenset[Partition]) -> dict[str, Renewal]:
    return {
        topic: lease.renew(session, {number for name, number in idle if name == topic})
        for topic, lease in leases.items()
    }


def _release(session: Session, leases: dict[str, Leases]) -> None:
    for lease in leases.values():
        lease.release(session)


def _delete_old(session: Session, now: int) -> bool:
    """Delete what is older than its topic's retention; true if there is more."""
    is_more = False
    for name, count, retention in session.rows("SELECT name, partitions, retention FROM topic"):
        for number in range(count):
            row = first(
                session.rows(
                    "SELECT offset, at FROM record WHERE topic = ? AND partition = ? ORDER BY offset LIMIT 1",
                    *(name, number),
                )
            )
            if row is None or row[1] >= now - retention:
                continue
            deleted = session.run(
                "DELETE FROM record WHERE topic = ? AND partition = ? AND offset < ? AND at < ?",
                *(name, number, row[0] + _MOST_DELETED, now - retention),
            )
            is_more |= deleted == _MOST_DELETED
    return is_more
