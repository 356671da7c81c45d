"""The processes of a server as a group: where each listens, with which certificate, who the others are.

When one is started or ends is decided in `process/`.
"""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

from yelpaze.grpc.address import Address, Held, can_share_ports
from yelpaze.grpc.control import Members, ProcessAddress, ServerTask
from yelpaze.grpc.options import Credentials, Options, credentials_of
from yelpaze.grpc.program import preparation
from yelpaze.grpc.server_process import ServerProcess
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.process.frames import encode
from yelpaze.process.messages import Ready


class ServerGroup:
    """The processes, and the address that they share. Raises InputError.

    `program` is pickled; `processes` returns those that have not ended.
    """

    def __init__(
        self,
        program: bytes,
        listen: Address,
        options: Options,
        *,
        report: Report,
        processes: Callable[[], list[ServerProcess]],
    ) -> None:
        self._program = program
        self._options = options
        self._report = report
        self._credentials = credentials_of(options)
        self._run_id = f"{random.getrandbits(48):012x}"
        self._numbers = 0
        self._held: Held | None = None
        self._processes = processes
        self.address = listen

    def hold(self) -> None:
        """Take the shared address. Raises InputError."""
        self._held = Held(self.address)
        self.address = self._held.address

    def release(self) -> None:
        """Give the address back."""
        if self._held is not None:
            self._held.close()
            self._held = None
            if self.address.path:
                Path(self.address.path).unlink(missing_ok=True)

    def create(self, place: int) -> ServerProcess:
        """One more process for that place. Raises StoppedError."""
        self._numbers += 1
        shared, own = self._addresses(place, self._numbers)
        return ServerProcess(
            ServerTask(
                id=f"{self._run_id}-{self._numbers}",
                place=place,
                program=self._program,
                preparation=preparation(),
                options=self._options,
                credentials=self._current_credentials(),
                listen=shared,
                own=own,
            ),
            self._report,
        )

    def _current_credentials(self) -> Credentials | None:
        """Read the certificate files again: they may have been renewed."""
        try:
            self._credentials = credentials_of(self._options)
        except InputError as error:
            text = f"{error}; the certificate that was read before is used"
            self._report(Notice("certificate.kept", text, Level.WARNING))
        return self._credentials

    def _addresses(self, place: int, number: int) -> tuple[Address | None, Address | None]:
        """Where it listens with others, and by itself."""
        shared = self.address
        if shared.path and self._options.processes == 1:
            return shared, None
        taken = {process.address.port for process in self._processes() if process.address is not None}
        own = own_address(shared, number, self._options.private_ports, taken)
        # One process can have the address itself; it tells clients of the others.
        is_shared = place == 0 or (can_share_ports() and not shared.path)
        return shared if is_shared else None, own

    def is_exclusive(self, process: ServerProcess) -> bool:
        """Whether it has the path that all clients use, which one process alone can listen on."""
        return bool(self.address.path) and (process.place == 0 or self._options.processes == 1)

    def on_ready(self, process: ServerProcess, message: Ready) -> None:
        """A process serves, at that port of its own."""
        if process.address is not None and not process.address.path:
            process.address = process.address.at(message.port)

    def on_gone(self, process: ServerProcess) -> None:
        """A process has ended."""
        if process.address is not None and process.address.path:
            Path(process.address.path).unlink(missing_ok=True)

    def send_members(self) -> None:
        """Tell all processes which of them serve, so that they can tell their clients."""
        processes = self._processes()
        members = Members(
            tuple(
                ProcessAddress(one.id, one.address)
                for one in processes
                if one.address is not None and one.state == "serving"
            )
        )
        frame = encode(members)
        for process in processes:
            if process.state != "starting":
                process.send(frame)


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
