"""Keeps results: raw by day, sums by minute, hour and day.

Sums are made of what is kept, not counted up: a bucket that gets a late result is made anew. So nothing is
counted twice, whatever is read again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from yelpaze.bus.following import Effect, Follower
from yelpaze.bus.protocol import Bus, Record
from yelpaze.model.first_ended import first_ended
from yelpaze.model.notice import Report
from yelpaze.monitor.check import id_of
from yelpaze.monitor.config.settings import RetentionSettings
from yelpaze.monitor.records import RESULTS, Result, decoded
from yelpaze.monitor.storage.rollups import drop_old, roll_up
from yelpaze.monitor.tables import (
    DAY_MS,
    DIRTY,
    LAST,
    MINUTE,
    create_result_table,
    result_table,
)
from yelpaze.store.session import Row, Session, StoreUnavailable
from yelpaze.store.store import Store

_LATEST = (
    "(check_id, location) DO UPDATE SET slot = excluded.slot, success = excluded.success, "
    "status = excluded.status, duration = excluded.duration, detail = excluded.detail "
    "WHERE excluded.slot >= last_result.slot"
)
_ROLL_SECONDS = 5.0
_FEW = 1000  # results a second, up to which the current minute is summed up while it goes on
_DROP_SECONDS = 3600.0
_OLDEST_DAYS = 400  # results with another slot are of a clock that is wrong


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a result has beside its figures."""

    error: str = ""
    message: str = ""
    conditions: tuple[str, ...] = ()
    timings: tuple[float, float, float, float] | None = None
    certificate: int | None = None
    blind: bool = False
    missed: bool = False


_encode = msgspec.json.Encoder().encode


class StorageService:
    """Reads results and writes them to the store. `wall`: UNIX seconds."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        retention: RetentionSettings,
        report: Report,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._wall = wall
        self.retention = retention
        self._follower = Follower(bus, store, [RESULTS], "store", report)
        self.stored = 0

    async def run(self) -> None:
        """Follow the results until cancelled."""
        await first_ended(self._follower.run(self._handle, most=5000, wait=1.0), self._roll())

    async def _handle(self, records: list[Record]) -> Effect | None:
        if not records:
            return None
        results = [result for _, result in await decoded(self._bus, records, Result)]
        self.stored += len(results)
        return partial(self.write, results=results, now=int(self._wall() * 1000))

    def write(self, session: Session, results: Sequence[Result], now: int) -> None:
        """A unit of work: keep these results."""
        by_day: dict[int, list[Row]] = {}
        latest: dict[tuple[int, str], Row] = {}
        minutes: set[int] = set()
        oldest = now - _OLDEST_DAYS * DAY_MS
        for one in results:
            if not oldest < one.slot < now + DAY_MS:
                continue
            check_id, slot = id_of(one.check), one.slot
            detail = _detail_of(one)
            duration = int(one.duration * 1000)
            rest = (int(one.success), one.status, duration, detail)
            row = (check_id, slot, one.location, one.attempt, int(one.final), one.sent, *rest)
            by_day.setdefault(slot // DAY_MS, []).append(row)
            if one.final:
                minutes.add(slot - slot % MINUTE)
                key = check_id, one.location
                known = latest.get(key)
                if known is None or known[2] <= slot:
                    latest[key] = (*key, slot, *rest)
        for day, rows in by_day.items():
            self._create(session, day)
            session.insert(result_table(day), rows, ignore_known=True)
        # In one order everywhere, so that two that write the same rows do not wait for each other.
        session.insert(LAST, [latest[key] for key in sorted(latest)], conflict=_LATEST)
        session.insert(DIRTY, [("m", minute) for minute in sorted(minutes)], ignore_known=True)

    def _create(self, session: Session, day: int) -> None:
        # Asked for each time: a table that was there may have been dropped since, by any member.
        if session.rows("SELECT 1 FROM result_day WHERE day = ?", day):
            return
        for statement in create_result_table(day):
            session.run(statement)
        session.run("INSERT INTO result_day (day) VALUES (?) ON CONFLICT DO NOTHING", day)

    async def _roll(self) -> None:
        dropped_at, stored = float("-inf"), 0
        while True:
            await asyncio.sleep(_ROLL_SECONDS)
            if (RESULTS, 0) not in self._follower.assigned:
                continue  # another member does it
            now = self._wall()
            early = self.stored - stored < _ROLL_SECONDS * _FEW
            stored = self.stored
            with contextlib.suppress(StoreUnavailable):
                await self.roll_up(early=early)
                if now - dropped_at > _DROP_SECONDS:
                    dropped_at = now
                    await self._store.write(partial(drop_old, retention=self.retention, now=int(now * 1000)))

    async def roll_up(self, *, early: bool = False, everything: bool = False) -> None:
        """Make the sums that are due; with `early` the current minute's, with `everything` all."""
        more = True
        while more:
            now = int(self._wall() * 1000)
            more = await self._store.write(partial(roll_up, now=now, early=early, everything=everything))


def _detail_of(one: Result) -> str:
    if one.success and one.timings is None and one.certificate is None and not one.blind:
        return ""
    detail = Detail(
        one.error, one.message, one.conditions, one.timings, one.certificate, one.blind, one.missed
    )
    return _encode(detail).decode()
