"""What the scenarios share: programs of their own and where they come from, servers, loads, and memory.

Everything that is started here ends with the block that started it, by its own id; if this process
dies first, servers get SIGTERM from the kernel and loaders see their input end.
"""

import contextlib
import functools
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "grpc"))

from children import (  # noqa: E402  gRPC's scenarios need the same of their servers
    children_of,
    cpu_seconds,
    descendants,
    free_port,
    task_from_argv,
    wait_for_port,
)

__all__ = ["children_of", "cpu_seconds", "descendants", "free_port", "task_from_argv", "wait_for_port"]

CACHE = HERE.parents[1] / ".cache"
_STOP_SECONDS = 40.0  # a gateway may take its grace time


@functools.cache
def rivals_python() -> Path:
    """The interpreter of the rivals' environment, which is made where it is missing or out of date."""
    home, lock = CACHE / "live-rivals", HERE / "rivals.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = home / "lock.sha256"
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", lock], check=True, timeout=300)
        stamp.write_text(digest)
    return home / "bin" / "python"


@functools.cache
def loader_program() -> Path:
    program = CACHE / "live" / "loader"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "loader", check=True, timeout=180)
    return program


def cores() -> tuple[int, int]:
    """One for loads, one for the server."""
    found = sorted(os.sched_getaffinity(0))
    return found[0], found[-1]


@contextlib.contextmanager
def running(
    command: Sequence[object], *, core: int | None = None, environment: dict[str, str] | None = None
) -> Iterator[int]:
    """A program in a process of its own; its id. SIGTERM ends it, SIGKILL it and all below if that doesn't."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *pinned, *map(str, command)],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        below = descendants(process.pid)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in (*below, process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()


@contextlib.contextmanager
def redis() -> Iterator[tuple[int, int]]:
    """A Redis that keeps nothing on disk: its port and its process."""
    port = free_port()
    flags = (
        "--bind",
        "127.0.0.1",
        "--port",
        port,
        "--save",
        "",
        "--appendonly",
        "no",
        "--loglevel",
        "warning",
    )
    with running(["redis-server", *flags]) as pid:
        wait_for_port(port, pid)
        yield port, pid


class Loader:
    """Many clients in one process: loader/, which answers each command with its figures."""

    def __init__(self, task: dict[str, Any], core: int | None) -> None:
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self.task = task
        self.process = subprocess.Popen(
            [*pinned, loader_program(), json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._rest = b""

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def answer(self, seconds: float = 120.0) -> dict[str, Any]:
        assert self.process.stdout is not None
        ends = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not select.select([self.process.stdout], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise SystemExit(f"the loader gave no answer within {seconds:.0f} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise SystemExit("the loader is gone")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command: str, seconds: float = 120.0) -> dict[str, Any]:
        self.tell(command)
        return self.answer(seconds)

    def opened(self, at_once: int = 200) -> dict[str, Any]:
        """Connect all; a bench with fewer connections than it says would not be one."""
        return all_open(self.task, self.ask(f"open {at_once}"))

    def delivered(self, times: int, burst: int) -> dict[str, Any]:
        """Each message reached each connection once, in its order."""
        self.ask("reset")
        found = self.ask(f"publish {times} {burst}", 600.0)
        wanted = found["open"] * times * burst
        if found["received"] != wanted or found["wrong"] or found["open"] != self.task["count"]:
            raise SystemExit(f"{wanted} deliveries wanted: {found}")
        return found


def all_open(task: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    if found["open"] != task["count"]:
        raise SystemExit(f"{task['count']} connections wanted: {found}")
    return found


@contextlib.contextmanager
def loading(task: dict[str, Any], core: int | None = None) -> Iterator[Loader]:
    loader = Loader(task, core)
    try:
        yield loader
    finally:
        assert loader.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            loader.process.stdin.close()
        try:
            loader.process.wait(10)
        except subprocess.TimeoutExpired:
            loader.process.kill()
            loader.process.wait()


class Memory(NamedTuple):
    """Of a process and all below it, in KiB."""

    rss: int  # VmRSS; pages that several processes share count once for each
    pss: int  # shared pages count in part

    def __sub__(self, other: object) -> "Memory":
        assert isinstance(other, Memory)
        return Memory(self.rss - other.rss, self.pss - other.pss)


def memory(pid: int) -> Memory:
    rss = pss = 0
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{one}/smaps_rollup").read_text().split()
            rss += int(fields[fields.index("Rss:") + 1])
            pss += int(fields[fields.index("Pss:") + 1])
    return Memory(rss, pss)


def quiet(pid: int, seconds: float = 20.0) -> None:
    """Until those processes take less than a twentieth of a core, so that one measure ends before the next."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        before = cpu_seconds(pid)
        time.sleep(0.4)
        if cpu_seconds(pid) - before < 0.02:
            return


def until(done: Callable[[], bool], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not done():
        if time.monotonic() > ends:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
