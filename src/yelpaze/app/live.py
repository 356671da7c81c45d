"""`yelpaze live`: the gateway, in one process or in several that share its port."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from functools import partial

import msgspec

from yelpaze.app.live_node import opened_node
from yelpaze.app.live_options import LiveOptions, check_processes, greeting
from yelpaze.app.part_processes import PartKind, PartProcesses
from yelpaze.grpc.address import Address, reason_of
from yelpaze.live.core.statistics import NodeTotals, added
from yelpaze.live.transports.server import Server
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Notice, Report
from yelpaze.observe.live import LiveCollector
from yelpaze.process.garbage import run_gc_less_often
from yelpaze.process.listening import listening
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service


async def serve_live(options: LiveOptions, report: Report) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    gateway = _processes(options, report) if options.processes > 1 else Gateway(options, report)
    registry = new_registry(LiveCollector(gateway.totals))
    await Service([gateway], report, metrics=options.metrics, registries=[registry]).run()


class Gateway:
    """The gateway in this process, as a part of a service. `port`: one that other processes share."""

    def __init__(self, options: LiveOptions, report: Report, port: int | None = None) -> None:
        self._options = options
        self._report = report
        self._port = port
        self._stack = contextlib.AsyncExitStack()
        self._server: Server | None = None

    @property
    def is_ready(self) -> bool:
        return self._server is not None and not self._server.node.clients.is_draining

    def totals(self) -> NodeTotals:
        """The gateway's counts."""
        return self._server.node.totals() if self._server is not None else NodeTotals()

    async def start(self) -> Sequence[Notice]:
        options, config = self._options, self._options.config
        address = _address(options)
        sock = _listening(address) if self._port is None else _sharing(address, self._port)
        self._stack.callback(sock.close)
        run_gc_less_often()
        node = await self._stack.enter_async_context(opened_node(config, self._report))
        self._server = await self._stack.enter_async_context(Server(node, sock))
        return greeting(options, address.at(sock.getsockname()[1]))

    async def run(self) -> None:
        await asyncio.Event().wait()

    def under_way(self) -> str:
        return _under_way(self._options, self.totals())

    async def drain(self) -> None:
        if self._server is not None:
            await self._server.drain(self._options.config.shutdown.timeout)

    async def close(self) -> None:
        await self._stack.aclose()


def _processes(options: LiveOptions, report: Report) -> PartProcesses[NodeTotals]:
    """The gateway in several processes. Raises MisuseError."""
    check_processes(options)
    kind = PartKind(
        factory="yelpaze.app.live:gateway_in_child",
        address=_address(options),
        empty=NodeTotals(),
        added=added,
        past=_past,
        grace=options.config.shutdown.timeout,
        under_way=partial(_under_way, options),
        greeting=partial(greeting, options),
    )
    return PartProcesses(kind, options, options.processes, report)


def gateway_in_child(options: LiveOptions, port: int, report: Report) -> Gateway:
    """One of several, in a process of its own."""
    return Gateway(options, report, port)


def _address(options: LiveOptions) -> Address:
    return Address(options.config.http_server.address, options.config.http_server.port)


def _under_way(options: LiveOptions, totals: NodeTotals) -> str:
    count = sum(totals.connections.values())
    seconds = options.config.shutdown.timeout
    return f"{count} clients are disconnected within {seconds:g} s" if count else ""


def _past(totals: NodeTotals) -> NodeTotals:
    """What remains of a process's counts when it has ended: nothing is open any more."""
    return msgspec.structs.replace(totals, connections={}, users=0, channels=0, subscriptions=0)


def _listening(address: Address) -> socket.socket:
    try:
        return listening(address.host, address.port)
    except OSError as error:
        raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None


def _sharing(address: Address, port: int) -> socket.socket:
    return listening(address.host, port, shared=True)
