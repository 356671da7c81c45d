"""Silences and maintenance that operators asked for: which checks they are about, and for how long."""

import time
from collections.abc import Callable, Mapping

import msgspec

from yelpaze.monitor.check import Check
from yelpaze.store.session import Session
from yelpaze.store.store import Store


class Silence(msgspec.Struct, frozen=True):
    """A silence, or a maintenance. Times are milliseconds since 1970."""

    id: str
    kind: str
    matchers: dict[str, str]
    since: int
    until: int
    by_whom: str = ""
    comment: str = ""

    def matches(self, check: Check, at: int) -> bool:
        """Whether it is about a check at that time; all matchers must hold."""
        return self.since <= at < self.until and matches(self.matchers, check)


def matches(matchers: Mapping[str, str], check: Check) -> bool:
    """Whether a check has these values of `key`, `group`, `name` or labels; `*` at the end is any rest."""
    labels = labels_of(check)
    for name, wanted in matchers.items():
        value = labels.get(name, "")
        if not (value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted):
            return False
    return bool(matchers)


def labels_of(check: Check) -> dict[str, str]:
    """What a check can be grouped and silenced by."""
    return {**dict(check.options.labels), "key": check.key, "group": check.group, "name": check.name}


def active(session: Session, at: int) -> list[Silence]:
    """Those that hold at a time, or later."""
    rows = session.rows(
        "SELECT id, kind, matchers, since, until, by_whom, comment FROM silence WHERE until > ? "
        "ORDER BY since, id",
        at,
    )
    return [Silence(row[0], row[1], msgspec.json.decode(row[2]), *row[3:]) for row in rows]


class Silences:
    """Those that are active, as last read."""

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall
        self._known: list[Silence] = []

    async def refresh(self) -> None:
        """Read them anew. Raises StoreUnavailable."""
        now = int(self._wall() * 1000)
        self._known = await self._store.read(lambda session: active(session, now))

    def maintains(self, check: Check, at: int) -> bool:
        """Whether a check is in maintenance."""
        return any(one.kind == "maintenance" and one.matches(check, at) for one in self._known)

    def silences(self, check: Check, at: int) -> bool:
        """Whether alarms of a check are not to be sent."""
        return any(one.matches(check, at) for one in self._known)
