"""Turns transitions into alarms for channels: thresholds, groups, muting, reminders; exactly one is active.

    transitions, commands ──→ groups (store) ──due──→ notification (outbox) ──→ alarms (bus) ──→ hooks

All transitions are in one partition, so one process has it and sees parents and children together. Rows of
its state have versions: one that another process has changed meanwhile is not overwritten, but read anew.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from yelpaze.bus.following import Effect, Follower
from yelpaze.bus.positions import FencedError
from yelpaze.bus.protocol import Bus, BusUnavailable, Partition, Positions, Record
from yelpaze.model.first_ended import first_ended
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.alarm.groups import Group, Item, Notification, fire, flush, resolve
from yelpaze.monitor.alarm.texts import payload_of
from yelpaze.monitor.check import Alert, Check
from yelpaze.monitor.commands import apply
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.records import (
    ALARMS,
    COMMANDS,
    TRANSITIONS,
    Alarm,
    Command,
    Transition,
    decoded,
    record_of,
)
from yelpaze.monitor.silences import Silences, labels_of
from yelpaze.monitor.tables import NOTIFICATION
from yelpaze.store.session import Session, StoreUnavailable
from yelpaze.store.store import Store

_GROUP = "alarm"
_TICK_SECONDS = 0.25
_LOOK_AGAIN_MS = 1000
_EXPIRES_MS = 3_600_000
_GRACE_MS = 5_000
_AT_ONCE = 200
_MOST_KEY = 200
_STATE = "SELECT id, value, version FROM alert_state"
_decode_group = msgspec.json.Decoder(Group).decode
_decode_alarm = msgspec.json.Decoder(Alarm).decode


class Seen(msgspec.Struct, frozen=True):
    """The last transition of a check that was taken in: what comes again, or late, changes nothing."""

    incident: str
    since: int
    n: int
    is_open: bool

    def precedes(self, one: Transition) -> bool:
        """Whether a transition is news."""
        return one.n > self.n if one.incident == self.incident else one.since >= self.since


_decode_seen = msgspec.json.Decoder(Seen).decode


class AlarmService:
    """Alarms of all checks. `wall`: UNIX seconds."""

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
        self._config = config
        self._report = report
        self._wall = wall
        self._follower = Follower(bus, store, [TRANSITIONS, COMMANDS], _GROUP, report, self)
        self._silences = Silences(store, wall)
        self._groups: dict[str, Group] = {}
        self._seen: dict[str, Seen] = {}
        self._acked: set[str] = set()
        self._changed: set[str] = set()
        self._versions: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._is_active = False
        self._is_void = False  # another process has changed the state
        self._is_uncommitted = False  # a change of it is being written
        self._outbox = asyncio.Event()
        self.notified = 0

    def reconfigure(self, config: MonitorConfig) -> None:
        """Go on with another configuration."""
        self._config = config

    async def run(self) -> None:
        """Follow transitions and commands until cancelled."""
        await first_ended(self._follow(), self._tick(), self._send())

    async def _follow(self) -> None:
        await self._follower.run(self._handle, wait=0.25, committed=self._committed)

    # ── what is read ────────────────────────────────────────────────────────────

    async def _handle(self, records: list[Record]) -> Effect | None:
        if not records:
            return None
        transitions = [one for one in records if one.topic == TRANSITIONS]
        asked = [one for one in records if one.topic == COMMANDS]
        commands = [value for _, value in await decoded(self._bus, asked, Command)]
        now = self._now()
        async with self._lock:
            for _, transition in await decoded(self._bus, transitions, Transition):
                self._take(transition, now)
            for command in commands:
                if command.kind in ("ack", "unack"):
                    (self._acked.add if command.kind == "ack" else self._acked.discard)(command.incident)
            rows = self._rows()
            self._is_uncommitted = True

        def effect(session: Session) -> None:
            for command in commands:
                apply(session, command)
            _write(session, rows)

        if commands:
            asyncio.get_running_loop().call_later(0, self._refresh_soon)
        return effect

    def _committed(self) -> None:
        self._is_uncommitted = False

    def _refresh_soon(self) -> None:
        self._refreshing = asyncio.ensure_future(self._refresh())

    async def _refresh(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._silences.refresh()

    def _take(self, one: Transition, now: int) -> None:
        """Move the groups of a check's alerts; a transition that was taken before changes nothing."""
        seen = self._seen.get(one.check)
        if seen is not None and not seen.precedes(one):
            return
        self._seen[one.check] = Seen(one.incident, one.since, one.n, one.kind != "resolved")
        self._changed.add(f"seen:{one.check}")
        if one.kind == "resolved":
            self._acked.discard(one.incident)
        check = self._config.checks.get(one.check)
        for group, alert in self._alerts_of(check, one.check, everywhere=one.kind == "resolved"):
            item = group.items.get(one.check)
            fires = item is not None and not item.resolved
            if one.kind in ("down", "failing") and alert is not None and check is not None:
                if one.count >= alert.failure_threshold and not fires:
                    self._fire(group, check, alert, one, now)
            elif fires and item is not None and item.incident == one.incident and _ends(one, alert):
                resolve(group, one.check, one.at, one.reason or "probe_cleared", now, self._interval())
                self._changed.add(f"group:{group.key}")

    def _alerts_of(
        self, check: Check | None, key: str, *, everywhere: bool
    ) -> list[tuple[Group, Alert | None]]:
        """The groups that a check's alerts are in; `everywhere`: also those that they were in before."""
        if check is None:
            return [(group, None) for group in self._groups.values() if key in group.items]
        found: list[tuple[Group, Alert | None]] = []
        for alert in check.options.alerts:
            name = self._group_of(check, alert)
            group = self._groups.get(name)
            if group is None:
                group = self._groups[name] = Group(name, alert.channel)
            found.append((group, alert))
        if everywhere:
            now = {group.key for group, _ in found}
            before = (one for one in self._groups.values() if key in one.items and one.key not in now)
            found += [(group, None) for group in before]
        return found

    def _group_of(self, check: Check, alert: Alert) -> str:
        by = self._config.route.group_by
        if not by:
            return f"{alert.channel}|{check.key}"
        labels = labels_of(check)
        return "|".join([alert.channel, *(f"{name}={labels.get(name, '')}" for name in by)])

    def _interval(self) -> int:
        route = self._config.route
        return int(route.group_interval * 1000) if route.group_by else 0

    def _fire(self, group: Group, check: Check, alert: Alert, one: Transition, now: int) -> None:
        item = Item(
            check=check.key,
            incident=one.incident,
            since=one.since,
            message=one.message,
            conditions=one.conditions,
            locations=one.locations,
            status=one.status,
            description=alert.description,
            count=one.count,
            reminder=int(alert.reminder * 1000),
            send_on_resolved=alert.send_on_resolved,
            hold=self._hold(check, one.since, now),
        )
        fire(group, item, now, int(self._config.route.group_wait * 1000), self._interval())
        self._changed.add(f"group:{group.key}")

    def _hold(self, check: Check, since: int, now: int) -> int:
        """Until when an alarm is held: until the next slot of its parents must be known."""
        hold = 0
        for key in check.options.parents:
            parent = self._config.checks.get(key)
            if parent is None or parent.disabled:
                continue
            options = parent.options
            interval = int(options.interval * 1000)
            if not interval:
                continue
            phase = int(parent.phase() * 1000)
            due = since + (phase - since) % interval
            hold = max(hold, due + int(options.timeout * (1 + options.retries) * 1000) + _GRACE_MS)
        return hold if hold > now else 0

    def _is_open(self, key: str) -> bool:
        seen = self._seen.get(key)
        return seen is not None and seen.is_open

    def _is_muted(self, item: Item) -> bool:
        check = self._config.checks.get(item.check)
        if check is None:
            return True
        if item.sent and item.incident in self._acked:
            return True
        if any(self._is_open(parent) for parent in check.options.parents):
            return True
        return self._silences.silences(check, self._now())

    # ── what is due ─────────────────────────────────────────────────────────────

    async def _tick(self) -> None:
        refreshed_at = float("-inf")
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._is_active:
                continue
            now = self._wall()
            if now - refreshed_at > 1:
                refreshed_at = now
                await self._refresh()
            with contextlib.suppress(StoreUnavailable):  # the next look has it
                await self.look()

    async def look(self) -> None:
        """Send what is due."""
        async with self._lock:
            if self._is_uncommitted:
                return  # or its rows would be written before those that they follow
            if self._is_void:
                await self._load()
            now = self._now()
            alarms = []
            for group in list(self._groups.values()):
                if group.due is None or group.due > now:
                    continue
                before = (group.sent, group.due, len(group.items))
                notification = flush(group, now, self._is_muted, _LOOK_AGAIN_MS)
                if notification is not None:
                    alarms += self._alarm(group, notification, now)
                if (group.sent, group.due, len(group.items)) != before:
                    self._changed.add(f"group:{group.key}")
            rows = self._rows()
            if not alarms and not rows:
                return
            if not await self._keep(alarms, rows, now):
                return
        self.notified += len(alarms)
        if alarms:
            self._outbox.set()

    def _alarm(self, group: Group, notification: Notification, now: int) -> list[Alarm]:
        channel = self._config.channels.get(group.channel)
        if channel is None:
            return []  # it was taken out of the configuration
        payload = payload_of(notification, self._config.checks, channel, group.sent)
        key = group.key
        if len(key) > _MOST_KEY or not key.isprintable():  # hooks takes no other
            key = f"{group.channel}|{blake2b(key.encode(), digest_size=16).hexdigest()}"
        return [
            Alarm(
                event_id=f"{key}|{group.sent}",
                event_type=f"monitor.alarm.{payload['status']}",
                payload=payload,
                channels=(group.channel,),
                order_key=key,
                expires_at=datetime.fromtimestamp((now + _EXPIRES_MS) / 1000, UTC),
            )
        ]

    async def _keep(self, alarms: list[Alarm], rows: list[tuple[str, str, int]], now: int) -> bool:
        """Write groups and outbox; false if another member has done so, and all is read anew."""
        values = [(one.event_id, now, msgspec.json.encode(one).decode(), 0) for one in alarms]

        def work(session: Session) -> None:
            _write(session, rows)
            session.insert(NOTIFICATION, values)

        while True:
            try:
                await self._store.write(work)
            except FencedError:
                text = "alarm: another process is active; its state is read anew"
                self._report(Notice("alarm.fenced", text, Level.WARNING))
                self._is_void = True
                await self._load()
                return False
            except StoreUnavailable as error:
                self._report(Notice("store.unavailable", f"alarm: {error}", Level.WARNING))
                await asyncio.sleep(_TICK_SECONDS)
            else:
                return True

    def _rows(self) -> list[tuple[str, str, int]]:
        """What has changed: id, value, and the version that it replaces."""
        rows = []
        for key in sorted(self._changed):
            kind, _, name = key.partition(":")
            value = self._groups[name] if kind == "group" else self._seen[name]
            version = self._versions.get(key, 0)
            rows.append((key, msgspec.json.encode(value).decode(), version))
            self._versions[key] = version + 1
        self._changed.clear()
        return rows

    async def _send(self) -> None:
        """Publish the outbox."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._outbox.wait()
            self._outbox.clear()
            if not self._is_active:
                continue
            with contextlib.suppress(BusUnavailable, StoreUnavailable):
                while await self._publish_some():
                    pass

    async def _publish_some(self) -> bool:
        rows = await self._store.read(
            lambda session: session.rows(
                "SELECT id, value FROM notification WHERE published = 0 ORDER BY created, id LIMIT ?",
                _AT_ONCE,
            )
        )
        if not rows:
            return False
        alarms = [_decode_alarm(value) for _, value in rows]
        await self._bus.publish(ALARMS, [record_of(one) for one in alarms])
        ids = [name for name, _ in rows]
        await self._store.write(
            lambda session: session.run("UPDATE notification SET published = 1 WHERE id IN ??", ids)
        )
        return True

    # ── assignment ──────────────────────────────────────────────────────────────

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        if (TRANSITIONS, 0) in partitions:
            async with self._lock:
                await self._load()
            self._is_active = True
        return {}

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        if (TRANSITIONS, 0) in partitions:
            self._is_active = False

    async def _load(self) -> None:
        def read(session: Session) -> tuple[list[tuple[str, str, int]], list[str]]:
            rows = [(row[0], row[1], row[2]) for row in session.rows(_STATE)]
            acked = session.rows("SELECT id FROM incident WHERE acked IS NOT NULL AND until IS NULL")
            return rows, [name for (name,) in acked]

        rows, acked = await self._store.read(read)
        self._groups = {
            name.removeprefix("group:"): _decode_group(value)
            for name, value, _ in rows
            if name.startswith("group:")
        }
        self._seen = {
            name.removeprefix("seen:"): _decode_seen(value)
            for name, value, _ in rows
            if name.startswith("seen:")
        }
        self._versions = {name: version for name, _, version in rows}
        self._is_void = self._is_uncommitted = False
        self._acked = set(acked)
        self._changed.clear()
        await self._silences.refresh()

    def _now(self) -> int:
        return int(self._wall() * 1000)


def _ends(one: Transition, alert: Alert | None) -> bool:
    """Whether a transition ends an alarm."""
    if one.kind == "passing" and alert is not None:
        return one.count >= alert.success_threshold
    return one.kind == "resolved"


def _write(session: Session, rows: Sequence[tuple[str, str, int]]) -> None:
    """Write state. Raises FencedError if another process has changed it."""
    for name, value, version in rows:
        if version:
            sql = "UPDATE alert_state SET value = ?, version = version + 1 WHERE id = ? AND version = ?"
            changed = session.run(sql, value, name, version)
        else:
            sql = "INSERT INTO alert_state (id, value, version) VALUES (?, ?, 1) ON CONFLICT DO NOTHING"
            changed = session.run(sql, name, value)
        if changed != 1:
            raise FencedError(f"alarm: {name} was changed by another process")
