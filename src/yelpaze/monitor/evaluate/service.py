"""Reads results and tells what changes: the fold over each check, its snapshots, the transitions.

    results ──→ fold ──→ transition, incident (store) ──→ transitions (bus) ──→ alarm
                  └──→ a request to the other locations, when a failure is to be confirmed

Snapshots of the states are written every few seconds with the offset that they stand for. After a kill, or
when another member takes a partition over, the fold goes on from there: it gives the same transitions, which
have the same ids.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from yelpaze.bus.positions import FencedError, StoredPositions
from yelpaze.bus.protocol import Bus, BusUnavailable, NewRecord, Partition, Positions, Record
from yelpaze.model.first_ended import first_ended
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.evaluate.fold import CheckState, Input, Rules, close, fold
from yelpaze.monitor.evaluate.incidents import mark_published, unpublished, write_transitions
from yelpaze.monitor.evaluate.skews import Skews
from yelpaze.monitor.records import (
    LOCATIONS,
    RESULTS,
    TRANSITIONS,
    Heartbeat,
    ProbeRequest,
    Result,
    Transition,
    decoded,
    probe_topic,
    record_of,
)
from yelpaze.monitor.silences import Silences
from yelpaze.monitor.tables import PLACE
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

_GROUP = "evaluate"
_SNAPSHOT_SECONDS = 10.0
_SWEEP_SECONDS = 5.0
_SWEPT_AFTER = 10_000
_AGAIN_SECONDS = 0.5
_CONFIRM_MS = 30_000
_SNAPSHOT = dict[str, CheckState]
_decode_states = msgspec.msgpack.Decoder(_SNAPSHOT).decode
_encode_states = msgspec.msgpack.Encoder().encode


class EvaluateService:
    """The verdicts over the checks of the partitions that this process reads."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        config: MonitorConfig,
        report: Report,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._report = report
        self._wall = wall
        self._config = config
        self._rules: dict[str, Rules] = {}
        self._states: dict[Partition, _SNAPSHOT] = {}
        self._next: dict[Partition, int] = {}  # the offset after what is folded in
        self._kept: dict[Partition, int] = {}  # that of the last snapshot
        self._stored = StoredPositions(_GROUP)
        self._silences = Silences(store, wall)
        self._superseded: list[str] = []
        self._fenced: set[Partition] = set()  # ours, and void
        self._folding = asyncio.Lock()
        self.skews = Skews()
        self.folded = 0
        self.transitions = 0

    def reconfigure(self, config: MonitorConfig) -> None:
        """Go on with another configuration; incidents of checks that are gone end as superseded."""
        before, self._config = self._config, config
        self._superseded += [key for key in before.checks if self._is_gone(key)]
        self._rules.clear()

    async def run(self) -> None:
        """Follow the results until cancelled."""
        await first_ended(self._follow(), self._listen(), self._keep())

    async def _follow(self) -> None:
        is_away = False
        while True:
            try:
                async with self._bus.consume([RESULTS], _GROUP, self) as consumer:
                    while True:
                        records, ack = await consumer.read(5000, 0.5)
                        if is_away:
                            is_away = False
                            self._report(Notice("bus.available", "evaluate goes on"))
                        await self.take(records)
                        with contextlib.suppress(BusUnavailable):
                            await ack()
                        if self._fenced:  # begin anew with what is stored
                            self._fenced.clear()
                            break
            except (BusUnavailable, StoreUnavailable) as error:
                if not is_away:
                    is_away = True
                    self._report(Notice("bus.unavailable", f"evaluate: {error}; trying again", Level.WARNING))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def take(self, records: Sequence[Record]) -> None:
        """Fold records in, and write and publish what they bring."""
        results = await decoded(self._bus, records, Result)
        async with self._folding:
            found: list[Transition] = []
            for record, result in results:
                found += self._fold(record, result)
            for record in records:
                self._next[record.topic, record.partition] = record.offset + 1
            found += self._end_superseded()
            if found:
                await self._write(found)
        if found:
            with contextlib.suppress(BusUnavailable):  # the outbox has them
                await self._publish(found)
                await self._confirm(found)

    def _fold(self, record: Record, result: Result) -> list[Transition]:
        check = self._config.checks.get(result.check)
        states = self._states.get((record.topic, record.partition))
        if check is None or check.disabled or states is None:
            return []
        rules = self._rules.get(check.key)
        if rules is None:
            rules = self._rules[check.key] = Rules.of(check)
        state = states.get(check.key)
        if state is None:
            state = states[check.key] = CheckState()
        skew = 0 if result.request else self.skews.of(result.location)  # what was asked for has our time
        given = Input(result, record.at, skew)
        self.folded += 1
        if self._is_in_maintenance(check, (result.slot - given.skew) / 1000):
            return close(state, given, rules, "maintenance")
        return fold(state, given, rules)

    def _is_in_maintenance(self, check: Check, at: float) -> bool:
        if check.options.windows and check.in_maintenance(at):
            return True
        if self._config.windows and any(window.contains(at) for window in self._config.windows):
            return True
        return self._silences.maintains(check, int(at * 1000))

    def _is_gone(self, key: str) -> bool:
        check = self._config.checks.get(key)
        return check is None or bool(check.disabled)

    def _end_superseded(self) -> list[Transition]:
        """The ends of incidents whose checks are gone."""
        found: list[Transition] = []
        gone, self._superseded = self._superseded, []
        now = int(self._wall() * 1000)
        for states in self._states.values():
            for key in gone:
                state = states.pop(key, None)
                if state is not None and state.state != "up":
                    result = Result(check=key, location="", slot=now, sent=now)
                    rules = Rules(key, 1, 0, 1, 1, (1,), (1,))
                    found += close(state, Input(result, now), rules, "superseded")
        return found

    # ── what the fold brings ────────────────────────────────────────────────────

    async def _write(self, found: list[Transition]) -> None:
        self.transitions += len(found)
        while True:
            try:
                await self._store.write(partial(write_transitions, transitions=found))
            except StoreUnavailable as error:
                self._report(Notice("store.unavailable", f"evaluate: {error}", Level.WARNING))
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _publish(self, found: Sequence[Transition]) -> None:
        await self._bus.publish(TRANSITIONS, [record_of(one) for one in found])
        await self._store.write(partial(mark_published, ids=[one.id for one in found]))

    async def _confirm(self, found: Sequence[Transition]) -> None:
        """Ask the other locations to look at once."""
        by_location: dict[str, list[NewRecord]] = {}
        now = int(self._wall() * 1000)
        for one in found:
            check = self._config.checks.get(one.check)
            if one.kind != "seems_down" or check is None or now - one.at > _CONFIRM_MS:
                continue
            for location in check.options.locations:
                if location not in one.locations and check.options.kind != "push":
                    request = ProbeRequest(check=one.check, slot=one.at, id=one.id, expires=now + _CONFIRM_MS)
                    by_location.setdefault(location, []).append(record_of(request))
        for location, records in by_location.items():
            await self._bus.publish(probe_topic(location), records)

    # ── snapshots ───────────────────────────────────────────────────────────────

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        def read(session: Session) -> tuple[dict[Partition, int], dict[Partition, bytes]]:
            positions = self._stored.of(session, partitions)
            rows = session.rows(
                "SELECT topic, partition, state FROM fold_state WHERE topic = ? AND partition IN ??",
                *(RESULTS, [number for _, number in partitions]),
            )
            return positions, {(topic, number): bytes(state) for topic, number, state in rows}

        positions, snapshots = await self._store.read(read)
        for one in partitions:
            self._states[one] = _decode_states(snapshots[one]) if one in snapshots else {}
            self._next[one] = self._kept[one] = positions.get(one, 0)
            # Checks that were taken out while nobody had the partition.
            self._superseded += [
                key for key, state in self._states[one].items() if state.state != "up" and self._is_gone(key)
            ]
        return positions

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        await self.snapshot(partitions)
        self._fenced -= set(partitions)
        for one in partitions:
            for known in (self._states, self._next, self._kept):
                known.pop(one, None)

    async def _keep(self) -> None:
        """Write a snapshot of each partition every few seconds, one after the other."""
        swept_at = float("-inf")
        while True:
            with contextlib.suppress(StoreUnavailable, BusUnavailable):
                await self._silences.refresh()
                if self._wall() - swept_at > _SWEEP_SECONDS and (RESULTS, 0) in self._states:
                    swept_at = self._wall()
                    await self._sweep()
            partitions = list(self._states)
            for one in partitions:
                await asyncio.sleep(_SNAPSHOT_SECONDS / len(partitions))
                with contextlib.suppress(StoreUnavailable):
                    await self.snapshot([one])
            if not partitions:
                await asyncio.sleep(1.0)

    async def drain(self) -> None:
        """Write all snapshots, so that the next start has little to read."""
        await self.snapshot(list(self._states))

    async def snapshot(self, partitions: Sequence[Partition]) -> None:
        """Write the states of partitions, if they have changed; never before their transitions."""
        async with self._folding:
            await self._snapshot(partitions)

    async def _snapshot(self, partitions: Sequence[Partition]) -> None:
        for one in partitions:
            states, upto, kept = self._states.get(one), self._next.get(one, 0), self._kept.get(one, 0)
            if states is None or upto == kept:
                continue
            encoded = _encode_states(states)
            try:
                await self._store.write(
                    partial(self._write_snapshot, one=one, kept=kept, upto=upto, state=encoded)
                )
            except FencedError as error:
                stored = await self._store.read(partial(self._stored.of, partitions=[one]))
                if stored.get(one) == upto:  # it was done, and the answer was lost
                    self._kept[one] = upto
                    continue
                self._report(Notice("evaluate.fenced", str(error), Level.WARNING))
                self._states.pop(one, None)
                self._fenced.add(one)
            except StoreUnavailable:
                pass  # the next one has it
            else:
                self._kept[one] = upto

    def _write_snapshot(self, session: Session, one: Partition, kept: int, upto: int, state: bytes) -> None:
        self._stored.advance(session, {one: kept}, {one: upto})
        session.run(
            "INSERT INTO fold_state (topic, partition, state) VALUES (?, ?, ?) "
            "ON CONFLICT (topic, partition) DO UPDATE SET state = excluded.state",
            *(*one, state),
        )

    async def _sweep(self) -> None:
        """Publish what was written and perhaps not published, by whoever was killed in between."""
        before = int(self._wall() * 1000) - _SWEPT_AFTER
        found = await self._store.read(partial(unpublished, before=before))
        if found:
            await self._publish(found)

    # ── locations ───────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        """Follow the heartbeats of locations: each process needs all."""
        while True:
            with contextlib.suppress(BusUnavailable, StoreUnavailable):
                async with self._bus.consume([LOCATIONS]) as consumer:
                    while True:
                        records, _ = await consumer.read(1000, 1.0)
                        await self.take_heartbeats(records)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def take_heartbeats(self, records: Sequence[Record]) -> None:
        """Learn the clocks of locations, and note that they are there."""
        rows = {}
        for record, beat in await decoded(self._bus, records, Heartbeat):
            self.skews.add(beat.location, beat.sent, record.at)
            rows[beat.location, beat.probe] = (
                *(beat.location, beat.probe, record.at, int(beat.blind)),
                *(beat.sent - record.at, int(beat.late), beat.checks),
            )
        if rows and (RESULTS, 0) in self._states:
            conflict = (
                "(name, probe) DO UPDATE SET seen = excluded.seen, blind = excluded.blind, "
                "skew = excluded.skew, late = excluded.late, checks = excluded.checks"
            )
            values = [rows[key] for key in sorted(rows)]
            await self._store.write(lambda session: session.insert(PLACE, values, conflict=conflict))
