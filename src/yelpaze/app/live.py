"""`yelpaze live`: the gateway, in one process or in several that share its port."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from yelpaze.app.live_node import opened_node, run_gc_less_often
from yelpaze.app.live_options import LiveOptions, greeting
from yelpaze.app.live_processes import LiveProcesses
from yelpaze.grpc.address import Address, reason_of
from yelpaze.live.core.statistics import NodeTotals
from yelpaze.live.transports.server import Server, listening
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Notice, Report
from yelpaze.observe.live import LiveCollector
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service


async def serve_live(options: LiveOptions, report: Report) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    gateway = LiveProcesses(options, report) if options.processes > 1 else Gateway(options, report)
    registry = new_registry(LiveCollector(gateway.totals))
    await Service([gateway], report, metrics=options.metrics, registries=[registry]).run()


class Gateway:
    """The gateway in this process, as a part of a service."""

    def __init__(self, options: LiveOptions, report: Report) -> None:
        self._options = options
        self._report = report
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
        address = Address(config.http_server.address, config.http_server.port)
        sock = _listening(address)
        self._stack.callback(sock.close)
        run_gc_less_often()
        node = await self._stack.enter_async_context(opened_node(config, self._report))
        self._server = await self._stack.enter_async_context(Server(node, sock))
        return greeting(options, address.at(sock.getsockname()[1]))

    async def run(self) -> None:
        await asyncio.Event().wait()

    def under_way(self) -> str:
        count = len(self._server.node.clients.connections) if self._server is not None else 0
        seconds = self._options.config.shutdown.timeout
        return f"{count} clients are disconnected within {seconds:g} s" if count else ""

    async def drain(self) -> None:
        if self._server is not None:
            await self._server.drain(self._options.config.shutdown.timeout)

    async def close(self) -> None:
        await self._stack.aclose()


def _listening(address: Address) -> socket.socket:
    try:
        return listening(address.host, address.port)
    except OSError as error:
        raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None
