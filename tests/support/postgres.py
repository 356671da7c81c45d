"""A PostgreSQL server of its own: on a free port, in a folder that goes with it."""

import glob
import os
import shutil
import subprocess
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from support.ports import free_port


def binary(name: str) -> str | None:
    """Debian keeps the server's programs out of the path."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else shutil.which(name)


class Postgres:
    """`url` names its database; `kill` and `start` are for tests of faults."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="yelpaze-pg-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen | None = None
        # The server refuses to run as root.
        self._as = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        self.port = free_port()
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        options = ["-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8"]
        command = [binary("initdb"), "-D", self._data, *options]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **self._as)
        self.start()

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": str(self._folder),
            "fsync": "off",  # the machine itself does not crash here
            # A backend ends some time after its client has closed: on a busy machine, many wait for that.
            "max_connections": 500,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [binary("postgres"), "-D", self._data, *settings],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        ready = [binary("pg_isready"), "-q", "-t", "30", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"t{uuid.uuid4().hex}"
        command = [binary("psql"), "-q", "-d", self.url, "-c", f"CREATE DATABASE {name}"]
        subprocess.run(command, check=True, capture_output=True)
        return f"{self.url.rpartition('/')[0]}/{name}"

    def kill(self) -> None:
        """As a crash would: its children go, too."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(3)  # SIGQUIT: at once, without a checkpoint
        self._process.wait(30)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
