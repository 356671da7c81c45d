"""A Redis of its own: on a free port, with its data in a folder that is given."""

import shutil
import socket
import subprocess
from pathlib import Path

from support.nginx import free_port, wait_for_port


class Redis:
    """`url` names it. `kill` and `start` are for tests of faults.

    With `keeps`, every write is on the disk before it is answered, so that a kill loses nothing; without,
    a kill loses all. `flags` go to redis-server.
    """

    def __init__(self, folder: Path, *flags: str, keeps: bool = False, port: int = 0) -> None:
        self._folder = folder
        self._flags = flags
        self._keeps = keeps
        self._process: subprocess.Popen | None = None
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._keeps else "no",
            "appendfsync": "always",
        }
        settings = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            ["redis-server", *settings, *self._flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)
        while self.ask("PING") != b"+PONG":  # it reads its data
            if self._process.poll() is not None:
                raise RuntimeError("Redis did not start")

    def ask(self, command: str) -> bytes:
        """Send a command; the first line of what it answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(f"{command}\r\n".encode())
            with connection.makefile("rb") as lines:
                return lines.readline().strip()

    def flush(self) -> None:
        """Forget everything."""
        assert self.ask("FLUSHALL") == b"+OK"

    def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
