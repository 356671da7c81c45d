"""A process of a server, as its supervisor sees it."""

from typing import Any

from yelpaze.grpc.address import Address
from yelpaze.grpc.control import ProcessReport, ServerTask
from yelpaze.model.notice import Notice, Report
from yelpaze.process.frames import encode
from yelpaze.process.supervised import Supervised

_MAIN = "yelpaze.grpc.process:main"


class ServerProcess(Supervised):
    """One process. `address` is where it can be reached alone; `report` is its last one."""

    def __init__(self, task: ServerTask, report: Report) -> None:
        super().__init__(task.place)
        self._report = report
        self._task = task
        self.id = task.id
        self.address: Address | None = task.own or task.listen
        self.report: ProcessReport | None = None

    async def open(self) -> None:
        await self.start(_MAIN, encode(self._task), keep_stdout=True)

    def on_message(self, message: Any) -> None:
        if isinstance(message, ProcessReport):
            self.report = message
        elif isinstance(message, Notice):
            self._report(message)
