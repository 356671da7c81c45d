"""SQLite: a file in WAL mode, on disk when a transaction is committed."""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from yelpaze.model.errors import InputError
from yelpaze.store.session import Row, StoreUnavailable, Table, on_conflict

_BUSY_SECONDS = 30.0
_BUSY_PAUSE = 0.01
_CHECKPOINT_PAGES = 4000  # 16 MB of log before it is merged into the file
_UNUSABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)


@lru_cache(512)
def _spelled(sql: str) -> str:
    return sql.replace("IN ??", "IN (SELECT value FROM json_each(?))")


def _bound(parameters: Sequence[Any]) -> Sequence[Any]:
    if any(isinstance(value, list) for value in parameters):
        return [json.dumps(value) if isinstance(value, list) else value for value in parameters]
    return parameters


class SqliteConnection:
    """A connection, and the transactions on it; of one thread. Raises InputError, StoreUnavailable."""

    for_share = ""  # a transaction that writes is alone

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        own: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writes = 0
        self._clock = clock
        if own and not read_only:
            _make_private(path)
        mode = "ro" if read_only else "rwc" if own else "rw"
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(os.fsencode(path))}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_SECONDS,
                cached_statements=512,
                check_same_thread=False,  # closed by another thread
            )
            if own and not read_only:
                self._use_wal()
                self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA cache_size = -65536")
        except sqlite3.OperationalError as error:
            raise InputError(f"{path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: {error}: it belongs to something else") from None

    def _use_wal(self) -> None:
        """SQLite does not wait by itself while another process makes the same file."""
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(_BUSY_PAUSE)
            else:
                return

    def begin(self, *, writes: bool = True) -> None:
        """Begin a transaction."""
        self._execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def commit(self) -> None:
        """Make it durable."""
        self._execute("COMMIT")

    def roll_back(self) -> None:
        """Undo it, as far as there is one."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def lock_migrations(self) -> None:
        """Do nothing: a transaction that writes is alone already."""

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    # ── the session ─────────────────────────────────────────────────────────────

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        self.writes += not sql.startswith("SELECT")
        return self._execute(_spelled(sql), _bound(parameters)).fetchall()

    def run(self, sql: str, *parameters: Any) -> int:
        self.writes += 1
        return self._execute(_spelled(sql), _bound(parameters)).rowcount

    def insert(
        self, table: Table, rows: Sequence[Row], *, ignore_known: bool = False, conflict: str = ""
    ) -> None:
        if not rows:
            return
        ending = on_conflict(conflict, ignore_known=ignore_known)
        marks = ", ".join("?" * len(table.types))
        names = ", ".join(table.types)
        self._many(f"INSERT INTO {table.name} ({names}) VALUES ({marks}){ending}", rows)  # noqa: S608

    def update(
        self, table: Table, changed: Sequence[str], rows: Sequence[Row], where: str = "", *, also: str = ""
    ) -> None:
        if not rows:
            return
        values = ", ".join([*(f"{name} = ?" for name in changed), *filter(None, [also])])
        keys = [f"{name} = ?" for name in table.types if name not in changed]
        condition = " AND ".join([*keys, where] if where else keys)
        self._many(f"UPDATE {table.name} SET {values} WHERE {condition}", rows)  # noqa: S608  our own names

    def lease_time(self) -> int:
        # The boot's clock: one for all processes of the machine, and it never jumps.
        return int(self._clock() * 1000)

    def _many(self, sql: str, rows: Sequence[Row]) -> None:
        self.writes += 1
        with _translating():
            self._connection.executemany(sql, rows)

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        with _translating():
            return self._connection.execute(sql, parameters)


def _make_private(path: str) -> None:
    """A new file is its owner's alone; SQLite gives its other files the same rights."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class _Translating:
    """Turns what makes the database unusable into StoreUnavailable; one object, since it has no state."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _UNUSABLE:
            raise StoreUnavailable(str(error)) from None
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
            raise StoreUnavailable("the store is closed") from None


_SHARED = _Translating()


def _translating() -> _Translating:
    return _SHARED
