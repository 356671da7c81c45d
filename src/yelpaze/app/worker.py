"""`yelpaze worker`: functions in many processes behind one gRPC port."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import msgspec

from yelpaze.app.serving import run_server
from yelpaze.compute.front import FrontOptions, served
from yelpaze.compute.protocol import EntryPoint, Exports
from yelpaze.flow.exports import exports_of
from yelpaze.grpc.address import Address
from yelpaze.grpc.options import Options
from yelpaze.grpc.supervisor import Supervisor
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Level, Notice, Report

_PROCESSES_A_FRONT = 8  # one event loop feeds that many, and has time to spare
_LINGER_SECONDS = 5.0
_SHOWN = 6  # names


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze worker` was asked for.

    - `serving`: how the port is served; its `processes` are the fronts.
    - `recycle`: replace a process after so many calls; `while_used`: end when nobody holds that lock.
    """

    listen: str = "127.0.0.1:50051"
    processes: int = 1
    recycle: int | None = None
    metrics: str | None = None
    while_used: Path | None = None
    serving: Options = Options()


async def serve_worker(spec: str, options: WorkerOptions, report: Report) -> None:
    """Serve until told to stop. Raises FlowError, InputError, MisuseError, StoppedError."""
    if find_spec("grpc") is None:
        raise MisuseError("a worker needs more than the base install: pip install 'yelpaze[grpc]'")
    exports = exports_of(spec)  # here, too: what is wrong with it is told before anything is started
    fronts = -(-options.processes // _PROCESSES_A_FRONT)
    register = partial(
        served,
        FrontOptions(
            exports=EntryPoint("yelpaze.flow.exports:exports_of", (spec,)),
            workers=options.processes,
            fronts=fronts,
            recycle=options.recycle,
            max_message=options.serving.max_message,
        ),
    )
    serving = msgspec.structs.replace(options.serving, processes=fronts)
    server = Supervisor(register, options.listen, serving, report=report)

    def ready() -> None:
        for notice in _greeting(exports, server.address, options):
            report(notice)

    async with _ending(server, options.while_used):
        await run_server(server, report=report, metrics=options.metrics, on_ready=ready)


def _greeting(exports: Exports, address: str, options: WorkerOptions) -> list[Notice]:
    names = [f"{unit.name}/{name}" for unit in exports.units for name in unit.functions]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = ", ".join(names[:_SHOWN]) + more
    scheme = "grpcs" if options.serving.tls else "grpc"
    where = address if address.startswith("unix:") else f"{scheme}://{address}"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = f"{options.processes} process{'es' if options.processes != 1 else ''}"
    notices = [Notice("ready", f"serving at {where}, {count} with {files:,} descriptors each: {what}")]
    if options.serving.client_ca is None and not Address.parse(options.listen).is_private:
        text = (
            "whoever reaches this address can call these functions; "
            "--tls-client-ca lets only clients with a certificate in"
        )
        notices.append(Notice("open.access", text, Level.WARNING))
    return notices


@contextlib.asynccontextmanager
async def _ending(server: Supervisor, users: Path | None) -> AsyncIterator[None]:
    """Stop the server once nobody uses it any more, if that was asked for."""
    if users is None:
        yield
        return
    from yelpaze.compute.local import until_unused  # noqa: PLC0415  Unix only

    async def end() -> None:
        await until_unused(users, _LINGER_SECONDS)  # the lock is kept until this process is gone
        await server.stop()

    task = asyncio.ensure_future(end())
    try:
        yield
    finally:
        task.cancel()
