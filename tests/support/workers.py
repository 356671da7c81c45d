"""`yelpaze worker` as its own process, for tests that need a real one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


class Worker:
    """A running worker: its address, and what it has said."""

    def __init__(self, process: subprocess.Popen[str], said: list[str], address: str) -> None:
        self.process = process
        self.said = said
        self.address = address

    def until(self, text: str) -> str:
        """The next line that it says with that text in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said: {''.join(self.said)}")


@contextmanager
def worker(
    spec: str | Path, *flags: str, listen: str = "127.0.0.1:0", cwd: Path | None = None
) -> Iterator[Worker]:
    """Start one, wait until it serves, and stop it afterwards."""
    command = [sys.executable, "-m", "yelpaze.cli.main", "worker", str(spec), "--listen", listen, *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        found = Worker(process, [], "")
        line = found.until(" descriptors")
        found.address = line.partition("worker at ")[2].partition(",")[0]
        yield found
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
