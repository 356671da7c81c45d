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
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from yelpaze.compute.protocol import Unit
from yelpaze.compute.workers import LOCAL, Workers
from yelpaze.model.errors import StoppedError
from yelpaze.version import __version__

_POLL = 0.02
_LONGEST_FOLDER = 76
_LAST_LINES = 2000  # characters


async def with_local(workers: Workers, spec: str, unit: Unit, stack: AsyncExitStack) -> Workers:
    """The workers, `local` replaced by the address of that one, which is there as long as `stack`.

    `spec`: what `yelpaze worker` serves; `unit`: what is in it, with its files.
    """
    if LOCAL not in workers.targets:
        return workers
    found = await stack.enter_async_context(local_worker(spec, unit))
    targets = tuple(found if target == LOCAL else target for target in workers.targets)
    return msgspec.structs.replace(workers, targets=targets)


@asynccontextmanager
async def local_worker(spec: str, unit: Unit) -> AsyncIterator[str]:
    """Its address, as long as the context lasts. Raises StoppedError if it can't be started."""
    place = _place_of(spec, unit)
    users = await _locked(place.with_suffix(".users"), fcntl.LOCK_SH)
    try:
        starting = await _locked(place.with_suffix(".start"), fcntl.LOCK_EX)
        try:
            if not _answers(place):
                await _start(spec, place)
        finally:
            os.close(starting)
        yield f"unix:{place.with_suffix('.sock')}"
    finally:
        os.close(users)


def _place_of(spec: str, unit: Unit) -> Path:
    """Another source, folder, Python or version has another worker."""
    what = (spec, os.getcwd(), unit.name, unit.functions, sorted(unit.files.items()))  # noqa: PTH109
    key = blake2b(msgspec.msgpack.encode((what, sys.executable, __version__)), digest_size=8).hexdigest()
    return _folder() / key


def _folder() -> Path:
    """A folder that nobody else can write to: whoever can reach the socket can call functions."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base or "") / "yelpaze"
    # There are bounds to a socket's path; and after `su` the variable names another user's folder.
    if not base or len(os.fsencode(folder)) > _LONGEST_FOLDER or not os.access(base, os.W_OK | os.X_OK):
        folder = Path(tempfile.gettempdir()) / f"yelpaze-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoppedError(f"{folder}: cannot be made: {error.strerror}") from None
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoppedError(f"{folder}: must be a folder of yours that nobody else may use (chmod 700)")
    return folder


async def _locked(path: Path, how: int) -> int:
    """A lock, once it is free: held as long as the descriptor is open."""
    while (found := _lock(path, how)) is None:  # noqa: ASYNC110  the kernel tells nobody
        await asyncio.sleep(_POLL)
    return found


def _lock(path: Path, how: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place.with_suffix(".sock")))
        except OSError:
            return False
    return True


async def _start(spec: str, place: Path) -> None:
    """Start it and wait until it answers; it gives up by itself if that takes too long."""
    log = place.with_suffix(".log")
    command = [sys.executable, "-m", "yelpaze.cli.main", "worker", spec]
    command += [
        "--listen",
        f"unix:{place.with_suffix('.sock')}",
        "--while-used",
        str(place.with_suffix(".users")),
    ]
    # It finds what we find.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  returns at once; our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # it may end before we do
    try:
        while not _answers(place) and process.returncode is None:  # noqa: ASYNC110  nor does the process
            await asyncio.sleep(_POLL)
    except asyncio.CancelledError:
        process.terminate()
        raise
    if process.returncode is not None:
        why = log.read_text(errors="replace")[-_LAST_LINES:].strip() or "it ended without a word"
        raise StoppedError(f"the local worker can't be started: {why.removeprefix('yelpaze: ')}")


async def until_unused(users: Path, seconds: float) -> int | None:
    """In the worker: until nobody has held the lock for that long; the lock, ours from then on.

    None if it is gone, and with it the way to this worker.
    """
    since: float | None = None
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(seconds / 4)
        try:
            held = _lock(users, fcntl.LOCK_EX)
        except OSError:
            return None
        if held is None:
            since = None
            continue
        since = since or loop.time()
        if loop.time() - since >= seconds:
            return held
        os.close(held)
