"""Results in a file of any format, dead letters and journal beside it.

    results.jsonl           the results, in a `Layout`: how a format lies in its files
    results.failures.jsonl  the dead letters, one a line; made with the first of them
    results.jsonl.journal   the commits, and the lock

A format is one `Layout`; this is all that they have in common.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from yelpaze.io.journal import Commit, Journal
from yelpaze.io.lines import Extent, LineFile, aside_name, line_of, sync_folder
from yelpaze.io.protocol import Checkpoint, DeadLetter, FirstError
from yelpaze.model.errors import InputError


class Layout(Protocol):
    """How results lie in files. `state`: a JSON value that says how far they reach."""

    @property
    def path(self) -> Path:
        """The results' file or folder."""

    @property
    def waiting(self) -> int:
        """Bytes that were taken and not written."""

    def add(self, row: int, result: bytes) -> None:
        """Take a result. Raises SchemaMismatch."""

    def take(self, *, is_last: bool) -> Callable[[], Any]:
        """What writes and syncs all that was taken, and gives the state.

        `is_last`: nothing more is written for now.
        """

    def settled(self) -> None:
        """What `take` wrote last was committed."""

    def damage(self, state: Any) -> str | None:
        """Why the files are not those of that state, or None."""

    def cut(self, state: Any) -> None:
        """Go back to that state; None is the beginning."""

    def close(self) -> None:
        """Give the files back."""


class FileSink:
    """Keeps a layout, the dead letters and the journal in step.

    `shown`: how messages name the results and the dead letters.
    """

    def __init__(self, layout: Layout, failures: Path, *, shown: tuple[str, str]) -> None:
        self._layout = layout
        self._letters = LineFile(failures)
        self.name, self.failures = shown
        self._journal = Journal(layout.path.with_name(f"{layout.path.name}.journal"), output=self.name)
        self._resolved: list[int] = []
        self._first_error = FirstError()

    @property
    def waiting(self) -> int:
        return self._layout.waiting + self._letters.waiting

    @property
    def _renewed(self) -> Path:
        return self._letters.path.with_name(f"{self._letters.path.name}.new")

    # ── before a run ────────────────────────────────────────────────────────────

    def checkpoint(self) -> Checkpoint | None:
        self._journal.lock()
        last = self._journal.read()
        return None if last is None else last.checkpoint

    def is_foreign(self) -> bool:
        """Whether something lies there that no journal tells of."""
        return not self._journal.has_begun and any(map(_holds, (self._layout.path, self._letters.path)))

    def damage(self) -> str | None:
        last = self._journal.last
        if last is None:
            if self.is_foreign():
                path = self._layout.path if _holds(self._layout.path) else self._letters.path
                return f"{path} exists, and there is no journal of a run that wrote it"
            return None
        if last.is_renewed and self._renewed.exists():
            self._renewed.rename(self._letters.path)  # a crash came between two steps of `tidy`
            sync_folder(self._letters.path)
        return self._layout.damage(last.results) or self._letters.damage(
            msgspec.convert(last.failures, Extent)
        )

    def resume(self) -> None:
        last = self._journal.last
        self._layout.cut(None if last is None else last.results)
        self._letters.cut(Extent() if last is None else msgspec.convert(last.failures, Extent))
        self._renewed.unlink(missing_ok=True)
        self._journal.begin()
        if last is not None and self._journal.resolved:
            self._tidy(last.checkpoint)

    def restart(self) -> list[str]:
        kept = []
        for path, shown in ((self._layout.path, self.name), (self._letters.path, self.failures)):
            if _holds(path):
                other = aside_name(path)
                path.rename(other)
                kept.append(str(Path(shown).with_name(other.name)))
            elif path.is_file():
                path.unlink()
        self._journal.clear()
        self._layout.cut(None)
        self._letters.cut(Extent())
        self._journal.begin()
        return kept

    # ── during a run ────────────────────────────────────────────────────────────

    def write(self, row: int, result: bytes, *, cursor: Any = None, trace_id: str = "") -> None:  # noqa: ARG002
        self._layout.add(row, result)

    def fail(self, letter: DeadLetter) -> None:
        self._letters.add(line_of(letter))

    def resolve(self, row: int) -> None:
        self._resolved.append(row)

    def dead_letters(self) -> Iterator[DeadLetter]:
        for number, line in enumerate(self._letters.read(), 1):
            try:
                yield msgspec.json.decode(line, type=DeadLetter)
            except msgspec.DecodeError as error:
                raise InputError(f"{self.failures}, line {number}: is no dead letter: {error}") from None

    def commit(self, checkpoint: Checkpoint, *, is_last: bool = True) -> Callable[[], None]:
        write_results, write_letters = self._layout.take(is_last=is_last), self._letters.take()
        resolved, self._resolved = self._resolved, []

        def work() -> None:
            results, failures = write_results(), write_letters()
            self._journal.append(
                Commit(checkpoint=checkpoint, results=results, failures=failures, resolved=resolved)
            )
            self._layout.settled()

        return lambda: self._first_error.run(work)

    def rejected(self) -> list[tuple[int, str]]:
        return []

    def tidy(self) -> None:
        """Take the dead letters that were resolved out of their file."""
        if self._journal.last is not None and self._journal.resolved:
            self._tidy(self._journal.last.checkpoint)

    def _tidy(self, checkpoint: Checkpoint) -> None:
        last, resolved = self._journal.last, set(self._journal.resolved)
        assert last is not None
        length = 0
        # A row that failed again has two letters: the first, which is resolved, and a new one.
        with self._renewed.open("wb") as file:
            for line in self._letters.read():
                row = msgspec.json.decode(line, type=_Numbered).row
                if row in resolved:
                    resolved.discard(row)
                else:
                    file.write(line)
                    length += len(line)
            file.flush()
            os.fsync(file.fileno())
        extent = msgspec.structs.replace(_extent_of(self._renewed), length=length)
        self._journal.append(
            Commit(checkpoint=checkpoint, results=last.results, failures=extent, is_renewed=True)
        )
        if length:
            self._renewed.rename(self._letters.path)
        else:
            self._letters.path.unlink()
            self._renewed.unlink()
        sync_folder(self._letters.path)
        self._letters.close()
        self._letters.cut(extent)

    def close(self) -> None:
        if not self._journal.is_locked:
            return  # it is another run's
        self._layout.close()
        self._letters.close()
        self._journal.close()


def _holds(path: Path) -> bool:
    return (path.is_file() and path.stat().st_size > 0) or (path.is_dir() and any(path.iterdir()))


class _Numbered(msgspec.Struct):
    row: int


def _extent_of(path: Path) -> Extent:
    with contextlib.closing(LineFile(path)) as file:
        file.cut(Extent(path.stat().st_size))
        return file.extent()
