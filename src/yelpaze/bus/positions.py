"""Offsets in the store, in the transaction of a consumer's effect: each effect happens once.

    BEGIN; the effect; UPDATE position SET next = :new WHERE … AND next = :old; COMMIT

The condition is a fence: a member that was frozen while another one went on changes nothing when it wakes.
"""

from collections.abc import Sequence

import msgspec

from yelpaze.bus.protocol import Partition, Positions
from yelpaze.model.errors import StoppedError
from yelpaze.store.migrations import Migrations
from yelpaze.store.session import Session, first

POSITIONS = Migrations(
    "positions",
    (
        """
        CREATE TABLE position (
            consumer TEXT NOT NULL, topic TEXT NOT NULL, partition BIGINT NOT NULL, next BIGINT NOT NULL,
            PRIMARY KEY (consumer, topic, partition)
        )
        """,
    ),
)


class FencedError(StoppedError):
    """Another member has gone on with a partition; nothing was done."""


class StoredPositions(msgspec.Struct, frozen=True):
    """The positions of one consumer, named as its group."""

    consumer: str

    def of(self, session: Session, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Where to go on; partitions that were never read are missing."""
        rows = session.rows("SELECT topic, partition, next FROM position WHERE consumer = ?", self.consumer)
        return {(topic, number): at for topic, number, at in rows if (topic, number) in partitions}

    def advance(self, session: Session, old: Positions, new: Positions) -> None:
        """Move on, in the transaction of the effect. Raises FencedError unless all stand at `old`."""
        for (topic, number), offset in new.items():
            before = old.get((topic, number), 0)
            key = (self.consumer, topic, number)
            if before == 0:
                session.run(
                    "INSERT INTO position (consumer, topic, partition, next) VALUES (?, ?, ?, 0) "
                    "ON CONFLICT DO NOTHING",
                    *key,
                )
            changed = session.run(
                "UPDATE position SET next = ? "
                "WHERE consumer = ? AND topic = ? AND partition = ? AND next = ?",
                *(offset, *key, before),
            )
            if not changed:
                found = first(
                    session.rows(
                        "SELECT next FROM position WHERE consumer = ? AND topic = ? AND partition = ?", *key
                    )
                )
                where = "nowhere" if found is None else found[0]
                raise FencedError(f"{self.consumer}: {topic}/{number} is at {where}, not at {before}")

    def set(self, session: Session, positions: Positions) -> None:
        """Move to other places, to replay or to skip."""
        for (topic, number), offset in positions.items():
            session.run(
                "INSERT INTO position (consumer, topic, partition, next) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (consumer, topic, partition) DO UPDATE SET next = excluded.next",
                *(self.consumer, topic, number, offset),
            )
