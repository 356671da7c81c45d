"""JSON Lines: one JSON value a line, UTF-8 (jsonlines.org).

The sink keeps three files: results, failures, and a journal of commits beside the results.
A commit flushes and syncs the first two, then appends one line to the journal: the rows
done and how long both files are. Recovery cuts both back to the last whole journal line.
"""

import contextlib
import io
import json
import os
import select
import threading
from asyncio import get_running_loop
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from yelpaze.io.protocol import Progress, Row
from yelpaze.model.errors import InputError

_READ = 1 << 18
_BUFFER = 1 << 20
_BOM = b"\xef\xbb\xbf"


class JsonlSource:
    """A file, or standard input for `-`. A row's number is its line; blank lines are no rows.

    `limit` stops after that many rows.
    """

    def __init__(self, path: str, *, limit: int | None = None) -> None:
        self.path = path
        self._limit = limit
        self.position = 0
        self.rows = 0
        self.size: int | None = None
        self._file = self._open()

    def _open(self) -> io.FileIO:
        if self.path == "-":
            try:
                return io.FileIO(0, closefd=False)
            except OSError as error:
                raise InputError(f"standard input cannot be read: {error.strerror}") from None
        try:
            file = io.FileIO(self.path)
        except FileNotFoundError:
            raise InputError(f"{self.path}: there is no such file") from None
        except IsADirectoryError:
            raise InputError(f"{self.path}: is a folder; give a file") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        status = os.fstat(file.fileno())
        self.size = status.st_size if Path(self.path).is_file() else None
        return file

    async def blocks(self) -> AsyncIterator[list[Row]]:
        number = 0
        rest = b""
        limit = self._limit
        with self._file:
            while limit is None or self.rows < limit:
                data = await self._read()
                if not data and not rest:
                    return
                if number == 0 and not rest and data.startswith(_BOM):
                    data = data[len(_BOM) :]
                *lines, last = (rest + data).split(b"\n")
                if data:
                    rest = last
                else:
                    lines, rest = [last], b""
                block: list[Row] = []
                for line in lines:
                    number += 1
                    if line and not line.isspace():
                        block.append((number, line, None))
                if limit is not None:
                    block = block[: limit - self.rows]
                self.rows += len(block)
                yield block

    async def _read(self) -> bytes:
        try:
            data = await self._read_waiting() if self.size is None else self._file.read(_READ)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        self.position += len(data or b"")
        return data or b""

    async def _read_waiting(self) -> bytes | None:
        """Read a pipe or terminal in a thread that a stopping program need not wait for."""
        loop = get_running_loop()
        future = loop.create_future()

        def settle(data: bytes | None, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error else future.set_result(data)

        def read() -> None:
            data: bytes | None = None
            error: BaseException | None = None
            try:
                while (data := self._file.read(_READ)) is None:  # a pipe that never blocks: nothing yet
                    select.select([self._file], [], [])
            except OSError as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, data, error)

        threading.Thread(target=read, daemon=True, name="yelpaze-stdin").start()
        result: bytes | None = await future
        return result


def _line_of(record: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(record) + b"\n"
    except (TypeError, ValueError, RecursionError):
        # What UTF-8 or msgspec can't carry (lone surrogates, odd objects): escaped, not lost.
        return json.dumps(record, default=repr).encode("ascii") + b"\n"


class _Commit(msgspec.Struct, frozen=True):
    progress: Progress
    results: int
    failures: int


class _Appended:
    """A file that is appended to, in whole lines, and can be cut back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._lines: list[bytes] = []
        self._waiting = 0
        self.length = 0

    def add(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting > _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write all lines taken. On failure the file is cut back to whole lines."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        file = self._opened()
        try:
            written = 0
            while written < len(data):
                written += file.write(memoryview(data)[written:])
        except OSError:
            whole = data[:written].rfind(b"\n") + 1
            self.length += whole
            self._lines = [data[whole:]]
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), self.length)
            raise
        self.length += len(data)
        self._lines.clear()
        self._waiting = 0

    def sync(self) -> None:
        if self._file is not None and self.path.is_file():
            os.fsync(self._file.fileno())

    def cut(self, length: int) -> None:
        """Keep the first `length` bytes."""
        self.length = length
        if length or self.path.exists():
            os.ftruncate(self._opened().fileno(), length)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class JsonlSink:
    """Lines `{"row": number, "result": …}`, and failures beside them.

    Nothing is kept without need: failures file and journal appear with their first line.

    `fresh` forgets what an earlier run left; else `recover` goes on from it.
    """

    def __init__(self, results: Path, failures: Path, *, fresh: bool) -> None:
        self._results = _Appended(results)
        self._failures = _Appended(failures)
        self._journal = _Appended(results.with_name(f"{results.name}.journal"))
        self._fresh = fresh

    def recover(self) -> Progress:
        last = None if self._fresh else self._last_commit()
        if last is None:
            for file in (self._journal, self._failures):
                file.path.unlink(missing_ok=True)
            self._results.path.touch()
            if self._results.path.is_file():  # not a device or a pipe
                self._results.cut(0)
            return Progress()
        commit, journal_length = last
        self._results.cut(commit.results)
        self._failures.cut(commit.failures)
        self._journal.cut(journal_length)
        return commit.progress

    def _last_commit(self) -> tuple[_Commit, int] | None:
        """The last whole line of the journal, and where it ends."""
        try:
            data = self._journal.path.read_bytes()
        except FileNotFoundError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return None
        return msgspec.json.decode(whole.splitlines()[-1], type=_Commit), len(whole)

    def write(self, row: int, result: bytes) -> None:
        self._results.add(b'{"row":%d,"result":%b}\n' % (row, result))

    def fail(self, record: dict[str, Any]) -> None:
        self._failures.add(_line_of(record))

    def flush(self) -> None:
        self._results.flush()
        self._failures.flush()

    def commit(self, progress: Progress) -> None:
        self.flush()
        self._results.sync()
        self._failures.sync()
        commit = _Commit(progress, self._results.length, self._failures.length)
        self._journal.add(msgspec.json.encode(commit) + b"\n")
        self._journal.flush()
        self._journal.sync()

    def finish(self) -> None:
        self.flush()
        self._results.sync()
        self._failures.sync()
        self._journal.close()
        self._journal.path.unlink(missing_ok=True)

    def close(self) -> None:
        for file in (self._results, self._failures, self._journal):
            file.close()


class StdoutSink:
    """Results on standard output; failures in a file. Nothing to recover from."""

    def __init__(self, failures: Path) -> None:
        # The process's own stdout, even where a command has redirected `sys.stdout`.
        self._out = open(1, "wb", closefd=False)  # noqa: SIM115
        self._failures = _Appended(failures)

    def recover(self) -> Progress:
        self._failures.path.unlink(missing_ok=True)
        return Progress()

    def write(self, row: int, result: bytes) -> None:
        self._out.write(b'{"row":%d,"result":%b}\n' % (row, result))

    def fail(self, record: dict[str, Any]) -> None:
        self._failures.add(_line_of(record))

    def flush(self) -> None:
        self._failures.flush()
        self._out.flush()

    def commit(self, progress: Progress) -> None:  # noqa: ARG002  a pipe can't be cut back
        self.flush()
        self._failures.sync()

    def finish(self) -> None:
        self.commit(Progress())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has been told of by the flush before
            self._out.close()
        self._failures.close()
