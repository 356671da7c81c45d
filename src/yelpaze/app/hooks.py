"""`yelpaze hooks serve`: API and deliveries, in one process or in several that share port and store."""

import contextlib
import secrets
from collections.abc import Sequence
from functools import partial

import msgspec

from yelpaze.app.part_processes import PartKind, PartProcesses
from yelpaze.app.web_server import REQUEST_SECONDS, WebServer, listening_at
from yelpaze.bus.opening import open_bus
from yelpaze.bus.settings import BusSettings
from yelpaze.grpc.address import Address, can_share_ports
from yelpaze.hooks.delivery.statistics import HooksTotals, added
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.intake import TOPICS, Intake
from yelpaze.hooks.secret_file import kept_in
from yelpaze.hooks.settings import HooksSettings
from yelpaze.model.errors import InputError, MisuseError
from yelpaze.model.first_ended import first_ended
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.observe.hooks import HooksCollector
from yelpaze.process.descriptors import capacity
from yelpaze.process.garbage import run_gc_less_often
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service
from yelpaze.store.opening import is_postgres, sqlite_path
from yelpaze.web.hooks_api.app import hooks_api


class HooksOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the command, with the settings."""

    settings: HooksSettings
    address: Address
    processes: int = 1
    metrics: str | None = None
    bus: BusSettings | None = None


async def serve_hooks(options: HooksOptions, report: Report) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    async with Hooks(settings=options.settings, deliver=False):
        pass  # what is wrong with store and key is said before a token is made
    options, notices = _with_admin_token(options)
    part = _processes(options, report) if options.processes > 1 else HooksPart(options, report)
    registry = new_registry(HooksCollector(part.totals))
    for notice in notices:
        report(notice)
    await Service([part], report, metrics=options.metrics, registries=[registry]).run()


class HooksPart:
    """Hooks in this process, as a part of a service. `port`: one that other processes share."""

    def __init__(self, options: HooksOptions, report: Report, port: int | None = None) -> None:
        self._options = options
        self._report = report
        self._port = port
        self._stack = contextlib.AsyncExitStack()
        self._hooks: Hooks | None = None
        self._server: WebServer | None = None
        self._intake: Intake | None = None
        self._is_draining = False

    @property
    def is_ready(self) -> bool:
        dispatcher = self._hooks.dispatcher if self._hooks is not None else None
        is_serving = self._server is not None and self._server.is_serving and not self._is_draining
        return is_serving and dispatcher is not None and dispatcher.is_ready

    def totals(self) -> HooksTotals:
        """The counts of this process."""
        return HooksTotals() if self._hooks is None else self._hooks.totals()

    async def start(self) -> Sequence[Notice]:
        options = self._options
        sock = listening_at(options.address, self._port)
        self._stack.callback(sock.close)
        hooks = Hooks(settings=options.settings, report=self._report)
        run_gc_less_often()
        self._hooks = await self._stack.enter_async_context(hooks)
        if options.bus is not None:
            bus = await self._stack.enter_async_context(open_bus(options.bus, self._report))
            await bus.create(TOPICS)
            self._intake = Intake(bus, hooks, self._report)
        app = hooks_api(hooks, options.settings.admin_token, lambda: self.is_ready)
        self._server = WebServer(app, sock)
        await self._server.start()
        return greeting(options, options.address.at(sock.getsockname()[1]))

    async def run(self) -> None:
        assert self._hooks is not None
        assert self._server is not None
        more = [] if self._intake is None else [self._intake.run()]
        await first_ended(self._hooks.run(), self._server.run(), *more)

    def under_way(self) -> str:
        return _under_way(self._options, self.totals())

    async def drain(self) -> None:
        self._is_draining = True
        if self._server is not None:
            await self._server.drain()
        if self._hooks is not None:
            await self._hooks.drain()

    async def close(self) -> None:
        self._is_draining = True
        if self._server is not None:
            await self._server.close()
        await self._stack.aclose()


def greeting(options: HooksOptions, address: Address) -> list[Notice]:
    """Lines for the start."""
    url = f"http://{address.text}"
    room = capacity(options.processes)
    ready = Notice("ready", f"hooks at {url}, {room}", data={"url": url})
    notices = [ready]
    if options.settings.allow:
        text = f"deliveries to private networks are allowed: {', '.join(options.settings.allow)}"
        notices.append(Notice("allow.private", text, Level.WARNING))
    return notices


def _processes(options: HooksOptions, report: Report) -> PartProcesses[HooksTotals]:
    """Hooks in several processes. Raises MisuseError."""
    if not can_share_ports():
        raise MisuseError("--processes needs a kernel that shares a port between processes: Linux")
    kind = PartKind(
        factory="yelpaze.app.hooks:hooks_in_child",
        address=options.address,
        empty=HooksTotals(),
        added=added,
        past=_past,
        grace=options.settings.shutdown + REQUEST_SECONDS,
        under_way=partial(_under_way, options),
        greeting=partial(greeting, options),
    )
    return PartProcesses(kind, options, options.processes, report)


def hooks_in_child(options: HooksOptions, port: int, report: Report) -> HooksPart:
    """One of several, in a process of its own."""
    return HooksPart(options, report, port)


def _under_way(options: HooksOptions, totals: HooksTotals) -> str:
    count = totals.under_way
    what = "1 attempt" if count == 1 else f"{count} attempts"
    return f"{what}, up to {options.settings.shutdown:g} s" if count else ""


def _past(totals: HooksTotals) -> HooksTotals:
    """Keep of an ended process's counts what remains true."""
    return msgspec.structs.replace(totals, under_way=0, backlog=0, queue_ages={})


def _with_admin_token(options: HooksOptions) -> tuple[HooksOptions, list[Notice]]:
    """The options with an admin token: given, kept beside the store, or made now and shown once."""
    settings = options.settings
    if settings.admin_token:
        return options, []
    if is_postgres(settings.store):
        raise InputError(
            "a store in PostgreSQL takes the admin token from YELPAZE_HOOKS__ADMIN_TOKEN: all processes "
            "must have the same"
        )
    path = f"{sqlite_path(settings.store)}.token"
    token, is_new = kept_in(path, lambda: f"yt_{secrets.token_urlsafe(32)}", "the admin token")
    settings = msgspec.structs.replace(settings, admin_token=type(settings.admin_token)(token))
    notices = []
    if is_new:
        text = f"admin token (shown only once): {token}"
        notices.append(Notice("token.new", text, Level.WARNING))
    return msgspec.structs.replace(options, settings=settings), notices
