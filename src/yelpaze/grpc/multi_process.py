"""A gRPC server in many processes at one address.

The parent never imports gRPC, so that processes can be started at any time. A supervisor keeps them
running (`process/supervisor.py`); what belongs to gRPC is here: reports, members, what makes one worn.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgspec

from yelpaze.grpc.address import Address
from yelpaze.grpc.options import Options
from yelpaze.grpc.program import Program, pickled
from yelpaze.grpc.server_group import ServerGroup
from yelpaze.grpc.server_process import ServerProcess
from yelpaze.grpc.totals import ServerTotals, summed, totals
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Report
from yelpaze.policy.restart import Restart
from yelpaze.process.memory import rss_of
from yelpaze.process.parenthood import is_loading
from yelpaze.process.replacement import RollingReplacement
from yelpaze.process.supervisor import Supervisor

_MARGIN_SECONDS = 5.0
_EARLY = 0.1  # ages are spread by that share, so that not all processes are replaced at once


class MultiProcessServer:
    """Runs `register`'s servicers in many processes at one address.

    `report` is called with notices for the operator. Raises MisuseError, InputError.
    """

    def __init__(
        self,
        register: Callable[..., Any],
        listen: str,
        options: Options,
        *,
        report: Report = lambda _: None,
    ) -> None:
        if is_loading():
            raise MisuseError(
                "a process of the server would start the server again: put what starts it "
                'under `if __name__ == "__main__":`'
            )
        self._options = options
        self._group = ServerGroup(
            pickled(Program(register, options.interceptors)),
            Address.parse(listen),
            msgspec.structs.replace(options, interceptors=None),
            report=report,
            processes=lambda: self._supervisor.processes,
        )
        self._gone = summed([])
        self._ending: asyncio.Future[None] | None = None
        self._supervisor: Supervisor[ServerProcess] = Supervisor(
            self._group.create,
            options.processes,
            Restart(),
            report=report,
            on_ready=self._group.on_ready,
            on_gone=self._on_gone,
            on_change=self._group.send_members,
        )
        self._replacement = RollingReplacement(
            self._supervisor,
            worn=lambda process, now: worn(process, options, now),
            is_exclusive=self._group.is_exclusive,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    # ── how it stands ───────────────────────────────────────────────────────────

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self._group.address.text

    @property
    def ports(self) -> list[str]:
        """Each serving process's own address."""
        return [one.address.text for one in self._supervisor.serving() if one.address is not None]

    @property
    def is_ready(self) -> bool:
        """Whether a process serves, and the end has not been requested."""
        return bool(self._supervisor.serving()) and not self._supervisor.is_stopping

    def totals(self) -> ServerTotals:
        """The sum over all processes, as they last reported (once a second)."""
        processes = list(self._supervisor.processes)
        now = [process.report for process in processes if process.report is not None]
        serving = len(self._supervisor.serving())
        return totals(self._gone, now, processes=serving, restarts=self._supervisor.restarts)

    # ── its life ────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start all processes and wait until they serve. Raises InputError, StoppedError."""
        self._group.hold()
        try:
            await self._supervisor.start()
        except BaseException:
            self._group.release()
            raise
        self._replacement.open()

    async def run(self) -> None:
        """Serve until `drain`, or until processes can't be started any more. Raises StoppedError."""
        await self._supervisor.run()

    async def roll(self) -> None:
        """Replace all processes, one after the other; no call is refused."""
        await self._replacement.roll()

    async def drain(self) -> None:
        """Take no more calls, let those under way end within the grace, and stop all processes."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)  # a second caller waits for the same end

    async def _end(self) -> None:
        options = self._options
        await self._supervisor.stop(options.drain + options.grace + _MARGIN_SECONDS)
        self._group.release()

    async def close(self) -> None:
        """End at once."""
        await self._supervisor.kill()
        self._group.release()

    def _on_gone(self, process: ServerProcess, _how: str, _peak: float) -> None:
        self._group.on_gone(process)
        if process.report is not None:
            self._gone = summed([self._gone, process.report])


def worn(process: ServerProcess, options: Options, now: float) -> str | None:
    """Why a process is to be replaced: it is broken, or has had its calls, its age or its memory."""
    report = process.report
    if report is not None and report.wants_replacement:
        return "broken"
    if options.max_calls is not None and report is not None and report.calls >= options.max_calls:
        return "calls"
    if options.max_age is not None:
        spread = _EARLY * process.place / max(1, options.processes)
        if now - process.since >= options.max_age * (1 - spread):
            return "age"
    if options.max_memory is not None and rss_of(process.pid) * 1024 * 1024 >= options.max_memory:
        return "memory"
    return None
