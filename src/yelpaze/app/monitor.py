"""`yelpaze monitor`: its services, alone or all in one process; they meet on the bus only.

probe       makes the checks of a location
store       keeps results
evaluate    folds them into incidents
alarm       tells channels, through hooks
web         API, metrics and pages; push checks; what operators ask for
hooks       delivers alarms, in `monitor run`
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from yelpaze.app.monitor_web import MonitorWeb
from yelpaze.app.web_server import WebServer, listening_at
from yelpaze.bus.opening import open_bus
from yelpaze.bus.positions import POSITIONS
from yelpaze.bus.protocol import Bus, BusUnavailable
from yelpaze.config.loader import load
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.intake import Intake
from yelpaze.hooks.settings import HOOKS_SETTINGS, HooksSettings
from yelpaze.hooks.values import EndpointIn, EndpointTls
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.alarm.service import AlarmService
from yelpaze.monitor.config.loading import load_monitor
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.config.providers import Channel
from yelpaze.monitor.evaluate.service import EvaluateService
from yelpaze.monitor.options import MonitorOptions, Role
from yelpaze.monitor.probe.prober import Prober
from yelpaze.monitor.pushes import PushWatch
from yelpaze.monitor.records import APPLICATION, topics
from yelpaze.monitor.registry import write_checks
from yelpaze.monitor.storage.service import StorageService
from yelpaze.monitor.tables import MONITOR
from yelpaze.observe.monitor import MonitorSnapshot
from yelpaze.process.descriptors import capacity
from yelpaze.process.garbage import run_gc_less_often
from yelpaze.store.opening import is_postgres, open_store
from yelpaze.store.session import StoreUnavailable
from yelpaze.store.store import Store

EMBEDDED: tuple[Role, ...] = ("store", "evaluate", "alarm", "hooks", "web", "probe")
_LOOK_SECONDS = 2.0
_MOST_METRICS = 10_000
_OPEN_AGAIN = 1.0


class MonitorPart:
    """Some services of a monitor in this process, as a part of a service. `wall`: UNIX seconds."""

    def __init__(
        self, options: MonitorOptions, report: Report, wall: Callable[[], float] = time.time
    ) -> None:
        self._options = options
        self._report = report
        self._wall = wall
        self._stack = contextlib.AsyncExitStack()
        self._config: MonitorConfig
        self._changed_at: dict[Path, int] | None = None
        self._works: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._tasks: list[asyncio.Future[None]] = []
        self._reconfigured: list[Callable[[MonitorConfig], None]] = []
        self._server: WebServer | None = None
        self._hooks: Hooks | None = None
        self._channels: Hooks | None = None
        self._is_serving = False
        self._bus: Bus
        self._store: Store | None = None
        self._probing: asyncio.Task[None] | None = None
        self.probers: list[Prober] = []
        self.web: MonitorWeb | None = None
        self.evaluate: EvaluateService | None = None
        self.storage: StorageService | None = None
        self.alarm: AlarmService | None = None
        self.url = ""
        self.registry: CollectorRegistry | None = None  # for /metrics beside the pages

    @property
    def config(self) -> MonitorConfig:
        """The configuration that is in force."""
        return self._config

    @property
    def is_ready(self) -> bool:
        server = self._server
        return self._is_serving and (server is None or server.is_serving)

    async def start(self) -> Sequence[Notice]:
        options = self._options
        self._config = await asyncio.to_thread(load_monitor, [Path(one) for one in options.files])
        for warning in self._config.warnings:
            self._report(Notice("config.warning", warning, Level.WARNING))
        self._note_files()
        run_gc_less_often()
        sock = None
        if options.address is not None:
            sock = listening_at(options.address, None)
            self._stack.callback(sock.close)
        if set(options.roles) - {"probe"}:
            store = open_store(options.store, MONITOR, POSITIONS)
            self._store = await self._stack.enter_async_context(store)
        self._bus = await self._opened_bus()
        await self._bus.create(topics(self._config.locations))
        if self._store is not None:
            now = int(self._wall() * 1000)
            await self._store.write(partial(write_checks, config=self._config, now=now))
        for role in options.roles:
            await self._add(role)
        if sock is not None and self.web is not None:
            self._server = WebServer(self.web.app(self.registry), sock)
            await self._server.start()
            assert options.address is not None
            self.url = f"http://{options.address.at(sock.getsockname()[1]).text}"
        self._is_serving = True
        return [self._ready()]

    def _ready(self) -> Notice:
        count = sum(1 for _ in self._config.enabled())
        what = _checks(count)
        where = f" at {self.url}" if self.url else ""
        text = f"monitor{where}, {capacity()}; {', '.join(self._options.roles)}; {what}"
        return Notice("ready", text, data={"url": self.url, "checks": count})

    async def _opened_bus(self) -> Bus:
        """The bus; while its brokers are away, it is tried again."""
        is_away = False
        while True:
            bus = open_bus(self._options.bus, self._report)
            try:
                return await self._stack.enter_async_context(bus)
            except BusUnavailable as error:
                if not is_away:
                    is_away = True
                    self._report(Notice("bus.unavailable", f"{error}; trying again", Level.WARNING))
                await asyncio.sleep(_OPEN_AGAIN)

    async def _add(self, role: Role) -> None:
        bus, config, report, wall = self._bus, self._config, self._report, self._wall
        if role == "probe":
            for location in self._options.locations or config.locations:
                if location not in config.locations:
                    known = ", ".join(config.locations)
                    raise InputError(f"--location {location}: there is no such location; there are {known}")
                self._works.append(self._new_prober(location).run)
            return
        store = self._store
        assert store is not None
        match role:
            case "store":
                self.storage = StorageService(bus, store, config.retention, report, wall)
                self._works.append(self.storage.run)
            case "evaluate":
                self.evaluate = EvaluateService(bus, store, config, report, wall)
                self._works.append(self.evaluate.run)
                self._reconfigured.append(self.evaluate.reconfigure)
            case "alarm":
                self.alarm = AlarmService(bus, store, config, report, wall)
                self._works.append(self.alarm.run)
                self._reconfigured.append(self.alarm.reconfigure)
                if config.channels and "hooks" not in self._options.roles:
                    hooks = Hooks(settings=self._hooks_settings(), deliver=False)
                    self._channels = await self._stack.enter_async_context(hooks)
                    await self._set_channels(config)
            case "hooks":
                self._hooks = Hooks(settings=self._hooks_settings(), report=report)
                self._channels = await self._stack.enter_async_context(self._hooks)
                await self._set_channels(config)
                intake = Intake(bus, self._hooks, report)
                self._works += [self._hooks.run, intake.run]
            case "web":
                self.web = MonitorWeb(bus, store, config, report, wall, lambda: self.is_ready)
                await self._stack.enter_async_context(self.web)
                watch = PushWatch(bus, store, config, wall)
                self._works += [self.web.run, watch.run]
                self._reconfigured += [self.web.reconfigure, watch.reconfigure]

    def _new_prober(self, location: str) -> Prober:
        config, concurrency = self._config, self._options.concurrency
        prober = Prober(self._bus, config, location, self._report, concurrency=concurrency, wall=self._wall)
        prober.keeps_last = config.metrics and len(config.checks) <= _MOST_METRICS
        self.probers.append(prober)
        self._reconfigured.append(prober.reconfigure)
        return prober

    def _hooks_settings(self) -> HooksSettings:
        name = self._options.hooks_store or self._options.store
        if not self._options.hooks_store and not is_postgres(name):
            path = Path(name.removeprefix("sqlite:///"))
            name = str(path.with_name(f"{path.stem}-hooks{path.suffix}"))
        return load(HOOKS_SETTINGS, None, {"store": name})

    async def _set_channels(self, config: MonitorConfig) -> None:
        if self._channels is not None:
            wanted = {channel.uid: endpoint_of(channel) for channel in config.channels.values()}
            await self._channels.configure(APPLICATION, "Alarms of the monitor", wanted, "alerting.")

    async def run(self) -> None:
        """Until one of them ends. They outlive it: checks under way have results to be sent."""
        works = [work() for work in self._works]
        if self._server is not None:
            works.append(self._server.run())
        self._tasks = [asyncio.ensure_future(work) for work in (*works, self._watch())]
        try:
            while True:  # a reload may bring more of them
                done, _ = await asyncio.wait(
                    self._tasks, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for one in done:
                    return one.result()
        except BusUnavailable as error:
            raise StoppedError(str(error)) from None

    async def _end_tasks(self) -> None:
        for one in self._tasks:
            one.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def snapshot(self) -> MonitorSnapshot:
        """What this process has to tell, for metrics; called from any thread."""
        checks = self._config.checks if self._is_serving else {}
        results = [
            (checks[key], result)
            for prober in self.probers
            for key, result in list(prober.last.items())
            if key in checks
        ]
        probes = {prober.location: prober.totals() for prober in self.probers}
        counters = {}
        if self.storage is not None:
            counters["results_stored"] = self.storage.stored
        if self.evaluate is not None:
            counters["results_evaluated"] = self.evaluate.folded
            counters["transitions"] = self.evaluate.transitions
        if self.alarm is not None:
            counters["notifications"] = self.alarm.notified
        return MonitorSnapshot(results, probes, counters)

    def under_way(self) -> str:
        running = sum(prober.running for prober in self.probers)
        what = f"{running} check{'s' if running != 1 else ''}"
        return f"{what}, up to {self._options.grace:g} s" if running else ""

    async def drain(self) -> None:
        self._is_serving = False
        await asyncio.gather(*(prober.drain(self._options.grace) for prober in self.probers))
        if self.web is not None:
            await self.web.close_pages()  # an open page is a request that does not end
        if self._server is not None:
            await self._server.drain()
        await self._end_tasks()
        if self.evaluate is not None:
            await self.evaluate.drain()
        if self._hooks is not None:
            await self._hooks.drain(self._options.grace)

    async def close(self) -> None:
        self._is_serving = False
        await self._end_tasks()
        if self._server is not None:
            await self._server.close()
        await self._stack.aclose()

    # ── reload ──────────────────────────────────────────────────────────────────

    async def reload(self) -> None:
        """Read the files anew. A bad one is refused whole, and the old configuration goes on."""
        try:
            config = await asyncio.to_thread(load_monitor, [Path(one) for one in self._options.files])
            if config.locations != self._config.locations:
                await self._bus.create(topics(config.locations))
            await self._set_channels(config)
        except InputError as error:
            text = f"the new configuration is refused, and the old one goes on:\n{error}"
            self._report(Notice("config.refused", text, Level.ERROR))
            return
        except (BusUnavailable, StoreUnavailable) as error:
            self._later(error)
            return
        for warning in config.warnings:
            self._report(Notice("config.warning", warning, Level.WARNING))
        count = sum(1 for _ in config.enabled())
        if config.hash == self._config.hash and config.checks == self._config.checks:
            text = f"the configuration is unchanged: {_checks(count)}"
            self._report(Notice("config.unchanged", text, data={"checks": count}))
            return
        if not await self._write_checks(config):
            return
        self._config = config
        for reconfigure in self._reconfigured:
            reconfigure(config)
        if "probe" in self._options.roles and not self._options.locations:
            for location in set(config.locations) - {prober.location for prober in self.probers}:
                self._tasks.append(asyncio.ensure_future(self._new_prober(location).run()))
        self._report(Notice("config.loaded", f"new configuration: {_checks(count)}", data={"checks": count}))

    async def _write_checks(self, config: MonitorConfig) -> bool:
        """Whether the store could take them."""
        if self._store is None:
            return True
        try:
            await self._store.write(partial(write_checks, config=config, now=int(self._wall() * 1000)))
        except StoreUnavailable as error:
            self._later(error)
            return False
        return True

    def _later(self, error: Exception) -> None:
        text = f"the new configuration cannot be taken over yet, and is tried again: {error}"
        self._report(Notice("config.later", text, Level.WARNING))
        self._changed_at = {}  # so that the next look finds a change

    async def _watch(self) -> None:
        """Reload when a file has changed."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._note_files():
                await self.reload()

    def _note_files(self) -> bool:
        """Look at the files' times; whether one has changed."""
        found = {}
        for path in _settings_files(self._options.files):
            with contextlib.suppress(OSError):
                found[path] = path.stat().st_mtime_ns
        changed = self._changed_at is not None and found != self._changed_at
        self._changed_at = found
        return changed


def _checks(count: int) -> str:
    return f"{count:,} check{'s' if count != 1 else ''}"


def endpoint_of(channel: Channel) -> EndpointIn:
    """A channel as an endpoint of hooks."""
    return EndpointIn(
        url=channel.url,
        kind=channel.kind,
        options=channel.options,
        headers=channel.headers or None,
        secret=channel.secret or None,
        timeout=channel.timeout,
        channels=(channel.uid,),
        tls=EndpointTls(insecure=True) if channel.insecure else None,
    )


def _settings_files(given: Iterable[str]) -> Iterable[Path]:
    for one in given:
        path = Path(one)
        if path.is_dir():
            yield from (inside for inside in path.rglob("*") if inside.suffix in (".yaml", ".yml"))
        else:
            yield path
