"""Numbered shards, each leased to one process at a time, and divided evenly among those that are there.

A lease is (owner, epoch, until). Each new owner raises the epoch, and what an owner writes is refused once
its epoch is no longer the shard's: so a process that was frozen past its leases can do no harm when it wakes.
(Kleppmann, "How to do distributed locking", on fencing tokens.)
"""

from collections.abc import Collection

import msgspec

from yelpaze.store.migrations import Migrations
from yelpaze.store.session import Session, first

LEASES = Migrations(
    "lease",
    (
        """
        CREATE TABLE lease (
            name TEXT NOT NULL, number BIGINT NOT NULL, owner TEXT NOT NULL,
            epoch BIGINT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (name, number)
        );
        CREATE TABLE lease_owner (
            name TEXT NOT NULL, owner TEXT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (name, owner)
        )
        """,
    ),
)
_HELD = "name = ? AND owner = ? AND number IN ?? AND until > ?"
_FORGOTTEN = 100  # leases after which an owner is deleted
_LEASE = LEASES.table("lease")


class Renewal(msgspec.Struct, frozen=True):
    """The shards that are held, with their epochs; those of `leaving` are to be left to others soon."""

    epochs: dict[int, int]
    leaving: tuple[int, ...] = ()


class Leases(msgspec.Struct, frozen=True):
    """The leases of one owner on shards 0 … `count` - 1 of that name, each for `seconds`."""

    name: str
    count: int
    owner: str
    seconds: float

    def renew(self, session: Session, idle: Collection[int] = ()) -> Renewal:
        """Renew what is held, and take what is free up to a fair share. Call it every third of `seconds`.

        What is held beyond a fair share is given back if it is among `idle`: shards that the owner has been
        told to leave, and in which it has nothing under way.
        """
        now = session.lease_time()
        until = now + int(self.seconds * 1000)
        self._create(session)
        session.run(
            "INSERT INTO lease_owner (name, owner, until) VALUES (?, ?, ?) "
            "ON CONFLICT (name, owner) DO UPDATE SET until = excluded.until",
            *(self.name, self.owner, until),
        )
        # After a boot the clock begins anew: then leases end later than they can. Owners that were there a
        # moment ago are counted out, not deleted: those who delete each other would wait for each other.
        session.run(
            "DELETE FROM lease_owner WHERE name = ? AND (until <= ? OR until > ?)",
            *(self.name, now - int(_FORGOTTEN * self.seconds * 1000), until + 1000),
        )
        owners = session.rows(
            "SELECT owner FROM lease_owner WHERE name = ? AND until > ? ORDER BY owner", self.name, now
        )
        place = [owner for (owner,) in owners].index(self.owner)
        share = self.count // len(owners) + (place < self.count % len(owners))
        held = [
            number
            for (number,) in session.rows(
                "SELECT number FROM lease WHERE name = ? AND owner = ? AND until > ? ORDER BY number",
                *(self.name, self.owner, now),
            )
        ]
        excess = max(0, len(held) - share)
        surplus = [number for number in held if number in idle][:excess]
        kept = [number for number in held if number not in surplus]
        if surplus:
            session.run(
                "UPDATE lease SET until = 0 WHERE name = ? AND owner = ? AND number IN ??",
                *(self.name, self.owner, surplus),
            )
        if kept:
            session.run(
                "UPDATE lease SET until = ? WHERE name = ? AND owner = ? AND number IN ??",
                *(until, self.name, self.owner, kept),
            )
        if len(kept) < share:
            free = session.rows(
                "SELECT number FROM lease WHERE name = ? AND (until <= ? OR until > ?) ORDER BY number",
                *(self.name, now, until + 1000),
            )
            taken = [number for (number,) in free if number not in surplus][: share - len(kept)]
            if taken:
                # Two that take at once: the second finds that the lease has run for somebody since.
                session.run(
                    "UPDATE lease SET owner = ?, epoch = epoch + 1, until = ? "
                    "WHERE name = ? AND number IN ?? AND (until <= ? OR until > ?)",
                    *(self.owner, until, self.name, taken, now, until + 1000),
                )
        rows = session.rows(
            "SELECT number, epoch FROM lease WHERE name = ? AND owner = ? AND until > ?",
            *(self.name, self.owner, now),
        )
        return Renewal(dict(rows), tuple(kept[share:]))

    def held(self, session: Session, epochs: dict[int, int]) -> set[int]:
        """Those of the shards that are still held in these epochs, and stay so until the transaction ends."""
        now = session.lease_time()
        rows = session.rows(
            f"SELECT number, epoch FROM lease WHERE {_HELD}{session.for_share}",  # noqa: S608  texts of ours
            *(self.name, self.owner, sorted(epochs), now),
        )
        return {number for number, epoch in rows if epochs[number] == epoch}

    def release(self, session: Session) -> None:
        """Give all back: another process takes them at once."""
        session.run("UPDATE lease SET until = 0 WHERE name = ? AND owner = ?", self.name, self.owner)
        session.run("DELETE FROM lease_owner WHERE name = ? AND owner = ?", self.name, self.owner)

    def _create(self, session: Session) -> None:
        found = first(session.rows("SELECT count(*) FROM lease WHERE name = ?", self.name))
        if found is None or found[0] < self.count:
            rows = [(self.name, number, "", 0, 0) for number in range(self.count)]
            session.insert(_LEASE, rows, ignore_known=True)
