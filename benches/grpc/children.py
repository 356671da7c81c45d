"""What the scenarios share: generated code, servers as child processes, and the CPU time they took.

A child is stopped by its own id when its block ends, and ends by itself if this process dies first.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from yelpaze.rpc import Channel

HERE = Path(__file__).parent
_START_SECONDS = 30.0


class Generated(NamedTuple):
    """The code of calls.proto: where servers find it, and what their clients need of it."""

    folder: Path
    Order: Any
    Stub: Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def task_from_argv() -> dict:
    return json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


@contextlib.contextmanager
def generated() -> Iterator[Generated]:
    """What protoc makes of calls.proto, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python", "grpclib_python")]
        plugin = Path(sys.executable).parent / "protoc-gen-grpclib_python"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", *flags]
        command += [f"--plugin=protoc-gen-grpclib_python={plugin}", "calls.proto"]
        subprocess.run(command, check=True, timeout=60)
        sys.path.insert(0, folder)
        try:
            messages, stub = import_module("calls_pb2"), import_module("calls_pb2_grpc").CallsStub
            yield Generated(Path(folder), messages.Order, stub)
        finally:
            sys.path.remove(folder)


@contextlib.contextmanager
def child(
    script: str, *arguments: object, code: Generated | None = None, core: int | None = None
) -> Iterator[int]:
    """A script of this folder in a process of its own; its id. SIGTERM ends it, SIGKILL if that doesn't."""
    command = ["setpriv", "--pdeathsig", "TERM"]
    if core is not None:
        command += ["taskset", "-c", str(core)]
    command += [sys.executable, str(HERE / script), *map(str, arguments)]
    paths = (code and code.folder, HERE, os.environ.get("PYTHONPATH"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        yield process.pid
    finally:
        below = descendants(process.pid)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in (*below, process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()


def wait_for_port(port: int, pid: int) -> None:
    """Until somebody listens there; not if the server is gone."""
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"the server on port {port} did not start")


async def known(channel: "Channel", processes: int) -> None:
    """Until the channel knows each process by itself."""
    async with asyncio.timeout(_START_SECONDS):
        while sum(not peer.is_shared for peer in channel.peers.ready()) < processes:
            await asyncio.sleep(0.02)


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [below for one in found for below in descendants(one)]


def cpu_seconds(pid: int) -> float:
    """User and system time of that process and of all below it that live."""
    return sum(map(_own_cpu_seconds, (pid, *descendants(pid))))


def _own_cpu_seconds(pid: int) -> float:
    # What clock_getcpuclockid(3) gives: in nanoseconds, where /proc has hundredths of a second.
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def share(values: list[float], part: float) -> float:
    """The value that so large a part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
