"""The parent of a server's processes. It never imports gRPC, so that processes can be started at any time.

Each place has a process that serves, and at times its replacement, which must be ready before
the old one is told to end. A process goes through these states:

    starting ──ready──→ serving ──told to end──→ draining ──→ gone
        └───────────────── crashed: a new one, after a pause ──┘
"""

import asyncio
import contextlib
import pickle
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from yelpaze.model.errors import MisuseError, StoppedError
from yelpaze.process.child import Child
from yelpaze.process.frames import encode
from yelpaze.process.memory import rss_of
from yelpaze.process.parenthood import is_loading
from yelpaze.serving.address import Address, Held, can_share_ports
from yelpaze.serving.control import Drain, Failed, Peer, Peers, Ready, Report, Task
from yelpaze.serving.options import Options, credentials_of

_MAIN = "yelpaze.serving.process:main"
_PAUSE_BASE, _PAUSE_CAP, _SOUND_SECONDS = 0.1, 10.0, 10.0
_FAILED_STARTS = 3
_TICK = 0.2
_START_SECONDS = 60.0
_EARLY = 0.1  # ages are spread by that share, so that not all processes are replaced at once

State = Literal["starting", "serving", "draining"]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes have done, those that are gone too.

    `started` by method; `handled` by method and status; `seconds` by method: how many calls took at most
    each of `control.BUCKETS`, how many longer, and the sum.
    """

    started: dict[str, int]
    handled: dict[tuple[str, str], int]
    seconds: dict[str, list[float]]
    running: int
    waiting: int
    processes: int
    restarts: dict[str, int]


class _Process(Child):
    """One process, as the supervisor sees it."""

    def __init__(self, supervisor: "Supervisor", place: int, number: int) -> None:
        super().__init__()
        self._supervisor = supervisor
        self.place = place
        self.id = f"{supervisor.run_id}-{number}"
        self.state: State = "starting"
        self.address: Address | None = None
        self.since = asyncio.get_running_loop().time()
        self.replaced_by: _Process | None = None
        self.report: Report | None = None
        self.failed: Failed | None = None

    def received(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Report):
                self.report = message
            elif isinstance(message, Failed):
                self.failed = message
            elif isinstance(message, Ready):
                self._supervisor.on_ready(self, message)

    def lost(self) -> None:
        self._supervisor.on_lost(self)


class Supervisor:
    """Runs `register`'s servicers in many processes at one address.

    `notes` gets a line for each thing that an operator should know. Raises MisuseError, InputError.
    """

    def __init__(
        self,
        register: Callable[..., Any],
        listen: str,
        options: Options,
        *,
        notes: Callable[[str], None] = lambda _: None,
    ) -> None:
        if is_loading():
            raise MisuseError(
                "a process of the server would start the server again: put what starts it "
                'under `if __name__ == "__main__":`'
            )
        self._register = _pickled(register)
        self._listen = Address.parse(listen)
        self._options = options
        self._credentials = credentials_of(options)
        self._notes = notes
        self._numbers = 0
        self._processes: list[_Process] = []
        self._failures = Counter[int]()
        self._gone: list[Report] = []
        self._restarts = Counter[str]()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._held: Held | None = None
        self.run_id = f"{random.getrandbits(48):012x}"
        self.broken: str | None = None

    # ── start and end ───────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return (self._held.address if self._held is not None else self._listen).text

    @property
    def ports(self) -> list[str]:
        """Each serving process's own address."""
        return [one.address.text for one in self._serving() if one.address is not None]

    async def start(self) -> None:
        """Start all processes and wait until they serve. Raises InputError, StoppedError."""
        self._held = Held(self._listen)
        try:
            await asyncio.gather(*(self._start(place) for place in range(self._options.processes)))
            async with asyncio.timeout(_START_SECONDS):
                while len(self._serving()) < self._options.processes and not self.broken:
                    await self._change()
        except OSError as error:
            await self._kill()
            raise StoppedError(f"the processes cannot start: {error}") from None
        except TimeoutError:
            await self._kill()
            raise StoppedError(f"the processes did not start within {_START_SECONDS:g} s") from None
        if self.broken:
            await self._kill()
            raise StoppedError(self.broken)
        self._keep(self._watch())

    async def run(self) -> None:
        """Serve until `stop`, or until processes can't be started any more. Raises StoppedError."""
        while not self._is_stopping and not self.broken:
            await self._change()
        if self.broken:
            await self._kill()
            raise StoppedError(self.broken)

    async def stop(self) -> None:
        """Take no more calls, let those under way end within the grace, and stop all processes."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._changed.set()
        for process in list(self._processes):
            if process.state == "starting":
                process.kill()
            else:
                self._drain(process)
        options = self._options
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.drain + options.grace + 5):
                while self._processes:
                    await self._change()
        await self._kill()

    async def roll(self) -> None:
        """Replace all processes, one after the other; no call is refused."""
        old = self._serving()
        for process in old:
            if process in self._processes and process.state == "serving" and not self._is_stopping:
                await self._replace(process, "rolled")
        while any(process in self._processes for process in old) and not self._is_stopping:
            await self._change()
        self._notes("all processes have been replaced")

    async def _kill(self) -> None:
        self._is_stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.reap()
        self._processes.clear()
        if self._held is not None:
            self._held.close()
            if self._listen.path:
                Path(self._listen.path).unlink(missing_ok=True)  # noqa: ASYNC240  a local name

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _keep(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── processes ───────────────────────────────────────────────────────────────

    def _serving(self) -> list[_Process]:
        return [process for process in self._processes if process.state == "serving"]

    async def _start(self, place: int) -> _Process:
        self._numbers += 1
        process = _Process(self, place, self._numbers)
        assert self._held is not None
        shared: Address | None = self._held.address
        own: Address | None = self._own_address(self._numbers)
        if self._options.processes == 1 and self._listen.path:
            own = None
        elif not can_share_ports() or self._listen.path:
            # One process can have the address itself; it tells clients of the others.
            shared = shared if place == 0 else None
        task = Task(
            id=process.id,
            register=self._register,
            preparation=_preparation(),
            options=self._options,
            credentials=self._credentials,
            listen=shared,
            own=own,
        )
        process.address = own or shared
        self._processes.append(process)
        await process.start(_MAIN, encode(task), keep_stdout=True)
        return process

    def _own_address(self, number: int) -> Address:
        assert self._held is not None
        if self._listen.path:
            return self._listen.beside(number)
        shared, ports = self._held.address, self._options.private_ports
        if ports is None:
            return shared.at(0)
        taken = {process.address.port for process in self._processes if process.address is not None}
        for port in range(ports[0], ports[1] + 1):
            if port not in taken:
                with contextlib.suppress(Exception):
                    Held(shared.at(port)).close()
                    return shared.at(port)
        raise StoppedError(
            f"no port from {ports[0]} to {ports[1]} is free: private_ports needs two for each process, "
            "since a replacement starts before the old one ends"
        )

    def on_ready(self, process: _Process, message: Ready) -> None:
        """A process takes calls."""
        if self._is_stopping:
            process.kill()
            return
        process.state = "serving"
        process.since = asyncio.get_running_loop().time()
        if process.address is not None and not process.address.path:
            process.address = process.address.at(message.port)
        self._tell_peers()
        self._changed.set()

    def _tell_peers(self) -> None:
        peers = Peers(tuple(Peer(one.id, one.address) for one in self._serving() if one.address is not None))
        frame = encode(peers)
        for process in self._processes:
            if process.state != "starting":
                process.send(frame)

    def _drain(self, process: _Process) -> None:
        if process.state == "draining":
            return
        process.state = "draining"
        process.send(encode(Drain()))
        self._tell_peers()

    def on_lost(self, process: _Process) -> None:
        """A process is gone: told to, crashed, or never started."""
        if process not in self._processes:
            return
        process.kill()
        how, _ = process.reap()
        self._processes.remove(process)
        if process.address is not None and process.address.path:
            Path(process.address.path).unlink(missing_ok=True)
        if process.report is not None:
            self._gone.append(process.report)
            self._gone = [_summed(self._gone)]
        self._tell_peers()
        self._changed.set()
        if self._is_stopping or process.state == "draining":
            return
        self._restarts["crashed"] += 1
        self._replace_lost(process, how)

    def _replace_lost(self, process: _Process, how: str) -> None:
        lasted = asyncio.get_running_loop().time() - process.since
        is_sound = process.state == "serving" and lasted > _SOUND_SECONDS
        failures = self._failures[process.place] = 1 if is_sound else self._failures[process.place] + 1
        why = process.failed.message if process.failed is not None else how
        if process.state == "starting" and (process.failed is not None or failures >= _FAILED_STARTS):
            has_served = any(report.started for report in self._gone) or bool(self._serving())
            if not has_served:
                text = process.failed.traceback if process.failed is not None else ""
                self._break(f"the processes cannot start: {why}" + (f"\n{text}" if text else ""))
                return
        pause = min(_PAUSE_CAP, _PAUSE_BASE * 2 ** (failures - 1)) if failures > 1 else 0.0
        self._notes(f"process {process.pid} was lost: {why}; a new one starts in {pause:g} s")
        self._keep(self._start_later(process.place, pause))

    async def _start_later(self, place: int, pause: float) -> None:
        await asyncio.sleep(pause)
        if self._is_stopping:
            return
        try:
            await self._start(place)
        except (OSError, StoppedError) as error:
            self._break(f"a process could not be started again: {error}")

    def _break(self, why: str) -> None:
        self.broken = why
        self._changed.set()

    # ── replacing those that serve well ─────────────────────────────────────────

    async def _replace(self, process: _Process, why: str) -> None:
        """Start another; when it serves, the old one ends."""
        self._restarts[why] += 1
        # A path can be listened on by one process alone: it goes first.
        if self._listen.path and (process.place == 0 or self._options.processes == 1):
            self._drain(process)
            while process in self._processes:
                await self._change()
            await self._serves(await self._start(process.place))
            return
        process.replaced_by = other = await self._start(process.place)
        await self._serves(other)
        if other.state == "serving":
            self._drain(process)
        else:
            process.replaced_by = None

    async def _serves(self, process: _Process) -> None:
        """Until it does, or is gone."""
        while process.state == "starting" and process in self._processes and not self._is_stopping:
            await self._change()

    async def _watch(self) -> None:
        """Replace processes that are too old, too large or have done enough; notice those that are gone."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            for process in list(self._processes):
                if process.ended():
                    process.abort()
                elif process.state == "serving" and process.replaced_by is None:
                    why = self._worn(process, loop.time())
                    if why is not None:
                        self._notes(f"process {process.pid} is replaced: {why}")
                        process.replaced_by = process  # until it has one
                        self._keep(self._replace(process, why))

    def _worn(self, process: _Process, now: float) -> str | None:
        options, report = self._options, process.report
        if options.max_calls is not None and report is not None and report.calls >= options.max_calls:
            return "calls"
        if options.max_age is not None:
            spread = _EARLY * process.place / max(1, options.processes)
            if now - process.since >= options.max_age * (1 - spread):
                return "age"
        if options.max_memory is not None and rss_of(process.pid) * 1024 * 1024 >= options.max_memory:
            return "memory"
        return None

    # ── what they have done ─────────────────────────────────────────────────────

    def totals(self) -> Totals:
        """The sum over all processes, as they last reported (once a second)."""
        now = [process.report for process in self._processes if process.report is not None]
        whole = _summed([*self._gone, *now])
        return Totals(
            started=whole.started,
            handled=whole.handled,
            seconds=whole.seconds,
            running=sum(report.running for report in now),
            waiting=sum(report.waiting for report in now),
            processes=len(self._serving()),
            restarts=dict(self._restarts),
        )


def _summed(reports: list[Report]) -> Report:
    started, handled = Counter[str](), Counter[tuple[str, str]]()
    seconds: dict[str, list[float]] = {}
    for report in reports:
        started.update(report.started)
        handled.update(report.handled)
        for method, values in report.seconds.items():
            before = seconds.get(method, [0.0] * len(values))
            seconds[method] = [a + b for a, b in zip(before, values, strict=True)]
    return Report(started=dict(started), handled=dict(handled), seconds=seconds, running=0, waiting=0)


def _pickled(register: Callable[..., Any]) -> bytes:
    try:
        return pickle.dumps(register)
    except Exception as error:  # noqa: BLE001  pickling runs user code
        name = getattr(register, "__qualname__", repr(register))
        raise MisuseError(
            f"{name} can't be found by other processes: define it at the top level of a module "
            f"({type(error).__name__}: {error})"
        ) from None


def _preparation() -> dict[str, Any]:
    """What a process needs to find this program's modules again, as multiprocessing does it."""
    found: dict[str, Any] = get_preparation_data("yelpaze")
    for name in ("authkey", "start_method"):
        found.pop(name, None)
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) is None or _is_ours(found):
        found.pop("init_main_from_name", None)
        found.pop("init_main_from_path", None)
    return found


def _is_ours(found: dict[str, Any]) -> bool:
    """Our own command line need not be imported again."""
    name = found.get("init_main_from_name") or ""
    path = Path(found.get("init_main_from_path") or "")
    return name.startswith("yelpaze.") or path.name == "yelpaze"


STOPPING = (signal.SIGTERM, signal.SIGINT)
