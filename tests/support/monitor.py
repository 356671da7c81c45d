"""A monitor's services over a real bus and store, with a clock of the test's own."""

import asyncio
import contextlib

from support.waiting import until_true
from yelpaze.bus.opening import open_bus
from yelpaze.bus.positions import POSITIONS
from yelpaze.monitor.alarm.service import AlarmService
from yelpaze.monitor.config.loading import config_of
from yelpaze.monitor.evaluate.service import EvaluateService
from yelpaze.monitor.records import (
    ALARMS,
    COMMANDS,
    RESULTS,
    TRANSITIONS,
    Alarm,
    Command,
    Heartbeat,
    Result,
    Transition,
    decode,
    record_of,
    topics,
)
from yelpaze.monitor.registry import write_checks
from yelpaze.monitor.storage.service import StorageService
from yelpaze.monitor.tables import MONITOR
from yelpaze.store.opening import open_store

START = 1_800_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE


def settings(*names, **more):
    """Checks each minute that alarm at the second failing slot, over the channel `webhook`."""
    alert = {"type": "webhook", "failure-threshold": 2, "success-threshold": 1, "send-on-resolved": True}
    endpoint = {"conditions": ["[STATUS] == 200"], "alerts": [alert], "group": "g"}
    endpoints = [
        {**endpoint, "name": name, "url": f"http://{name}.test/", **more.pop(name, {})} for name in names
    ]
    return {"alerting": {"webhook": {"url": "https://hook.test/"}}, "endpoints": endpoints, **more}


class World:
    """A bus, a store, a configuration and a clock; services are started and stopped by the test."""

    def __init__(self, bus, store, config):
        self.bus_name, self.store_name = bus, store
        self.config = config_of(config)
        self.now = START
        self.notices = []
        self._stack = contextlib.AsyncExitStack()
        self._running = {}

    async def __aenter__(self):
        bus = open_bus(self.bus_name)
        bus.wall = self.wall
        self.bus = await self._stack.enter_async_context(bus)
        self.store = await self._stack.enter_async_context(open_store(self.store_name, MONITOR, POSITIONS))
        await self.bus.create(topics(self.config.locations))
        await self.store.write(lambda session: write_checks(session, self.config, self.now))
        return self

    async def __aexit__(self, *_):
        for name in list(self._running):
            await self.stop(name)
        await self._stack.aclose()

    def wall(self):
        return self.now / 1000

    # ── services ────────────────────────────────────────────────────────────────

    def start(self, name, kind):
        options = {"wall": self.wall}
        if kind is StorageService:
            service = kind(self.bus, self.store, self.config.retention, self.notices.append, **options)
        else:
            service = kind(self.bus, self.store, self.config, self.notices.append, **options)
        self._running[name] = service, asyncio.ensure_future(service.run())
        return service

    async def stop(self, name):
        """As a kill would: nothing is drained."""
        _, task = self._running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def evaluate(self, name="evaluate"):
        return self.start(name, EvaluateService)

    def alarm(self, name="alarm"):
        return self.start(name, AlarmService)

    def storage(self, name="store"):
        return self.start(name, StorageService)

    # ── what is published ───────────────────────────────────────────────────────

    async def results(self, *given, at=None):
        """Results as (check, success) or (check, success, location), for the slot at `at` or now."""
        records = []
        slot = self.now if at is None else at
        for check, success, *rest in given:
            location = rest[0] if rest else "local"
            status = 200 if success else 500
            records.append(
                record_of(
                    Result(
                        check=check,
                        location=location,
                        slot=slot,
                        sent=self.now,
                        success=success,
                        status=status,
                        duration=12.5,
                        conditions=() if success else ("[STATUS] (500) == 200",),
                    )
                )
            )
        await self.bus.publish(RESULTS, records)

    async def beat(self, location, *, skew=0):
        beat = Heartbeat(location=location, probe="p", sent=self.now + skew)
        await self.bus.publish("locations", [record_of(beat)])

    async def command(self, kind, **fields):
        command = Command(id=f"c{self.now}-{kind}", kind=kind, at=self.now, **fields)
        await self.bus.publish(COMMANDS, [record_of(command)])
        return command

    def later(self, milliseconds=MINUTE):
        self.now += milliseconds

    # ── what came of it ─────────────────────────────────────────────────────────

    async def _all(self, topic, kind):
        async with self.bus.consume([topic], None, _FromStart()) as consumer:
            found = []
            while True:
                records, _ = await consumer.read(10_000, 0)
                if not records:
                    return found
                found += [decode(record, kind) for record in records]

    async def transitions(self):
        return await self._all(TRANSITIONS, Transition)

    async def alarms(self):
        return await self._all(ALARMS, Alarm)

    async def told(self):
        """What channels were told: (status, keys) of each alarm; those of one group are in order."""
        return [
            (one.payload["status"], sorted(alarm["key"] for alarm in one.payload["alarms"]))
            for one in await self.alarms()
        ]

    async def until_folded(self, service, count):
        await until_true(lambda: service.folded >= count)

    async def until_told(self, count):
        while len(await self.alarms()) < count:
            await asyncio.sleep(0.02)

    async def read(self, sql, *parameters):
        return await self.store.read(lambda session: session.rows(sql, *parameters))


class _FromStart:
    async def on_assigned(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def on_revoked(self, partitions):
        pass
