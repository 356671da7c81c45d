"""`yelpaze demo serve`: the demo services, as a part of a service."""

import asyncio
from collections.abc import Sequence

from yelpaze.demo.metrics import DemoCollector
from yelpaze.demo.server import Options, Server
from yelpaze.grpc.address import Address, reason_of
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Notice, Report
from yelpaze.process.descriptors import capacity
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service


async def serve_demo(
    address: Address, options: Options, report: Report, *, grace: float, metrics: str | None
) -> None:
    """Serve until told to stop. Raises InputError, MisuseError."""
    part = _Demo(address, options, grace)
    registry = new_registry(DemoCollector(lambda: part.server))
    await Service([part], report, metrics=metrics, registries=[registry]).run()


class _Demo:
    def __init__(self, address: Address, options: Options, grace: float) -> None:
        self._address = address
        self._options = options
        self._grace = grace
        self.server: Server | None = None

    @property
    def is_ready(self) -> bool:
        return self.server is not None and not self.server.is_draining

    async def start(self) -> Sequence[Notice]:
        address = self._address
        server = Server(self._options)
        try:
            _, port = await server.start(address.host, address.port)
        except OSError as error:
            raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None
        self.server = server
        url = f"http://{address.at(port).text}"
        return [Notice("ready", f"demo at {url}, {capacity()}", data={"url": url})]

    async def run(self) -> None:
        await asyncio.Event().wait()

    def under_way(self) -> str:
        count = self.server.under_way if self.server is not None else 0
        if not count:
            return ""
        return f"{count} request{'s' if count != 1 else ''} under way, up to {self._grace:g} s"

    async def drain(self) -> None:
        if self.server is not None:
            await self.server.drain(self._grace)

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()
