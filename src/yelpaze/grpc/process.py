"""One process of a server: gRPC's own server with the user's servicers, and what stands beside them.

The event loop is there for both kinds of servicers: async ones run on it, others in threads, and
it then only talks to the supervisor and to watchers.
"""

import asyncio
import contextlib
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import grpc
import msgspec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from yelpaze.grpc import reflecting
from yelpaze.grpc.address import Address
from yelpaze.grpc.control import Members, ProcessReport, ServerTask
from yelpaze.grpc.counting import Counts, Registrar, Tally
from yelpaze.grpc.options import Credentials, server_arguments
from yelpaze.grpc.program import Program
from yelpaze.grpc.threads import Threads
from yelpaze.grpc.watching import SERVICE, Watching
from yelpaze.model.errors import YelpazeError
from yelpaze.model.notice import Level, Notice, NoticeHandler
from yelpaze.process.messages import Drain, Failed, Ready
from yelpaze.process.parenthood import Parent, loading

_COMPRESSIONS = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
_REPORT_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_LAST_SECONDS = 0.2


def main(channel_fd: int, lifeline_fd: int) -> None:
    """Serve until the supervisor says to stop."""
    parent = Parent(channel_fd, lifeline_fd)
    messages = parent.messages()
    task: ServerTask | None = next(messages, None)
    if task is None:
        return
    try:
        program = _load(task)
    except BaseException as error:  # noqa: BLE001  reported, then gone
        parent.send(_failed(error))
        return
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415  three parts in ten less for each call; not on Windows

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        asyncio.run(Process(parent, task).run(program, messages))
    except Exception as error:  # noqa: BLE001  reported, then gone
        parent.send(_failed(error))


def _load(task: ServerTask) -> Program:
    from multiprocessing.spawn import prepare  # noqa: PLC0415  as its children find __main__ again

    with loading():
        prepare(task.preparation)
        program: Program = pickle.loads(task.program)  # noqa: S301  our own parent's
        return program


def _failed(error: BaseException) -> Failed:
    if isinstance(error, YelpazeError):  # its message says all
        return Failed(str(error))
    return Failed(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


class Server:
    """What `register` gets: add servicers to it as to gRPC's own server.

    `add_generic_rpc_handlers` and `add_registered_method_handlers` are what generated code calls.
    """

    def __init__(self, process: "Process", registrar: Registrar) -> None:
        self._process = process
        self.place = process.place  # from 0, among the server's processes
        self.add_generic_rpc_handlers = registrar.add_generic_rpc_handlers
        self.add_registered_method_handlers = registrar.add_registered_method_handlers

    async def set_serving(self, is_serving: bool, service: str = "") -> None:
        """Tell health checks of one service, or of all."""
        await self._process.set_health(service, is_serving=is_serving)

    def want_replacement(self, why: str) -> None:
        """It can serve no more, but another process may: that takes its place, if it can start."""
        self._process.wants_replacement = True
        self._process.report(Notice("process.broken", why, Level.WARNING))

    def counts(self, method: str) -> Counts:
        """The counts of something that is to be counted as a method, `service/method`."""
        return self._process.tally.of(method)

    def set_load(self, load: "Load") -> Callable[[], None]:
        """Tell clients of that load, not of calls under way; call what it gives on each change."""
        self._process.load = load
        return self._process.changed


@runtime_checkable
class Load(Protocol):
    """How busy a process is, where that is not the number of its calls."""

    @property
    def running(self) -> int:
        """What is under way."""

    @property
    def waiting(self) -> int:
        """What waits."""

    @property
    def limit(self) -> int:
        """How much it takes; 0 if there is no bound."""


class Process:
    """The process, from its start to its end."""

    def __init__(self, parent: Parent, task: ServerTask) -> None:
        self._parent = parent
        self._task = task
        self.place = task.place
        self._options = options = task.options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = Threads(options.threads, options.max_concurrent) if options.threads else None
        if self._threads is not None:
            self._threads.changed = self.changed
        self._last_report: ProcessReport | None = None
        self._draining = asyncio.Event()
        self.tally = Tally(self.changed, self._threads, options.max_concurrent, task.id)
        self.load: Load | None = None
        self.wants_replacement = False
        self._watching: Watching | None = None

    async def run(self, program: Program, messages: Any) -> None:
        """Serve until told to drain, or the supervisor is gone."""
        loop = self._loop = asyncio.get_running_loop()
        options, task = self._options, self._task
        # Of what servicers raise, gRPC tells nobody else: its logger has a handler that drops it.
        for name in ("grpc", "yelpaze"):
            logging.getLogger(name).addHandler(NoticeHandler(self.report))
        given: dict[str, Any] = {
            "options": server_arguments(options),
            "interceptors": None if program.interceptors is None else tuple(program.interceptors()),
            "compression": _COMPRESSIONS[options.compression],
        }
        is_async = self._threads is None
        self._server: Any
        if self._threads is None:
            self._server = grpc.aio.server(**given)
        else:
            self._server = grpc.server(cast(Any, self._threads), **given)
        self._watching = Watching(self.load_now, task.id, is_async=is_async, loop=loop)
        registrar = Registrar(self._server, self.tally)
        async with _lifespan(program.register(Server(self, registrar))):
            self._add_own(registrar)
            port = self._listen(task)
            await _done(self._server.start())
            _take_over(task.listen)
            self._parent.listen(messages, on_message=self._hear, on_end=self._draining.set)
            self._parent.send(Ready(port))
            reporting = loop.create_task(self._report())
            await self._draining.wait()
            await self._end()
            reporting.cancel()
        self._send_report()

    def _add_own(self, registrar: Registrar) -> None:
        assert self._watching is not None
        aside = self._threads.aside if self._threads is not None else None
        if aside is None:
            self._health: Any = health.aio.HealthServicer()
        else:
            self._health = health.HealthServicer(experimental_thread_pool=aside)
            check = self._health.Check

            def check_aside(request: Any, context: Any) -> Any:
                return check(request, context)

            check_aside.experimental_thread_pool = aside  # type: ignore[attr-defined]
            self._health.Check = check_aside
        own = registrar._server  # noqa: SLF001  our own calls are not counted
        health_pb2_grpc.add_HealthServicer_to_server(self._health, own)
        self._watching.add_to(own, aside)
        if self._options.reflection:
            names = (*registrar.services, health.SERVICE_NAME, SERVICE, reflecting.SERVICE)
            reflecting.add_reflection(names, own, is_async=aside is None)

    def _listen(self, task: ServerTask) -> int:
        """Take the shared address and an own one; the own one's port."""
        credentials = _credentials(task.credentials)
        port = 0
        for address in (task.own, _coming(task.listen)):
            if address is None:
                continue
            add = self._server.add_insecure_port
            found = (
                add(address.text)
                if credentials is None
                else self._server.add_secure_port(address.text, credentials)
            )
            port = port or found
        return int(port)

    # ── the supervisor ──────────────────────────────────────────────────────────

    def _hear(self, message: Any) -> None:
        assert self._watching is not None
        if isinstance(message, Members):
            self._watching.members = message.members
            self._watching.changed()
        elif isinstance(message, Drain):
            self._draining.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            self._send_report()

    def _send_report(self) -> None:
        report = self.tally.report()
        if self.load is not None:
            running, waiting, _ = self.load_now()
            report = msgspec.structs.replace(report, running=running, waiting=waiting)
        if self.wants_replacement:
            report = msgspec.structs.replace(report, wants_replacement=True)
        if report != self._last_report:
            self._last_report = report
            with contextlib.suppress(OSError):
                self._parent.send(report)

    def report(self, notice: Notice) -> None:
        """Pass a notice on to the operator; any thread."""
        with contextlib.suppress(OSError):
            self._parent.send(notice)

    async def _end(self) -> None:
        """Health says NOT_SERVING; then no more calls; those under way have their time."""
        assert self._watching is not None
        await _done(self._health.enter_graceful_shutdown())
        self._watching.is_draining = True
        self._watching.changed()
        await asyncio.sleep(self._options.drain)
        loop = asyncio.get_running_loop()
        grace = self._options.grace
        ends = loop.time() + grace
        stopped = asyncio.ensure_future(self._stopped(grace))
        # Our own count says when all is done. For gRPC a call is over when its client has gone, though its
        # thread still works. When no servicer has a call, what is left are health watches, reflection, and
        # calls that gRPC took while it was stopping and that it gives to nobody: these would last until their
        # deadlines.
        while (self.tally.running or self.tally.waiting) and loop.time() < ends:  # noqa: ASYNC110  of threads
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.wait([stopped], timeout=_LAST_SECONDS)
        if not stopped.done():
            await self._stopped(0)
        await stopped
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _stopped(self, grace: float) -> None:
        stopping = self._server.stop(grace)
        await (stopping if self._threads is None else asyncio.to_thread(stopping.wait))

    # ── how it stands ───────────────────────────────────────────────────────────

    def changed(self) -> None:
        """The load is another one."""
        if self._watching is not None:
            self._watching.changed()

    async def set_health(self, service: str, *, is_serving: bool) -> None:
        """See `Server.set_serving`."""
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if is_serving else known.NOT_SERVING
        await _done(self._health.set(service, status))

    def load_now(self) -> tuple[int, int, int]:
        """Running, waiting, and how much it takes."""
        if self.load is not None:
            return self.load.running, self.load.waiting, self.load.limit
        waiting, options = self.tally.waiting, self._options
        return self.tally.running, waiting, options.max_concurrent or options.threads or 0


def _coming(shared: Address | None) -> Address | None:
    """Where to bind for the shared address: for a path, beside it."""
    return Address(path=f"{shared.path}.new") if shared is not None and shared.path else shared


def _take_over(shared: Address | None) -> None:
    """Take a shared path over from the process before, in one step.

    gRPC unlinks the path that it has bound when its server ends, which by then may be the next one's.
    """
    if shared is not None and shared.path:
        Path(f"{shared.path}.new").replace(shared.path)


async def _done(found: Any) -> Any:
    return await found if isawaitable(found) else found


@contextlib.asynccontextmanager
async def _lifespan(found: Any) -> AsyncIterator[None]:
    """What `register` gave: nothing, something to wait for, or a context that lasts as long as we serve."""
    found = await _done(found)
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(found, "__aenter__"):
            await stack.enter_async_context(found)
        elif hasattr(found, "__enter__"):
            stack.enter_context(found)
        yield


def _credentials(found: Credentials | None) -> grpc.ServerCredentials | None:
    if found is None:
        return None
    return grpc.ssl_server_credentials(
        [(found.key, found.chain)],
        root_certificates=found.client_ca,
        require_client_auth=found.client_ca is not None,
    )
