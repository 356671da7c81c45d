"""The store: units of work on one writer thread, many to a commit; reads beside them.

    await store.write(work) ──→ queue ──→ writer thread: BEGIN, work, work, …, COMMIT ──→ results, at once
    await store.read(work)  ──→ reader threads, each with a connection of its own

A commit costs a disk sync, so whatever is asked for while one runs goes into the next (group commit). The
event loop is woken once a commit, not once a unit of work.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from yelpaze.model.errors import InputError
from yelpaze.store.migrations import Migrations, migrate
from yelpaze.store.session import Session, StoreConflict, StoreUnavailable

T = TypeVar("T")
_GROUP = 1000  # units of work in one commit at most
_READERS = 4
_TRIES = 3  # of a group, if other processes are in its way


class Connection(Session, Protocol):
    """A session, and its transactions."""

    def begin(self, *, writes: bool = True) -> None: ...
    def commit(self) -> None: ...
    def roll_back(self) -> None: ...
    def lock_migrations(self) -> None: ...
    def close(self) -> None: ...


class _Unit:
    """A unit of work that waits, and what came of it."""

    __slots__ = ("error", "future", "loop", "value", "work")

    def __init__(self, work: Callable[[Session], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # cancelled; what was written stays
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Store:
    """A database, opened by `open_store`. Use it as an async context manager.

    Units of work are plain functions of a `Session`. They run in the order in which they were given, one
    after the other, and may be run twice: if another unit of the group fails after it has written, the group
    is rolled back, and each unit gets a transaction of its own. So they must not change anything but the
    database. A unit that finds that it cannot be done raises before it writes.

    Args:
        connect: Makes a connection; `read_only` for those that only read.
        migrations: The tables of those who use this store.
        shown: The name of the database for messages, without secrets.

    """

    def __init__(
        self, connect: Callable[..., Connection], migrations: Sequence[Migrations], shown: str
    ) -> None:
        self._connect = connect
        self._migrations = migrations
        self._units: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: Connection | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._open_readers: list[Connection] = []
        self._is_open = False
        self.shown = shown
        self.commits = 0

    async def __aenter__(self) -> Self:
        """Connect and migrate. Raises InputError for a database that cannot be used."""
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> None:
        connection = self._connect(read_only=False)
        try:
            migrate(connection, self._migrations, self.shown)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._readers = ThreadPoolExecutor(_READERS, "yelpaze-store-read")
        self._writer = threading.Thread(target=self._write_all, name="yelpaze-store-write", daemon=True)
        self._is_open = True
        self._writer.start()

    @property
    def queued(self) -> int:
        """Units of work that wait for the writer."""
        return self._units.qsize()

    async def write(self, work: Callable[[Session], T]) -> T:
        """Do the work in a transaction, with others; return when it is durable.

        Raises what the work raises, and StoreUnavailable.
        """
        if not self._is_open:
            raise StoreUnavailable("the store is closed")
        unit = _Unit(work, asyncio.get_running_loop())
        self._units.put(unit)
        value: T = await unit.future
        return value

    async def read(self, work: Callable[[Session], T]) -> T:
        """Do work that changes nothing, beside the writer. Raises what it raises, StoreUnavailable."""
        if self._readers is None:
            raise StoreUnavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Session], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                connection = self._connect(read_only=True)
            except InputError as error:  # it was good when the store was opened
                raise StoreUnavailable(str(error)) from None
            self._local.connection = connection
            self._open_readers.append(connection)
        connection.begin(writes=False)
        try:
            value = work(connection)
            connection.commit()
        except BaseException:
            connection.roll_back()
            raise
        return value

    async def close(self) -> None:
        """End what is queued, and close all connections."""
        if not self._is_open:
            return
        self._is_open = False
        self._units.put(None)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        assert self._writer is not None
        assert self._readers is not None
        assert self._connection is not None
        self._writer.join()
        self._readers.shutdown()
        self._readers = None
        for connection in [*self._open_readers, self._connection]:
            connection.close()

    # ── in the writer thread ────────────────────────────────────────────────────

    def _write_all(self) -> None:
        assert self._connection is not None
        is_last = False
        while not is_last:
            group: list[_Unit] = []
            unit = self._units.get()
            with contextlib.suppress(queue.Empty):
                while unit is not None and len(group) < _GROUP:
                    group.append(unit)
                    unit = self._units.get_nowait()
                if unit is None:
                    is_last = True
                else:
                    group.append(unit)
            if group:
                self._write_group(self._connection, group)
                _settle(group)

    def _write_group(self, connection: Connection, group: Sequence[_Unit], tries: int = _TRIES) -> None:
        """Do all units in one transaction; if one spoils it, each in a transaction of its own."""
        try:
            _do(connection, group)
        except StoreConflict as error:
            connection.roll_back()
            if tries > 1:
                self._write_group(connection, group, tries - 1)
            else:
                self._write_each(connection, group, error.__cause__ or error)
        except StoreUnavailable as error:
            connection.roll_back()
            for unit in group:
                unit.error = StoreUnavailable(f"{self.shown}: {error}")
        except BaseException as error:  # noqa: BLE001  whatever a unit of work raises
            connection.roll_back()
            self._write_each(connection, group, error)
        else:
            self.commits += 1

    def _write_each(self, connection: Connection, group: Sequence[_Unit], error: BaseException) -> None:
        """After that error of the group: each unit by itself; one that is alone has it as its own."""
        if len(group) == 1:
            group[0].error = error
            return
        for unit in group:
            unit.error = None
            self._write_group(connection, [unit])


def _do(connection: Connection, group: Sequence[_Unit]) -> None:
    """All units in one transaction. Raises what a unit raises after it has written."""
    connection.begin()
    for unit in group:
        written = connection.writes
        try:
            unit.value = unit.work(connection)
        except StoreUnavailable:
            raise
        except BaseException as error:
            if connection.writes > written or _is_of_database(error):
                raise
            unit.error = error  # it has looked and refused; the others go on
    connection.commit()


def _is_of_database(error: BaseException) -> bool:
    """Whether a driver raised it: PostgreSQL takes nothing more in a transaction after that."""
    return type(error).__module__.startswith(("psycopg", "sqlite3"))


def _settle(group: Sequence[_Unit]) -> None:
    """Give the results to their loops, each woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Unit]] = {}
    for unit in group:
        by_loop.setdefault(unit.loop, []).append(unit)
    for loop, units in by_loop.items():

        def settle(units: list[_Unit] = units) -> None:
            for unit in units:
                unit.settle()

        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)
