"""PostgreSQL. A lost connection is made anew with the next transaction."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from yelpaze.model.errors import InputError
from yelpaze.model.secrets import SECRETS
from yelpaze.store.session import Row, StoreConflict, StoreUnavailable, Table, on_conflict

_MIGRATIONS = 0x79656C70  # of advisory locks
_CONNECT_SECONDS = 10
# Read-only is a server that has become a replica.
_UNAVAILABLE = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
# Another process was in the way. Whoever looks first and then inserts finds it there the second time.
_CONFLICTS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
)


@lru_cache(512)
def _spelled(sql: str) -> str:
    return sql.replace("IN ??", "= ANY(%s)").replace("?", "%s")


class PostgresConnection:
    """A connection, and the transactions on it; of one thread. Raises InputError, StoreUnavailable."""

    for_share = " FOR SHARE"

    def __init__(self, url: str, *, connect: Callable[..., Any] = psycopg.connect) -> None:
        self.writes = 0
        self._url = url
        self._connect = connect
        try:
            self._connection = self._connected()
        except psycopg.Error as error:
            raise InputError(f"{SECRETS.url(url)}: no connection: {_line(error)}") from None

    def _connected(self) -> Any:
        return self._connect(
            self._url,
            autocommit=True,
            application_name="yelpaze",
            connect_timeout=_CONNECT_SECONDS,
            client_encoding="utf8",
        )

    def begin(self, *, writes: bool = True) -> None:
        """Begin a transaction; connect again if the connection was lost."""
        with _translating():
            if self._connection.closed or self._connection.broken:
                self._connection = self._connected()
            self._connection.execute("BEGIN" if writes else "BEGIN READ ONLY")

    def commit(self) -> None:
        """Make it durable."""
        with _translating():
            self._connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo it, as far as there is one."""
        with contextlib.suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")

    def lock_migrations(self) -> None:
        """Let no other process migrate until this transaction ends."""
        self.run("SELECT pg_advisory_xact_lock(?)", _MIGRATIONS)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    # ── the session ─────────────────────────────────────────────────────────────

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        self.writes += not sql.startswith("SELECT")
        with _translating():
            found: list[Row] = self._executed(_spelled(sql), parameters or None).fetchall()
            return found

    def run(self, sql: str, *parameters: Any) -> int:
        self.writes += 1
        with _translating():
            return int(self._executed(_spelled(sql), parameters or None).rowcount)

    def insert(
        self, table: Table, rows: Sequence[Row], *, ignore_known: bool = False, conflict: str = ""
    ) -> None:
        # One statement with an array for each column: a third of what executemany costs (anchors, "Store").
        if not rows:
            return
        names = ", ".join(table.types)
        arrays = ", ".join(f"%s::{kind}[]" for kind in table.types.values())
        ending = on_conflict(conflict, ignore_known=ignore_known)
        self._many(f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}){ending}", rows)  # noqa: S608

    def update(
        self, table: Table, changed: Sequence[str], rows: Sequence[Row], where: str = "", *, also: str = ""
    ) -> None:
        if not rows:
            return
        keys = [name for name in table.types if name not in changed]
        names = [*changed, *keys]
        values = ", ".join([*(f"{name} = given.{name}" for name in changed), *filter(None, [also])])
        arrays = ", ".join(f"%s::{table.types[name]}[]" for name in names)
        same = [f"{table.name}.{name} = given.{name}" for name in keys]
        condition = " AND ".join([*same, where] if where else same)
        sql = (
            f"UPDATE {table.name} SET {values} FROM unnest({arrays}) AS given({', '.join(names)}) "  # noqa: S608
            f"WHERE {condition}"
        )
        self._many(sql, rows)

    def lease_time(self) -> int:
        # The server's clock, so that machines whose clocks differ agree.
        return int(self.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")[0][0])

    def _many(self, sql: str, rows: Sequence[Row]) -> None:
        self.writes += 1
        with _translating():
            self._executed(sql, [list(column) for column in zip(*rows, strict=True)])

    def _executed(self, sql: str, parameters: Sequence[Any] | None) -> Any:
        try:
            return self._connection.execute(sql, parameters)
        except psycopg.DataError as error:  # raised here, before anything is sent
            if parameters is None or "NUL" not in str(error):
                raise
            return self._connection.execute(sql, [_without_nul(one) for one in parameters])


def _without_nul(value: Any) -> Any:
    """A value with U+FFFD for each NUL, which PostgreSQL's texts cannot hold."""
    if isinstance(value, list):
        return [_without_nul(one) for one in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except _CONFLICTS as error:
        raise StoreConflict(_line(error)) from error
    except _UNAVAILABLE as error:
        raise StoreUnavailable(_line(error)) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
