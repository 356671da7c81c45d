"""PostgreSQL: `postgresql://user@host/database?table=t`, and all else that libpq takes in a URL."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column
from yelpaze.io.database import Database, Place, Rows, place_of, qualified, quoted, replacing
from yelpaze.io.protocol import Sink, Source
from yelpaze.io.sql_sink import SqlSink
from yelpaze.io.sql_source import SqlSource
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.secrets import SECRETS

# What another session did; it passes.
_PASSING = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)
_AGAIN_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 20.0)  # about a minute: a server that restarts
_LOCK_SECONDS = 1.0  # until the server has noticed that a process was killed
_KINDS = {
    "int2": (ColumnKind.INT, 16),
    "int4": (ColumnKind.INT, 32),
    "int8": (ColumnKind.INT, 64),
    "float4": (ColumnKind.FLOAT, 64),
    "float8": (ColumnKind.FLOAT, 64),
    "numeric": (ColumnKind.FLOAT, 64),
    "bool": (ColumnKind.BOOL, 64),
    "json": (ColumnKind.JSON, 64),
    "jsonb": (ColumnKind.JSON, 64),
}


class Postgres(Database):
    """One session; a lost one is made anew, and what it left undone is done again."""

    types = {  # noqa: RUF012  never changed
        ColumnKind.INT: "bigint",
        ColumnKind.FLOAT: "double precision",
        ColumnKind.BOOL: "boolean",
        ColumnKind.TEXT: "text",
        ColumnKind.JSON: "jsonb",
        ColumnKind.PLAIN: "text",
    }
    marker = "%s"
    refusals = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)

    def __init__(self, place: Place) -> None:
        self._url = place.url
        self.shown = SECRETS.url(place.url)
        self._locked: str | None = None
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            raise InputError(f"{self.shown}: no connection: {' '.join(str(error).split())}") from None

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        # In UTF-8, whatever the database is in: then it is the server that refuses what it can't keep.
        return psycopg.connect(
            self._url,
            autocommit=True,
            application_name="yelpaze",
            connect_timeout=10,
            client_encoding="utf8",
        )

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except self.refusals:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            raise InputError(f"{self.shown}: {str(error).strip().partition(chr(10))[0]}") from None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoppedError(f"{self.shown}: {' '.join(str(error).split())}") from None
        except psycopg.DataError as error:
            raise InputError(f"{self.shown}: {str(error).strip().partition(chr(10))[0]}") from None

    def query(self, text: str, *parameters: Any) -> Rows:
        with self._refusing():
            # Without parameters `%` is not special, as in a user's own query.
            cursor = self._connection.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def names_of(self, text: str) -> list[str]:
        with self.reading(), self._refusing():
            cursor = self._connection.execute(f"{text} LIMIT 0")
            return [column.name for column in cursor.description or ()]

    def columns_of(self, table: str) -> list[Column] | None:
        rows = self.query(
            "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped "
            "AND a.attgenerated = '' AND a.attidentity <> 'a' ORDER BY a.attnum",
            qualified(table),
        )
        found = []
        for name, kind in rows:
            known, bits = _KINDS.get(kind, (ColumnKind.TEXT, 64))
            found.append(Column(name, known, bits))
        return found or None

    def primary_key(self, table: str) -> str | None:
        rows = self.query(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a "
            "ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
            "WHERE i.indrelid = to_regclass(%s) AND i.indisprimary",
            qualified(table),
        )
        return str(rows[0][0]) if len(rows) == 1 else None

    def lock(self, table: str) -> bool:
        # Of the session: the server lets go of it when the connection ends, however that is.
        try:
            with self.transaction():
                self.query(f"SET LOCAL lock_timeout = {int(_LOCK_SECONDS * 1000)}")
                self.query("SELECT pg_advisory_lock(hashtextextended(%s, 0))", f"yelpaze {table}")
        except psycopg.errors.LockNotAvailable:
            return False
        self._locked = table
        return True

    def transaction(self) -> contextlib.AbstractContextManager[Any]:
        return self._connection.transaction()

    def insert(self, table: str, names: Sequence[str], rows: list[list[Any]], key: str | None) -> None:
        columns = ", ".join(map(quoted, names))
        target = qualified(table)
        if key is not None:
            target = "yelpaze_new"
            like = f"SELECT {columns} FROM {qualified(table)} LIMIT 0"  # noqa: S608  quoted
            self.query(f"CREATE TEMP TABLE {target} ON COMMIT DROP AS {like}")
            place = list(names).index(key)
            rows = list({row[place]: row for row in rows}.values())  # the last one of a key counts
        with self._refusing(), self._connection.cursor() as cursor:
            with cursor.copy(f"COPY {target} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            if key is not None:
                cursor.execute(
                    f"INSERT INTO {qualified(table)} ({columns}) SELECT {columns} FROM {target} "  # noqa: S608
                    f"ON CONFLICT ({quoted(key)}) DO {replacing(names, key)}; DROP TABLE {target}"
                )

    def lasting(self, work: Callable[[], None], is_done: Callable[[], bool]) -> None:
        last: Exception | None = None
        for pause in (0.0, *_AGAIN_SECONDS):
            time.sleep(pause)
            try:
                if self._connection.closed or self._connection.broken:
                    self._reconnect()
                    if is_done():
                        return
                work()
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                last = error
                is_there = not (self._connection.closed or self._connection.broken)
                if is_there and not isinstance(error, _PASSING):
                    break  # the server is there, and can't: its disk is full, …
            else:
                return
        raise StoppedError(f"{self.shown}: {' '.join(str(last).split())}")

    def _reconnect(self) -> None:
        self._connection = self._connect()
        if self._locked is not None and not self.lock(self._locked):
            raise StoppedError(f"{self.shown}: another run took over while the server was away")

    def close(self) -> None:
        self._connection.close()


def postgres_source(url: str) -> Source:
    """Rows of a table or query."""
    place = place_of(url)
    return SqlSource(lambda: Postgres(place), place)


def postgres_sink(url: str, annotation: object) -> Sink:
    """Results into a table."""
    place = place_of(url)
    return SqlSink(lambda: Postgres(place), place, annotation, unknown=ColumnKind.PLAIN)
