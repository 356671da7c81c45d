"""A worker of this machine that all clients of one source share, with no address to agree on.

Beside its Unix socket lie two lock files. Each client holds `users` as long as it lives, so the kernel
knows whether anyone is left, even of clients that were killed; `start` is held by the one client that
looks whether a worker runs and starts it. The worker ends when nobody holds `users` any more.
"""

import asyncio
import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from yelpaze.compute.protocol import Unit
from yelpaze.compute.workers import LOCAL, Workers
from yelpaze.model.errors import StoppedError
from yelpaze.version import __version__

_START_SECONDS = 60.0
_POLL = 0.02
_LAST_LINES = 2000  # characters


async def with_local(workers: Workers, spec: str, unit: Unit, stack: AsyncExitStack) -> Workers:
    """The workers, `local` replaced by the address of that one, which is there as long as `stack`."""
    if LOCAL not in workers.targets:
        return workers
    found = await stack.enter_async_context(local_worker(spec, unit))
    targets = tuple(found if target == LOCAL else target for target in workers.targets)
    return msgspec.structs.replace(workers, targets=targets)


@asynccontextmanager
async def local_worker(spec: str, unit: Unit) -> AsyncIterator[str]:
    """Its address, as long as the context lasts. Raises StoppedError if it can't be started."""
    place = _place_of(spec, unit)
    users = await asyncio.to_thread(_locked, place.with_suffix(".users"), fcntl.LOCK_SH)
    try:
        await asyncio.to_thread(_started, spec, place)
        yield f"unix:{place.with_suffix('.sock')}"
    finally:
        os.close(users)


def _place_of(spec: str, unit: Unit) -> Path:
    """Another source, Python or version has another worker."""
    what = (spec, unit.name, unit.functions, sorted(unit.files.items()), sys.executable, __version__)
    key = blake2b(msgspec.msgpack.encode(what), digest_size=8).hexdigest()
    return _folder() / key


def _folder() -> Path:
    """A folder that nobody else can write to: whoever can reach the socket can call functions."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "yelpaze" if base else Path(tempfile.gettempdir()) / f"yelpaze-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoppedError(f"{folder}: must be a folder of yours that nobody else may use (chmod 700)")
    return folder


def _locked(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, how)
    return descriptor


def _started(spec: str, place: Path) -> None:
    starting = _locked(place.with_suffix(".start"), fcntl.LOCK_EX)
    try:
        if not _answers(place):
            _start(spec, place)
    finally:
        os.close(starting)


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place.with_suffix(".sock")))
        except OSError:
            return False
    return True


def _start(spec: str, place: Path) -> None:
    log = place.with_suffix(".log")
    command = [sys.executable, "-m", "yelpaze.cli.main", "worker", spec]
    command += [
        "--listen",
        f"unix:{place.with_suffix('.sock')}",
        "--while-used",
        str(place.with_suffix(".users")),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own program
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    ends = time.monotonic() + _START_SECONDS
    while not _answers(place):
        if process.poll() is not None or time.monotonic() > ends:
            process.kill()
            why = (
                log.read_text(errors="replace")[-_LAST_LINES:].strip()
                or f"it did not start in {_START_SECONDS:g} s"
            )
            raise StoppedError(f"the local worker can't be started: {why.removeprefix('yelpaze: ')}")
        time.sleep(_POLL)
    threading.Thread(target=process.wait, daemon=True).start()  # it may end before we do


async def until_unused(users: Path, seconds: float) -> int:
    """In the worker: until nobody has held the lock for that long; the lock, ours from then on."""
    since: float | None = None
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(seconds / 4)
        try:
            held = _locked(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            since = None
            continue
        since = since or loop.time()
        if loop.time() - since >= seconds:
            return held
        os.close(held)
