"""The probe of a location: makes the checks of its share when they are due, and publishes what they came to.

    Schedule ──due──→ Checker ──Verdict──→ Result ──→ results (bus)
                         └ a failure is checked again at once

Its share are the partitions of `probe.LOCATION` that it reads; requests to check now come on them, too.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

import msgspec

from yelpaze.bus.protocol import Bus, BusUnavailable, NewRecord, Partition, Positions
from yelpaze.model.histogram import Histogram
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.probe.blindness import Blindness
from yelpaze.monitor.probe.checker import Checker, Verdict
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.schedule import TICK, Entry, Schedule
from yelpaze.monitor.records import (
    LOCATIONS,
    RESULTS,
    Heartbeat,
    ProbeRequest,
    Result,
    decoded,
    probe_topic,
    record_of,
    shard_of,
)

_HEARTBEAT_SECONDS = 5.0
_FLUSH_SECONDS = 0.1
_FLUSH_AT = 1000
_MOST_KEPT = 200_000
_AT_ONCE = 2000
_AGAIN_SECONDS = 0.5


class ProbeTotals(msgspec.Struct, frozen=True):
    """Counts of a probe. `late`: seconds between a slot and its start."""

    checks: int = 0
    made: int = 0
    failed: int = 0
    skipped: int = 0
    running: int = 0
    dropped: int = 0
    blind: bool = False
    late: dict[str, float] = {}


class Prober:
    """Makes the checks of a location. `wall`: UNIX seconds. An async context manager is not needed: `run`."""

    def __init__(
        self,
        bus: Bus,
        config: MonitorConfig,
        location: str,
        report: Report,
        *,
        concurrency: int = _AT_ONCE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._config = config
        self.location = location
        self._report = report
        self._concurrency = concurrency
        self._wall = wall
        self._schedule = Schedule()
        self._shards: set[int] = set()
        self._blindness = Blindness()
        self._buffer: deque[NewRecord] = deque()
        self._full = asyncio.Event()
        self._checker: Checker | None = None
        self._reconfiguring: asyncio.Task[None] | None = None
        self._late = Histogram()
        self._late_before = Histogram()
        self._is_draining = False
        self._id = f"{os.uname().nodename}-{os.getpid()}"
        self.made = self.failed = self.skipped = self.running = self.dropped = 0
        self.last: dict[str, Result] = {}
        self.keeps_last = False  # the last result of each check, for metrics

    def totals(self) -> ProbeTotals:
        """The counts, as they stand."""
        return ProbeTotals(
            len(self._schedule),
            self.made,
            self.failed,
            self.skipped,
            self.running,
            self.dropped,
            self._blindness.is_blind,
            self._late_before.merged(self._late).counts(),
        )

    @property
    def is_ready(self) -> bool:
        """Whether it has a share."""
        return bool(self._shards) and not self._is_draining

    async def run(self) -> None:
        """Check until cancelled."""
        config = self._config
        checks = config.checks.values()
        async with Checker(checks, self._concurrency, config.allow, self._report, self._wall) as checker:
            self._checker = checker
            parts = (self._follow(), self._tick(), self._flush_always(), self._beat(), self._watch_network())
            tasks = [asyncio.ensure_future(one) for one in parts]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            finally:
                for one in tasks:
                    one.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                with contextlib.suppress(BusUnavailable):
                    await self._flush()

    async def drain(self, seconds: float) -> None:
        """Start no more checks, and wait for those under way."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.running:  # noqa: ASYNC110  many callbacks count it down
                    await asyncio.sleep(TICK)
        with contextlib.suppress(BusUnavailable):
            await self._flush()

    def reconfigure(self, config: MonitorConfig) -> None:
        """Go on with another configuration; checks that stay keep their phase."""
        self._reconfiguring = asyncio.ensure_future(self._reconfigure(config))

    async def _reconfigure(self, config: MonitorConfig) -> None:
        if self._checker is not None:
            await self._checker.prepare(config.checks.values())
        if config.allow != self._config.allow:
            text = "another setting of allow takes effect at the next start"
            self._report(Notice("config.later", text, Level.WARNING))
        self._config = config
        wanted = {check.key: check for check in self._mine()}
        for key in [key for key in self._schedule.keys() if key not in wanted]:  # noqa: SIM118  it has no iterator
            self._schedule.remove(key)
        self._schedule.add(wanted.values(), self._wall())

    def _mine(self, shards: set[int] | None = None) -> list[Check]:
        wanted = self._shards if shards is None else shards
        return [
            check
            for check in self._config.enabled()
            if check.options.kind != "push"
            and self.location in check.options.locations
            and shard_of(check.key) in wanted
        ]

    # ── the share ───────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        topic = probe_topic(self.location)
        while True:
            try:
                async with self._bus.consume([topic], topic, self) as consumer:
                    while True:
                        records, ack = await consumer.read(1000, 1.0)
                        for _, asked in await decoded(self._bus, records, ProbeRequest):
                            self._check_now(asked)
                        if records:
                            with contextlib.suppress(BusUnavailable):
                                await ack()
            except BusUnavailable as error:
                # What it has it goes on with: results are kept until the brokers are back.
                self._report(Notice("bus.unavailable", f"probe: {error}; trying again", Level.WARNING))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        numbers = {number for _, number in partitions}
        self._shards |= numbers
        self._schedule.add(self._mine(numbers), self._wall())
        # What was asked before it had them is out of date.
        return await self._bus.offsets_at(probe_topic(self.location), int(self._wall() * 1000) - 5000)

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        numbers = {number for _, number in partitions}
        self._shards -= numbers
        for check in self._mine(numbers):
            self._schedule.remove(check.key)

    def _check_now(self, asked: ProbeRequest) -> None:
        entry = self._schedule.get(asked.check)
        if entry is not None and asked.expires > self._wall() * 1000 and not entry.is_running:
            self._start(entry, asked.slot / 1000, asked.id)

    # ── checks ──────────────────────────────────────────────────────────────────

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = self._wall()
            if self._is_draining:
                continue
            for entry, slot in self._schedule.due(now):
                if entry.is_running:
                    self.skipped += 1
                    continue
                if now - slot < entry.check.options.interval:  # not the first one, which is late on purpose
                    self._late.add(max(0.0, now - slot))
                self._start(entry, slot)

    def _start(self, entry: Entry, slot: float, request: str = "", attempt: int = 1) -> None:
        assert self._checker is not None
        entry.is_running = True
        self.running += 1
        self._checker.start(entry, partial(self._done, entry, slot, request, attempt))

    def _done(self, entry: Entry, slot: float, request: str, attempt: int, verdict: Verdict) -> None:
        entry.is_running = False
        self.running -= 1
        check, now = entry.check, self._wall()
        options, reply, success = check.options, verdict.reply, verdict.success
        again = not success and attempt <= options.retries and not self._is_draining
        blind = self._blindness.add(_host_of(check), now, success=success) if not again else False
        result = Result(
            check=check.key,
            location=self.location,
            slot=round(slot * 1000),
            sent=int(now * 1000),
            attempt=attempt,
            final=not again,
            success=success,
            status=reply.answer.status,
            error=reply.error,
            message=_shown(check, reply),
            conditions=()
            if options.hide_conditions
            else tuple(one.text for one in verdict.conditions if not one.success),
            duration=round(reply.duration, 3),
            timings=reply.timings if reply.timings is None else _rounded(reply.timings),
            certificate=None if reply.certificate is None else int(reply.certificate * 1000),
            blind=blind,
            request=request,
            config=self._config.hash,
        )
        self.made += 1
        self.failed += not success
        if self.keeps_last and result.final:
            self.last[check.key] = result
        self._buffer.append(record_of(result))
        if len(self._buffer) >= _FLUSH_AT:
            self._full.set()
        if again and self._schedule.get(check.key) is entry:
            self._start(entry, slot, request, attempt + 1)

    # ── what is published ───────────────────────────────────────────────────────

    async def _flush_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._full.wait()
            self._full.clear()
            try:
                await self._flush()
            except BusUnavailable as error:
                self._report(Notice("bus.unavailable", f"probe: {error}", Level.WARNING))
                self._make_room()
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _flush(self) -> None:
        while self._buffer:
            records = list(self._buffer)
            self._buffer.clear()
            try:
                await self._bus.publish(RESULTS, records)
            except (BusUnavailable, asyncio.CancelledError):
                self._buffer.extendleft(reversed(records))
                raise

    def _make_room(self) -> None:
        """Drop the oldest successes beyond what memory is meant to hold."""
        excess = len(self._buffer) - _MOST_KEPT
        if excess <= 0:
            return
        kept: deque[NewRecord] = deque()
        for record in self._buffer:
            if excess > 0 and record.is_droppable:
                excess -= 1
                self.dropped += 1
            else:
                kept.append(record)
        self._buffer = kept

    async def _beat(self) -> None:
        while True:
            beat = Heartbeat(
                location=self.location,
                probe=self._id,
                sent=int(self._wall() * 1000),
                blind=self._blindness.look(self._wall()),
                checks=len(self._schedule),
                late=round(self._late.quantile(0.99) * 1000, 1),
            )
            self._late_before = self._late_before.merged(self._late)
            self._late = Histogram()
            with contextlib.suppress(BusUnavailable):
                await self._bus.publish(LOCATIONS, [record_of(beat)])
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _watch_network(self) -> None:
        """Look whether a given address can be reached; while it cannot, the location is offline."""
        while True:
            checker = self._config.connectivity.checker
            if checker.target:
                self._blindness.is_offline = not await _is_reachable(checker.target)
            await asyncio.sleep(float(checker.interval) if checker.target else 60.0)


async def _is_reachable(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(5.0):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _shown(check: Check, reply: Reply) -> str:
    """The message of a failure, without what is hidden."""
    options = check.options
    if options.hide_errors or not options.hide_url:
        return "" if options.hide_errors else reply.message
    message = reply.message
    for one in (_host_of(check), urlsplit(check.url).hostname, reply.answer.ip):
        message = message.replace(one, "<redacted>") if one else message
    return message


def _host_of(check: Check) -> str:
    return check.url.partition("://")[2].partition("/")[0]


def _rounded(times: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return (round(times[0], 3), round(times[1], 3), round(times[2], 3), round(times[3], 3))
