"""`yelpaze fetch`: every item through the engine, its body to its place, its outcome noted."""

import asyncio
import errno
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from yelpaze.fetch.done import Outcomes, key_of
from yelpaze.fetch.items import Item
from yelpaze.fetch.record import Reason, Record, Tally, described, record_of
from yelpaze.http.engine import Engine
from yelpaze.http.options import Pending
from yelpaze.http.spool import Spool
from yelpaze.io.stoppable import StoppableReader
from yelpaze.model.closing import closing
from yelpaze.model.errors import StoppedError
from yelpaze.model.outcome import Outcome
from yelpaze.model.url import shown
from yelpaze.policy.look_ahead import LookAhead

_IN_MEMORY = 1 << 20
_COPY = 1 << 18
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class Out(Protocol):
    """Where bodies without a file go."""

    def write(self, data: bytes, /) -> object:
        """Take some."""

    def flush(self) -> None:
        """Pass it on."""


class TransferOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How bodies and outcomes are treated; the names are those of the flags."""

    parallel_max: int = 50
    fail: bool = False
    fail_empty: bool = False
    include: bool = False
    clobber: bool = False
    resume: bool = False
    is_single: bool = False


class _Buffer:
    """A body on its way to stdout, where bodies must not mix."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed by `pour` or `restart`
        self.size = 0

    def __call__(self, data: bytes) -> None:
        self.size += self._file.write(data)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0

    def pour(self, out: Out) -> None:
        self._file.seek(0)
        while data := self._file.read(_COPY):
            out.write(data)
        out.flush()
        self._file.close()


class FetchJob:
    """One call of `yelpaze fetch`; its tally can be read while it runs.

    `verbose` gets the lines of each exchange.
    """

    def __init__(
        self,
        engine: Engine,
        transfer: TransferOptions,
        *,
        out: Out,
        outcomes: Outcomes | None = None,
        verbose: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.engine = engine
        self.tally = Tally()
        self.interrupted = False
        self.began = time.monotonic()
        self._options = transfer
        self._out = out
        self._outcomes = outcomes
        self._verbose = verbose
        self._calls: dict[int, Pending] = {}
        self._ahead = LookAhead(transfer.parallel_max)
        self._claimed: set[str] = set()
        self._folders: set[str] = set()
        self._room: asyncio.Future[None] | None = None
        self._reader: StoppableReader[list[Item]] | None = None
        self._error: BaseException | None = None

    async def run(self, blocks: AsyncIterator[list[Item]]) -> Tally:
        """Fetch everything. Raises StoppedError (disk full), BrokenPipeError, InputError."""
        try:
            async with self.engine, closing(blocks):
                await self._drive(blocks)
                for call in list(self._calls.values()):
                    call.cancel()
        finally:
            if self._outcomes is not None:
                self._outcomes.close()
        if self._error is not None:
            raise self._error
        return self.tally

    def stop(self) -> None:
        """Stop soon: what is under way is dropped, what is done is kept."""
        self.interrupted = True
        self._stop_reading()

    def _fail(self, error: BaseException) -> None:
        """There is no going on: stop, and `run` raises it."""
        self._error = self._error or error
        self._stop_reading()

    def _stop_reading(self) -> None:
        self._wake()
        if self._reader is not None:
            self._reader.stop()

    # ── items ───────────────────────────────────────────────────────────────────

    async def _drive(self, blocks: AsyncIterator[list[Item]]) -> None:
        reader = self._reader = StoppableReader(blocks)
        while not self._over and (block := await reader.next()) is not None:
            for item in block:
                if not await self._until(lambda: self._ahead.has_room):
                    return
                self._start(item)
            await asyncio.sleep(0)
        await self._until(lambda: not self._ahead.held)

    async def _until(self, is_so: Callable[[], bool]) -> bool:
        """Wait for that; False if the work is over before."""
        while not is_so() and not self._over:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return not self._over

    @property
    def _over(self) -> bool:
        return self.interrupted or self._error is not None

    def on_parked(self, change: int) -> None:
        """A call waits for its host, or no longer does."""
        self._ahead.parked += change
        if change > 0:
            self._wake()

    def _start(self, item: Item) -> None:
        if item.request is None:
            self._note(Record(item.number, shown(item.url), error=Reason("input", item.bad)))
            return
        if self._options.resume and self._is_done(item):
            self.tally.skipped += 1
            return
        target: str | Callable[[bytes], object]
        if item.path is None:
            target = self._write_out if self._options.is_single else _Buffer()
        elif _is_device(item.path):
            target = _Buffer()
        elif problem := self._problem_with(item.path):
            self._note(Record(item.number, shown(item.url), error=Reason("output", problem), path=item.path))
            return
        else:
            target = item.path
        spool = Spool(
            target,
            clobber=self._options.clobber,
            with_head=self._options.include,
            keep_all=not self._options.fail,
            keep_empty=not self._fails_empty(item),
        )
        self._ahead.held += 1
        call = self.engine.submit(
            item.request,
            lambda outcome: self._done(item, outcome, spool, target),
            spool=spool,
            park_listener=self,
        )
        if not call.abandoned:
            self._calls[item.number] = call

    def _is_done(self, item: Item) -> bool:
        """By the outcomes of a former call, or by a file that is there, unless it was another's."""
        outcomes, path = self._outcomes, item.path
        if outcomes is not None and outcomes.has(item):
            return True
        if path is None or not os.path.isfile(path) or (outcomes is not None and outcomes.knows(path)):
            return False
        if outcomes is not None:  # written just before a crash: it gets its line now
            size, url = os.path.getsize(path), shown(item.url)
            self._write(Record(item.number, url, ok=True, bytes=size, path=path, key=key_of(item)))
        return True

    def _problem_with(self, path: str) -> str:
        """Why that file can't be written, if it can't; its folder is made if need be."""
        if path in self._claimed:
            return f"{path} is the file of another URL, too; use {{n}}, {{host}} or {{name}} in -o"
        try:
            if not self._options.clobber and os.path.lexists(path):
                return f"{path} exists; --clobber replaces it, --resume skips it"
            folder = os.path.dirname(path)
            if folder and folder not in self._folders:
                os.makedirs(folder, exist_ok=True)
                if len(self._folders) < 10_000:  # noqa: PLR2004
                    self._folders.add(folder)
        except OSError as error:
            return f"{path}: {error.strerror}"
        self._claimed.add(path)
        return ""

    def _write_out(self, data: bytes) -> None:
        self._out.write(data)
        self._out.flush()

    # ── outcomes ────────────────────────────────────────────────────────────────

    def _done(self, item: Item, outcome: Outcome, spool: Spool, target: object) -> None:
        self._calls.pop(item.number, None)
        self._ahead.held -= 1
        if item.path is not None:
            self._claimed.discard(item.path)
        error = spool.error
        try:
            if error is None and isinstance(target, _Buffer):
                self._pour(target, item.path)
        except OSError as caught:
            error = caught
        if self._verbose is not None:
            self._verbose(described(outcome))
        if error is None:
            size = spool.delivered or len(outcome.body)
            is_empty = not size and self._fails_empty(item)
            is_good = outcome.error is None and not is_empty
            if is_good and self._outcomes is None and not self.tally.takes(ok=True):
                self.tally.count_success(outcome.status, size)
                self._wake()
                return
            kept = outcome.status and (not self._options.fail or outcome.error is None) and not is_empty
            self._note(
                record_of(
                    outcome,
                    item.number,
                    size=size,
                    path=item.path if kept else None,
                    fail=self._options.fail,
                    is_empty=is_empty,
                    key="" if self._outcomes is None else key_of(item),
                )
            )
        else:
            self._unwritable(item, error)
        self._wake()

    def _fails_empty(self, item: Item) -> bool:
        """Whether an empty body is a failure; the answer to HEAD has none."""
        return self._options.fail_empty and item.request is not None and item.request.method != "HEAD"

    def _pour(self, buffer: _Buffer, path: str | None) -> None:
        if path is None:
            buffer.pour(self._out)
            return
        with open(path, "wb", 0) as device:
            buffer.pour(device)

    def _unwritable(self, item: Item, error: BaseException) -> None:
        if isinstance(error, FileExistsError):
            problem = f"{item.path} exists; --clobber replaces it, --resume skips it"
        elif isinstance(error, OSError) and item.path is not None and error.errno not in _DISK_FULL:
            problem = f"{item.path}: {error.strerror}"
        else:
            if isinstance(error, OSError) and item.path is not None:
                error = StoppedError(f"{item.path}: cannot be written: {error.strerror}")
            self._fail(error)
            return
        self._note(Record(item.number, shown(item.url), error=Reason("output", problem), path=item.path))

    def _note(self, record: Record) -> None:
        self.tally.add(record)
        self._write(record)

    def _write(self, record: Record) -> None:
        if self._outcomes is not None:
            try:
                self._outcomes.add(record)
            except OSError as error:
                self._fail(StoppedError(f"{self._outcomes.path}: cannot be written: {error.strerror}"))

    # ── waiting ─────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _is_device(path: str) -> bool:
    """Whether it is there and no file: /dev/null, a pipe. Such a thing is written to, not replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
