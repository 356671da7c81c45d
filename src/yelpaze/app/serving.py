"""`serve`: any gRPC servicer in many processes behind one port."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from yelpaze.grpc.options import Options
from yelpaze.grpc.supervisor import STOPPING, Supervisor
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Notice, Report


def serve(
    register: Callable[..., Any],
    *,
    listen: str = "127.0.0.1:50051",
    processes: int | None = None,
    metrics: str | None = None,
    **options: Any,
) -> None:
    """Serve gRPC in many processes on one port, until SIGTERM or SIGINT.

    SIGHUP replaces all processes, one after the other.

    Args:
        register: A function at the top level of a module. Each process calls it with a server, to which
            it adds servicers: `add_GreeterServicer_to_server(Greeter(), server)`. It may return an
            (async) context manager, which lasts as long as the process serves.
        listen: `host:port`, `:port` or `unix:path`.
        processes: How many; None is one a core.
        metrics: `[host:]port` for Prometheus, summed over all processes.
        options: See `Options`: threads, max_concurrent, grace, max_calls, max_age, max_memory, tls, …

    Raises:
        InputError: the address or a TLS file cannot be used.
        MisuseError: an option makes no sense, or `register` can't be found by other processes.
        StoppedError: processes cannot be started.

    """
    try:
        found = Options(processes=usable_cores() if processes is None else processes, **options)
    except TypeError as error:
        raise MisuseError(f"serve: {error}") from None
    server = Supervisor(register, listen, found, report=_print)

    def ready() -> None:
        count = f"{found.processes} process{'es' if found.processes != 1 else ''}"
        _print(Notice("ready", f"serving at {server.address}, {count}"))

    asyncio.run(run_server(server, report=_print, metrics=metrics, on_ready=ready))


def _print(notice: Notice) -> None:
    print(f"yelpaze: {notice}", file=sys.stderr, flush=True)  # noqa: T201


async def run_server(
    server: Supervisor,
    *,
    report: Report,
    metrics: str | None = None,
    on_ready: Callable[[], None],
) -> None:
    """Start it and let signals steer it, until it has stopped."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_steered(server, report))
        async with server:
            if server.is_stopping:
                return
            if metrics is not None:
                from yelpaze.app.observing import served_collector  # noqa: PLC0415
                from yelpaze.observe.serving import ServerCollector  # noqa: PLC0415

                stack.enter_context(served_collector(ServerCollector(server), metrics))
            on_ready()
            await server.run()


@contextlib.contextmanager
def _steered(server: Supervisor, report: Report) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def do(work: Callable[[], Any]) -> None:
        task = loop.create_task(work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def stop() -> None:
        if server.is_stopping:
            do(server.abort)
            return
        if running := server.totals().running:
            calls = f"{running} call{'s' if running != 1 else ''}"
            text = f"stopping: {calls} under way, up to {server.grace:g} s; once more ends at once"
            report(Notice("stopping", text))
        do(server.stop)

    for number in STOPPING:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, do, server.roll)
    try:
        yield
    finally:
        for number in (*STOPPING, signal.SIGHUP):
            loop.remove_signal_handler(number)
