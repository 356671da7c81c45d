"""SQLite: `sqlite:///relative.db?table=t`, `sqlite:////absolute.db?table=t`."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column
from yelpaze.io.database import Database, Place, Rows, place_of, qualified, quoted, replacing
from yelpaze.io.protocol import Sink, Source
from yelpaze.io.sql_sink import SqlSink
from yelpaze.io.sql_source import SqlSource
from yelpaze.model.errors import InputError, StoppedError

_BUSY_SECONDS = 30.0


class Sqlite(Database):
    """A database file. Its transactions are on disk when they are committed."""

    types = {  # noqa: RUF012  never changed
        ColumnKind.INT: "INTEGER",
        ColumnKind.FLOAT: "REAL",
        ColumnKind.BOOL: "INTEGER",
        ColumnKind.TEXT: "TEXT",
        ColumnKind.JSON: "TEXT",
        ColumnKind.ANY: "",  # without a type a column keeps each value's own (sqlite.org/datatype3.html §3)
    }
    marker = "?"
    refusals = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError)

    def __init__(self, place: Place, *, read_only: bool) -> None:
        self.shown = path = path_of(place.url)
        self._lock = -1
        self._depth = 0
        if not path:
            raise InputError(f"{place.shown}: give the file: sqlite:///file.db?table=…")
        if read_only and not Path(path).is_file():
            raise InputError(f"{path}: there is no such file")
        if Path(path).is_dir():
            raise InputError(f"{path}: is a folder; give a file")
        if not Path(path).absolute().parent.is_dir():
            raise InputError(f"{path}: the folder {Path(path).parent} does not exist: create it first")
        mode = "ro" if read_only else "rwc"
        with self._refusing():
            self._connection = sqlite3.connect(
                f"file:{quote(os.fsencode(path))}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=0,
                check_same_thread=False,  # one thread at a time, but not always the same
            )
            self._check_is_database()
            self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")

    def _check_is_database(self) -> None:
        """Read a little. One that is busy is one; whether another run writes it, `lock` finds out."""
        try:
            self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except self.refusals:
            raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR):
                raise StoppedError(f"{self.shown}: cannot be used any more: {error}") from None
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise StoppedError(f"{self.shown}: cannot be used any more: {error}") from None
            raise InputError(f"{self.shown}: {error}") from None
        except sqlite3.Error as error:
            raise InputError(f"{self.shown}: {error}") from None

    def query(self, text: str, *parameters: Any) -> Rows:
        with self._refusing():
            return self._connection.execute(text, parameters).fetchall()

    def names_of(self, text: str) -> list[str]:
        with self._refusing():
            return [column[0] for column in self._connection.execute(f"{text} LIMIT 0").description]

    def columns_of(self, table: str) -> list[Column] | None:
        return [Column(row[1], _kind_of(row[2])) for row in self._info(table)] or None

    def primary_key(self, table: str) -> str | None:
        keys = [row[1] for row in self._info(table) if row[5]]
        return keys[0] if len(keys) == 1 else None

    def _info(self, table: str) -> Rows:
        schema, _, name = table.rpartition(".")
        return self.query(f"PRAGMA {quoted(schema or 'main')}.table_info({quoted(name)})")

    def lock(self, table: str) -> bool:
        # A file of its own: SQLite's own locks on the database end when any descriptor of it is closed.
        path = f"{self.shown}.{quote(table, safe='')}.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._lock = file
        self.query("PRAGMA synchronous = FULL")  # it reads, too: not before the lock is ours
        return True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        name = f"yelpaze_{self._depth}"
        begin, end, undo = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        if self._depth:
            begin, end, undo = f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}"
        self.query(begin)
        self._depth += 1
        try:
            yield
            self.query(end)
        except BaseException:
            with contextlib.suppress(StoppedError, InputError, sqlite3.Error):
                self.query(undo)
                if self._depth > 1:
                    self.query(f"RELEASE {name}")
            raise
        finally:
            self._depth -= 1

    def insert(self, table: str, names: Sequence[str], rows: list[list[Any]], key: str | None) -> None:
        columns = ", ".join(map(quoted, names))
        text = f"INSERT INTO {qualified(table)} ({columns}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        if key is not None:
            text += f" ON CONFLICT ({quoted(key)}) DO {replacing(names, key)}"
        with self._refusing():
            self._connection.executemany(text, rows)

    def close(self) -> None:
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _kind_of(declared: str) -> ColumnKind:
    """SQLite's own rules of affinity (sqlite.org/datatype3.html §3.1)."""
    name = declared.upper()
    if not name:
        return ColumnKind.ANY
    if "BOOL" in name:
        return ColumnKind.BOOL
    if "INT" in name:
        return ColumnKind.INT
    if any(word in name for word in ("REAL", "FLOA", "DOUB", "NUMERIC", "DECIMAL")):
        return ColumnKind.FLOAT
    return ColumnKind.JSON if "JSON" in name else ColumnKind.TEXT


def path_of(url: str) -> str:
    """The file of `sqlite:///relative.db` and `sqlite:////absolute.db`."""
    parts = urlsplit(url)
    path = parts.netloc + parts.path if parts.netloc else parts.path[1:]
    return unquote(path, errors="surrogateescape")


def sqlite_source(url: str) -> Source:
    """Rows of a table or query."""
    place = place_of(url)
    return SqlSource(lambda: Sqlite(place, read_only=True), place)


def sqlite_sink(url: str, annotation: object) -> Sink:
    """Results into a table."""
    place = place_of(url)
    if place.table is None:
        place = msgspec.structs.replace(place, shown=path_of(url))
    return SqlSink(lambda: Sqlite(place, read_only=False), place, annotation, unknown=ColumnKind.ANY)
