"""`serve`: any gRPC servicer in many processes behind one port."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from yelpaze.grpc.multi_process import MultiProcessServer
from yelpaze.grpc.options import Options
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Notice
from yelpaze.observe.serving import ServerCollector
from yelpaze.process.descriptors import capacity
from yelpaze.service.endpoint import new_registry
from yelpaze.service.log import Format, service_report
from yelpaze.service.runner import Service

Greeting = Callable[[], Sequence[Notice]]


def serve(
    register: Callable[..., Any],
    *,
    listen: str = "127.0.0.1:50051",
    processes: int | None = None,
    metrics: str | None = None,
    log_format: Format = "text",
    **options: Any,
) -> None:
    """Serve gRPC in many processes on one port, until SIGTERM or SIGINT.

    SIGHUP replaces all processes, one after the other; the new ones read the TLS files anew.

    Args:
        register: A function at the top level of a module. Each process calls it with a server, to which
            it adds servicers: `add_GreeterServicer_to_server(Greeter(), server)`. It may return an
            (async) context manager, which lasts as long as the process serves.
        listen: `host:port`, `:port` or `unix:path`.
        processes: Number of processes; None is one a core.
        metrics: `[host:]port` of /metrics (summed over all processes), /healthz and /readyz.
        log_format: Lines on stderr as `text` or `json`.
        options: See `Options`: threads, max_concurrent, grace, max_calls, max_age, max_memory, tls, …

    Raises:
        InputError: the address or a TLS file cannot be used.
        MisuseError: an option makes no sense, or `register` can't be found by other processes.
        StoppedError: processes cannot be started.

    """
    _check_place()
    try:
        found = Options(processes=usable_cores() if processes is None else processes, **options)
    except TypeError as error:
        raise MisuseError(f"serve: {error}") from None
    report = service_report("server", form=log_format)
    server = MultiProcessServer(register, listen, found, report=report)

    def greeting() -> list[Notice]:
        text = f"server at {server.address}, {capacity(found.processes)}"
        return [Notice("ready", text, data={"url": server.address})]

    part = ServerPart(server, found, greeting)
    registry = new_registry(ServerCollector(server))
    service = Service([part], report, metrics=metrics, registries=[registry], then_exits=False)
    asyncio.run(service.run())


def _check_place() -> None:
    """Raise MisuseError where signals cannot be heard, or an event loop runs already."""
    if threading.current_thread() is not threading.main_thread():
        raise MisuseError("serve() hears signals, so it is called from the main thread of a program")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise MisuseError("serve() blocks, and an event loop is running here: call it from a program of its own")


class ServerPart:
    """A gRPC server in many processes, as a part of a service. `greeting` is called once it serves."""

    def __init__(self, server: MultiProcessServer, options: Options, greeting: Greeting) -> None:
        self.server = server
        self._options = options
        self._greeting = greeting

    @property
    def is_ready(self) -> bool:
        return self.server.is_ready

    async def start(self) -> Sequence[Notice]:
        await self.server.start()
        return self._greeting()

    async def run(self) -> None:
        await self.server.run()

    def under_way(self) -> str:
        running = self.server.totals().running
        if not running:
            return ""
        return f"{running} call{'s' if running != 1 else ''} under way, up to {self._options.grace:g} s"

    async def drain(self) -> None:
        await self.server.drain()

    async def close(self) -> None:
        await self.server.close()

    async def reload(self) -> None:
        await self.server.roll()
