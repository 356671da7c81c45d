"""The processes that a server has: how one is started, where it listens, what it is told, how it goes.

When one is to start or to end is decided by supervisor.py and replacement.py.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path

from yelpaze.grpc.address import Address, Held, can_share_ports
from yelpaze.grpc.child import ServerProcess
from yelpaze.grpc.control import Drain, Members, ProcessAddress, ProcessReport, Ready, Task
from yelpaze.grpc.options import Options, credentials_of
from yelpaze.grpc.program import preparation
from yelpaze.grpc.totals import summed
from yelpaze.model.errors import StoppedError
from yelpaze.process.frames import encode

_MAIN = "yelpaze.grpc.process:main"


class ServerProcesses:
    """All processes of a server, and the address that they share. Raises InputError.

    `register` is pickled. `gone` is what processes have done that are there no more; `lost` is called with
    each of them that nobody told to end, and with how it ended.
    """

    def __init__(self, register: bytes, listen: Address, options: Options) -> None:
        self._register = register
        self._options = options
        self._credentials = credentials_of(options)
        self._run_id = f"{random.getrandbits(48):012x}"
        self._numbers = 0
        self._held: Held | None = None
        self._changed = asyncio.Event()
        self.address = listen
        self.processes: list[ServerProcess] = []
        self.gone: ProcessReport = summed([])
        self.lost: Callable[[ServerProcess, str], None] = lambda _process, _how: None
        self.is_stopping = False

    def serving(self) -> list[ServerProcess]:
        """Those that take calls."""
        return [process for process in self.processes if process.state == "serving"]

    def hold(self) -> None:
        """Take the shared address. Raises InputError."""
        self._held = Held(self.address)
        self.address = self._held.address

    async def change(self) -> None:
        """Until something changes."""
        self._changed.clear()
        await self._changed.wait()

    def notify_change(self) -> None:
        """Something has changed."""
        self._changed.set()

    # ── how one comes ───────────────────────────────────────────────────────────

    async def start(self, place: int) -> ServerProcess:
        """Start one more, for that place. Raises OSError, StoppedError."""
        self._numbers += 1
        shared, own = self._addresses(place, self._numbers)
        process = ServerProcess(
            f"{self._run_id}-{self._numbers}",
            place,
            own or shared,
            on_ready=self._on_ready,
            on_lost=self._on_lost,
        )
        task = Task(
            id=process.id,
            place=place,
            register=self._register,
            preparation=preparation(),
            options=self._options,
            credentials=self._credentials,
            listen=shared,
            own=own,
        )
        self.processes.append(process)
        await process.start(_MAIN, encode(task), keep_stdout=True)
        return process

    def _addresses(self, place: int, number: int) -> tuple[Address | None, Address | None]:
        """Where it listens with others, and by itself."""
        shared = self.address
        if shared.path and self._options.processes == 1:
            return shared, None
        taken = {process.address.port for process in self.processes if process.address is not None}
        own = own_address(shared, number, self._options.private_ports, taken)
        # One process can have the address itself; it tells clients of the others.
        is_shared = place == 0 or (can_share_ports() and not shared.path)
        return shared if is_shared else None, own

    def _on_ready(self, process: ServerProcess, message: Ready) -> None:
        if self.is_stopping:
            process.kill()
            return
        process.state = "serving"
        process.since = asyncio.get_running_loop().time()
        if process.address is not None and not process.address.path:
            process.address = process.address.at(message.port)
        self._notify_members()
        self.notify_change()

    def _notify_members(self) -> None:
        members = Members(
            tuple(ProcessAddress(one.id, one.address) for one in self.serving() if one.address is not None)
        )
        frame = encode(members)
        for process in self.processes:
            if process.state != "starting":
                process.send(frame)

    # ── how one goes ────────────────────────────────────────────────────────────

    def drain(self, process: ServerProcess) -> None:
        """Tell it to take no more calls, end those under way, and end."""
        if process.state == "draining":
            return
        process.state = "draining"
        process.send(encode(Drain()))
        self._notify_members()

    def _on_lost(self, process: ServerProcess) -> None:
        """It is gone: told to, crashed, or never started."""
        if process not in self.processes:
            return
        process.kill()
        how, _ = process.reap()
        self.processes.remove(process)
        if process.address is not None and process.address.path:
            Path(process.address.path).unlink(missing_ok=True)
        if process.report is not None:
            self.gone = summed([self.gone, process.report])
        self._notify_members()
        self.notify_change()
        if not self.is_stopping and process.state != "draining":
            self.lost(process, how)

    def stop(self) -> None:
        """Tell all to end; those that come later end at once."""
        self.is_stopping = True
        self.notify_change()
        for process in list(self.processes):
            if process.state == "starting":
                process.kill()
            else:
                self.drain(process)

    def kill(self) -> None:
        """End those that are still there, and give the address back."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.reap()
        self.processes.clear()
        self.notify_change()
        if self._held is not None:
            self._held.close()
            if self.address.path:
                Path(self.address.path).unlink(missing_ok=True)


def own_address(shared: Address, number: int, ports: tuple[int, int] | None, taken: set[int]) -> Address:
    """The own address of the process with that number: one of the `ports`, or any. Raises StoppedError."""
    if shared.path:
        return shared.beside(number)
    if ports is None:
        return shared.at(0)
    for port in range(ports[0], ports[1] + 1):
        if port not in taken:
            with contextlib.suppress(Exception):
                Held(shared.at(port)).close()
                return shared.at(port)
    raise StoppedError(
        f"no port from {ports[0]} to {ports[1]} is free: private_ports needs two for each process, "
        "since a replacement starts before the old one ends"
    )
