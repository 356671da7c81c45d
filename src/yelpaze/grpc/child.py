"""A process of a server, as its supervisor sees it."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from yelpaze.grpc.address import Address
from yelpaze.grpc.control import Failed, ProcessReport, Ready
from yelpaze.process.child import Child

State = Literal["starting", "serving", "draining"]


class ServerProcess(Child):
    """One process, in one of a server's places.

    `on_ready` hears that it takes calls, `on_lost` that it is gone. `report` is its last one; `failed` says
    why it could not start.
    """

    def __init__(
        self,
        id_: str,
        place: int,
        address: Address | None,
        *,
        on_ready: Callable[["ServerProcess", Ready], None],
        on_lost: Callable[["ServerProcess"], None],
    ) -> None:
        super().__init__()
        self._on_ready = on_ready
        self._on_lost = on_lost
        self.id = id_
        self.place = place
        self.address = address
        self.state: State = "starting"
        self.since = asyncio.get_running_loop().time()
        self.replaced_by: ServerProcess | None = None
        self.report: ProcessReport | None = None
        self.failed: Failed | None = None

    def received(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, ProcessReport):
                self.report = message
            elif isinstance(message, Failed):
                self.failed = message
            elif isinstance(message, Ready):
                self._on_ready(self, message)

    def lost(self) -> None:
        self._on_lost(self)
