"""The list of runs in the user's state folder: one small file a run.

`$XDG_STATE_HOME/yelpaze/runs/ID.json` says what a run was asked for and how it went, over all
the times that it was started; `ID.lock` is locked by the process that runs it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.model.errors import InputError
from yelpaze.model.json_text import decode_json, encode_json

_POINTS = 600


class Point(msgspec.Struct, frozen=True, array_like=True):
    """Rows that had ended, and failed, at a time of the run's own (seconds it has worked)."""

    seconds: float
    rows: int
    failed: int


class HostRecord(msgspec.Struct, kw_only=True):
    """What came of a host's calls; `latency` as `Histogram.counts()`."""

    requests: int = 0
    retries: int = 0
    failures: int = 0
    statuses: dict[str, int] = {}
    latency: dict[str, float] = {}


class Example(msgspec.Struct, frozen=True, array_like=True):
    """A row that failed, and why."""

    row: int
    step: str | None
    message: str


class RunRecord(msgspec.Struct, kw_only=True):
    """A run, as its file keeps it.

    Times are UNIX times; `seconds` is what it has worked; `repaired` rows had failed and were retried.
    """

    run: str
    flow: str
    flow_spec: str
    inputs: list[str]
    output: str
    failures_file: str
    folder: str
    limit: int | None = None
    sample: int | None = None
    started: float
    updated: float = 0.0
    state: str = "running"
    reason: str = ""
    seconds: float = 0.0
    sessions: int = 0
    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    repaired: int = 0
    requests: int = 0
    retries: int = 0
    peak_rss_mb: float = 0.0
    kinds: dict[str, int] = {}
    examples: dict[str, list[Example]] = {}
    steps: dict[str, dict[str, float]] = {}
    hosts: dict[str, HostRecord] = {}
    slowest: list[tuple[float, int]] = []
    timeline: list[Point] = []

    def add_point(self, point: Point) -> None:
        """Note how it stands; old points are thinned out when there are many."""
        if len(self.timeline) >= _POINTS:
            self.timeline = self.timeline[::2]
        self.timeline.append(point)


def new_id(flow: str, now: datetime) -> str:
    """A name for a run that people can read: `offers-20261121-093000-7f3a`."""
    word = "".join(c if c.isascii() and c.isalnum() else "-" for c in flow.lower()).strip("-") or "run"
    return f"{word}-{now:%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


class Runs:
    """The folder of runs."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _state_folder() / "runs"

    def save(self, record: RunRecord) -> None:
        """Write the record, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record.run}.json"
        other = path.with_suffix(".new")
        record.updated = time.time()
        try:
            other.write_bytes(encode_json(record))
            other.replace(path)
        except OSError:
            other.unlink(missing_ok=True)
            raise

    def lock(self, run: str) -> int:
        """Say that this process is running it; the descriptor holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / f"{run}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for pause in (0.0, 0.01, 0.02, 0.04, 0.08):  # `runs` holds a shared one for a moment
            time.sleep(pause)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return file
        os.close(file)
        raise BlockingIOError(errno.EWOULDBLOCK, "another process runs it under the same name")

    def load(self, run: str) -> RunRecord | None:
        """The record of that very run."""
        try:
            data = (self.folder / f"{run}.json").read_bytes()
            record = decode_json(data, RunRecord)
        except (OSError, msgspec.DecodeError):
            return None
        if record.state == "running" and not self._is_locked(run):
            record.state, record.reason = "killed", "its process is gone; the same command goes on"
        return record

    def _is_locked(self, run: str) -> bool:
        try:
            file = os.open(self.folder / f"{run}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(file)

    def all(self) -> Iterator[RunRecord]:
        """All records, the latest first."""
        found = (self.load(path.stem) for path in self.folder.glob("*.json"))
        yield from sorted((run for run in found if run), key=lambda run: run.started, reverse=True)

    def find(self, name: str, *, elsewhere: Callable[[RunRecord], bool] = lambda _: False) -> RunRecord:
        """A run by its id, the beginning of it, its output, or `last`: the last one of this folder.

        If this folder has none, `elsewhere` decides whether the last run of another one is meant.
        Raises InputError.
        """
        runs = list(self.all())
        if name == "last" and runs:
            return _last(runs, elsewhere)
        exact = [run for run in runs if run.run == name]
        path = str(Path(name).resolve())
        by_output = [run for run in runs if run.output in (name, path)]
        begins = [run for run in runs if run.run.startswith(name)]
        for found in (exact, by_output[:1], begins):
            if len(found) == 1:
                return found[0]
        if begins:
            names = ", ".join(run.run for run in begins[:5])
            raise InputError(f"{name}: several runs begin so: {names}")
        raise InputError(f"{name}: there is no such run; `yelpaze runs` lists them")


def _last(runs: list[RunRecord], elsewhere: Callable[[RunRecord], bool]) -> RunRecord:
    here = Path.cwd()
    near = [run for run in runs if Path(run.folder) == here or Path(run.output).parent == here]
    last = max(near or runs, key=lambda run: run.updated)
    if not near and not elsewhere(last):
        raise InputError(
            f"last: no run was started in this folder; the last one is {last.run} in {last.folder}: name it"
        )
    return last


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "yelpaze"


def as_dict(record: RunRecord) -> dict[str, Any]:
    """For --json: without what only charts need."""
    shown: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("timeline", "steps"):
        shown.pop(name)
    return shown
