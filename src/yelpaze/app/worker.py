"""`yelpaze worker`: functions in many processes behind one gRPC port."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from yelpaze.app.serving import ServerPart
from yelpaze.compute.front import FrontOptions, served
from yelpaze.compute.protocol import EntryPoint, Exports
from yelpaze.flow.exports import exports_of
from yelpaze.grpc.address import Address
from yelpaze.grpc.multi_process import MultiProcessServer
from yelpaze.grpc.options import Options
from yelpaze.model.extras import require
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.observe.serving import ServerCollector
from yelpaze.process.descriptors import capacity
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service

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
    require("grpc", "a worker")
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
    server = MultiProcessServer(register, options.listen, serving, report=report)
    part = ServerPart(server, serving, lambda: _greeting(exports, server.address, options, fronts))
    others = [] if options.while_used is None else [_Users(options.while_used)]
    registry = new_registry(ServerCollector(server))
    await Service([part, *others], report, metrics=options.metrics, registries=[registry]).run()


class _Users:
    """Ends the service a while after nobody uses it any more, by a lock that its users hold."""

    is_ready = True

    def __init__(self, lock: Path) -> None:
        self._lock = lock

    async def start(self) -> Sequence[Notice]:
        return ()

    async def run(self) -> None:
        from yelpaze.compute.local import until_unused  # noqa: PLC0415  Unix only

        await until_unused(self._lock, _LINGER_SECONDS)  # the lock is kept until this process is gone

    def under_way(self) -> str:
        return ""

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        pass


def _greeting(exports: Exports, address: str, options: WorkerOptions, fronts: int) -> list[Notice]:
    names = [f"{unit.name}/{name}" for unit in exports.units for name in unit.functions]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = ", ".join(names[:_SHOWN]) + more
    scheme = "grpcs" if options.serving.tls else "grpc"
    where = address if address.startswith("unix:") else f"{scheme}://{address}"
    count = f"{options.processes} CPU process{'es' if options.processes != 1 else ''}"
    text = f"worker at {where}, {count} behind {capacity(fronts)}; functions: {what}"
    notices = [Notice("ready", text, data={"url": where, "processes": options.processes})]
    if options.serving.client_ca is None and not Address.parse(options.listen).is_private:
        text = (
            "whoever reaches this address can call these functions; "
            "--tls-client-ca lets only clients with a certificate in"
        )
        notices.append(Notice("open.access", text, Level.WARNING))
    return notices
