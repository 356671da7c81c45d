"""The interface of a transaction, the same for every database.

SQL is written once, as SQLite and PostgreSQL both read it:

- parameters are `?`, and a list of values is `IN ??`;
- columns are TEXT, BIGINT and BYTEA, flags are BIGINT 0 and 1, points in time are BIGINT milliseconds
  since 1970, documents are TEXT with JSON.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from yelpaze.model.errors import StoppedError

Row = tuple[Any, ...]


class StoreUnavailable(StoppedError):  # noqa: N818  a state, as in BrokerUnavailable
    """The database cannot be used now: it is away, locked by somebody else, or its disk is full.

    Whether the work was done is not known if the connection was lost while it was committed.
    """


class StoreConflict(StoreUnavailable):
    """Another process was in the way; nothing was done, and it may be tried again at once."""


class Table(msgspec.Struct, frozen=True):
    """A table for writing many rows at once: its name, and the types of its columns.

    >>> Table("note", {"id": "text", "at": "bigint"}).columns
    ('id', 'at')
    """

    name: str
    types: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self.types)


class Session(Protocol):
    """A transaction. It belongs to one thread."""

    writes: int  # statements that may have changed something
    for_share: str  # after a SELECT: its rows stay as they are until the transaction ends

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        """Return all rows of a query."""

    def run(self, sql: str, *parameters: Any) -> int:
        """Change something; return how many rows were changed."""

    def insert(
        self, table: Table, rows: Sequence[Row], *, ignore_known: bool = False, conflict: str = ""
    ) -> None:
        """Insert rows, each with all columns of the table. `ignore_known` skips those whose key is there.

        `conflict` is what happens to these instead: `(key) DO UPDATE SET value = excluded.value`; a key may
        then be in `rows` only once.
        """

    def update(
        self, table: Table, changed: Sequence[str], rows: Sequence[Row], where: str = "", *, also: str = ""
    ) -> None:
        """Update rows by key.

        A row has the values of the columns `changed`, then those of the key, which are the other columns of
        `table`. `where` is a further condition on the table's columns, `also` a further assignment.
        """

    def lease_time(self) -> int:
        """Milliseconds of a clock that all processes which share the database agree on."""


Work = Callable[[Session], Any]


def first(rows: Iterable[Row]) -> Row | None:
    """Return the first row, or None."""
    return next(iter(rows), None)


def on_conflict(conflict: str, *, ignore_known: bool) -> str:
    """The end of an INSERT, as both databases spell it."""
    if conflict:
        return f" ON CONFLICT {conflict}"
    return " ON CONFLICT DO NOTHING" if ignore_known else ""
