"""The parent of a server's processes. It never imports gRPC, so that processes can be started at any time.

Each place has a process that serves, and at times its replacement, which must be ready before
the old one is told to end. A process goes through these states:

    starting ──ready──→ serving ──told to end──→ draining ──→ gone
        └───────────────── crashed: a new one, after a pause ──┘
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any, Self

from yelpaze.grpc.address import Address
from yelpaze.grpc.options import Options
from yelpaze.grpc.program import pickled
from yelpaze.grpc.replacement import RollingReplacement
from yelpaze.grpc.server_processes import ServerProcesses
from yelpaze.grpc.totals import ServerTotals, totals
from yelpaze.model.errors import MisuseError, StoppedError
from yelpaze.model.notice import Report
from yelpaze.process.parenthood import is_loading

STOPPING = (signal.SIGTERM, signal.SIGINT)
_START_SECONDS = 60.0


class Supervisor:
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
        self._processes = ServerProcesses(pickled(register), Address.parse(listen), options)
        self._ending: asyncio.Future[None] | None = None
        self._replacement = RollingReplacement(self._processes, options, report)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ── how it stands ───────────────────────────────────────────────────────────

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self._processes.address.text

    @property
    def ports(self) -> list[str]:
        """Each serving process's own address."""
        return [one.address.text for one in self._processes.serving() if one.address is not None]

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to."""
        return self._processes.is_stopping

    @property
    def grace(self) -> float:
        """Seconds that calls under way have then."""
        return self._options.grace

    async def abort(self) -> None:
        """End at once."""
        await self._kill()

    def totals(self) -> ServerTotals:
        """The sum over all processes, as they last reported (once a second)."""
        processes = self._processes
        now = [process.report for process in processes.processes if process.report is not None]
        return totals(
            processes.gone, now, processes=len(processes.serving()), restarts=self._replacement.restarts
        )

    # ── start and end ───────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start all processes and wait until they serve. Raises InputError, StoppedError."""
        processes, count = self._processes, self._options.processes
        processes.hold()
        try:
            for place in range(count):
                if not processes.is_stopping:
                    await processes.start(place)
            async with asyncio.timeout(_START_SECONDS):
                while (
                    len(processes.serving()) < count
                    and not self._replacement.broken
                    and not processes.is_stopping
                ):
                    await processes.change()
        except TimeoutError:  # before OSError, which it is, too
            await self._kill()
            raise StoppedError(f"the processes did not start within {_START_SECONDS:g} s") from None
        except OSError as error:
            await self._kill()
            raise StoppedError(f"the processes cannot start: {error}") from None
        except BaseException:  # cancelled, too
            await self._kill()
            raise
        await self._check()
        if not processes.is_stopping:
            self._replacement.open()

    async def run(self) -> None:
        """Serve until `stop`, or until processes can't be started any more. Raises StoppedError."""
        while not self._processes.is_stopping and not self._replacement.broken:
            await self._processes.change()
        await self._check()

    async def _check(self) -> None:
        if self._replacement.broken:
            await self._kill()
            raise StoppedError(self._replacement.broken)

    async def stop(self) -> None:
        """Take no more calls, let those under way end within the grace, and stop all processes."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)  # whoever asks again waits for the same end

    async def _end(self) -> None:
        processes, options = self._processes, self._options
        processes.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.drain + options.grace + 5):
                while processes.processes:
                    await processes.change()
        await self._kill()

    async def roll(self) -> None:
        """Replace all processes, one after the other; no call is refused."""
        await self._replacement.roll()

    async def _kill(self) -> None:
        self._processes.is_stopping = True  # first: nothing may start while the rest ends
        await self._replacement.close()
        self._processes.kill()
