"""What table sources and sinks need of a database; SQLite and PostgreSQL are a `Database` each."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import msgspec

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column
from yelpaze.model.errors import InputError
from yelpaze.model.secrets import SECRETS

_OURS = ("table", "key", "query")

Rows = list[tuple[Any, ...]]


class Place(msgspec.Struct, frozen=True):
    """A table or query in a database; `url` is without what only Yelpaze reads."""

    url: str
    shown: str
    table: str | None
    key: str | None
    query: str | None


def place_of(url: str) -> Place:
    """Take `…?table=t&key=id&query=…` apart. Raises InputError."""
    shown = SECRETS.url(url)
    if "#" in url:
        raise InputError(f"{shown}: write # as %23")
    base, _, query = url.partition("?")
    options = parse_qs(query, keep_blank_values=True)
    ours = {name: options.pop(name)[-1] for name in _OURS if name in options}
    # libpq takes no `+` for a blank.
    rest = "?".join(filter(None, [base, urlencode(options, doseq=True, quote_via=quote)]))
    if not ours.get("table", "x") or not ours.get("key", "x") or not ours.get("query", "x"):
        raise InputError(f"{shown}: table=, key= and query= need a value")
    return Place(rest, shown, ours.get("table"), ours.get("key"), ours.get("query"))


class Database(ABC):
    """One connection, and how that database says things. Errors of use are InputError."""

    types: dict[ColumnKind, str]
    marker: str
    """What stands for a parameter."""
    shown: str
    """Its name, for people."""

    def escaped(self, text: str) -> str:
        """That text where a statement has parameters."""
        return text.replace("%", "%%") if self.marker == "%s" else text

    @abstractmethod
    def query(self, text: str, *parameters: Any) -> Rows:
        """Run one statement; its rows, if it has any."""

    @abstractmethod
    def names_of(self, text: str) -> list[str]:
        """The names of a query's columns. Raises InputError if it can't be run."""

    @abstractmethod
    def columns_of(self, table: str) -> list[Column] | None:
        """The columns of a table, None if there is no such table."""

    @abstractmethod
    def primary_key(self, table: str) -> str | None:
        """The table's primary key, if that is one column."""

    @abstractmethod
    def lock(self, table: str) -> bool:
        """Take the lock of that output, which ends with this process; False if another has it."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; inside another one, a part that can be undone by itself."""

    @abstractmethod
    def insert(self, table: str, names: Sequence[str], rows: list[list[Any]], key: str | None) -> None:
        """Add rows; with a key, replace those that have it. Raises `refusals`."""

    @property
    @abstractmethod
    def refusals(self) -> tuple[type[Exception], ...]:
        """What a row that the database does not take raises."""

    def reading(self) -> AbstractContextManager[None]:
        """Turns what fails inside into InputError or StoppedError."""
        return nullcontext()

    def lasting(self, work: Callable[[], None], is_done: Callable[[], bool]) -> None:  # noqa: ARG002
        """Do the work, whatever happens to the connection; `is_done` asks whether it has been."""
        work()

    @abstractmethod
    def close(self) -> None:
        """Let go."""


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def qualified(table: str) -> str:
    """`schema.table`, both quoted."""
    return ".".join(quoted(part) for part in table.split("."))


def replacing(names: Sequence[str], key: str) -> str:
    """What is done with a row whose key is there: all else is replaced."""
    changed = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name != key)
    return f"UPDATE SET {changed}" if changed else "NOTHING"


def first_line(error: Exception) -> str:
    """What a database says, without its details."""
    return str(error).strip().partition("\n")[0]
