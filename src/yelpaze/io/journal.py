"""The journal beside an output file: one line a commit, and the lock of the run that writes.

A line says how long the output was when it was committed, so a crash is undone by cutting the
output back to the last whole line's word. The files are synced before the line is written,
and the line before the commit counts. An empty first line says that a run has begun: what lies
in the output before the first commit is its own. A long journal is replaced by one that has its last
line only.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.io.lines import sync_folder
from yelpaze.io.protocol import Checkpoint
from yelpaze.model.errors import InputError
from yelpaze.model.json_text import decode_json, encode_json

_LONG = 1 << 20


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A line: the checkpoint, how far results and failures reach, and which old letters are no more.

    `is_renewed`: the failures file was written anew, without those letters; it may still
    lie beside, under the name of `renewed`.
    """

    checkpoint: Checkpoint
    results: Any
    failures: Any
    resolved: list[int] = []
    is_renewed: bool = False


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True


class Journal:
    """The journal of one output. `last` is the commit that holds."""

    def __init__(self, path: Path, output: str) -> None:
        self.path = path
        self.last: Commit | None = None
        self.resolved: set[int] = set()
        self._output = output
        self._file: int = -1
        self._length = 0

    @property
    def is_locked(self) -> bool:
        """Whether the lock is ours."""
        return self._file >= 0

    def lock(self) -> None:
        """Take the lock, which ends with this process. Raises InputError if another has it."""
        if self._file >= 0:
            return
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise InputError(
                    f"{self._output}: another run is writing it; wait for its end, or give another -o"
                ) from None
            if self.path.exists() and os.stat(self.path).st_ino == os.fstat(file).st_ino:  # noqa: PTH116
                self._file = file
                return
            os.close(file)  # it was replaced while we waited for nothing

    def read(self) -> Commit | None:
        """The last whole line; what follows it is cut off."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        self._length = data.rfind(b"\n") + 1
        lines = data[: self._length].splitlines()
        if len(lines) > 1 and not _is_json(lines[-1]):  # torn by a power cut: it never counted
            self._length -= len(lines.pop()) + 1
        try:
            commits = [decode_json(line, Commit) for line in lines if line]
        except msgspec.DecodeError as error:
            raise InputError(
                f"{self.path}: is no journal of a run by this version: {error}; move it away to begin anew"
            ) from None
        self.resolved.clear()
        for commit in commits:
            if commit.is_renewed:
                self.resolved.clear()
            self.resolved.update(commit.resolved)
        self.last = commits[-1] if commits else None
        return self.last

    @property
    def has_begun(self) -> bool:
        """Whether a run has written the output, though it may not have come to a commit."""
        return self._length > 0

    def begin(self) -> None:
        """A run writes the output from now on."""
        if not self._length:
            self._write(b"\n")
            sync_folder(self.path)

    def append(self, commit: Commit) -> None:
        """Make the commit count."""
        line = encode_json(commit) + b"\n"
        if self._length + len(line) > _LONG:
            kept = msgspec.structs.replace(
                commit,
                resolved=[] if commit.is_renewed else sorted(self.resolved | set(commit.resolved)),
            )
            self._replace(encode_json(kept) + b"\n")
        else:
            self._write(line)
        if commit.is_renewed:
            self.resolved.clear()
        self.resolved.update(commit.resolved)
        self.last = commit

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._length + written)
            os.ftruncate(self._file, self._length + len(line))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += len(line)

    def _replace(self, line: bytes) -> None:
        other = self.path.with_name(f"{self.path.name}.new")
        other.unlink(missing_ok=True)
        file = os.open(other, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        old, self._file, old_length, self._length = self._file, file, self._length, 0
        try:
            self._write(line)
            other.rename(self.path)
        except OSError:
            self._file, self._length = old, old_length
            os.close(file)
            raise
        sync_folder(self.path)
        os.close(old)

    def clear(self) -> None:
        """Forget all commits."""
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self._length = 0
        self.last = None
        self.resolved.clear()

    def close(self) -> None:
        """Give the lock back; a journal without a line is taken away."""
        if self._file >= 0:
            if not self._length:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1
