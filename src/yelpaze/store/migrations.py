"""Numbered migrations: each application owns its tables, and says how they came to be."""

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from yelpaze.model.errors import InputError
from yelpaze.store.session import Session, Table

_VERSIONS = (
    "CREATE TABLE IF NOT EXISTS schema_version (application TEXT PRIMARY KEY, version BIGINT NOT NULL)"
)


class Migrations(msgspec.Struct, frozen=True):
    """The steps of one application, in order. A step that was released is never changed.

    A step is SQL, statements separated by `;`.
    """

    application: str
    steps: tuple[str, ...]

    def table(self, name: str) -> Table:
        """A table as the steps make it, with columns that later steps add.

        >>> steps = ("CREATE TABLE note (id TEXT NOT NULL, at BIGINT, PRIMARY KEY (id))",)
        >>> Migrations("notes", steps).table("note")
        Table(name='note', types={'id': 'text', 'at': 'bigint'})
        """
        columns: list[tuple[str, str]] = []
        for step in self.steps:
            for body in re.findall(rf"CREATE TABLE {name} \((.*?)\)\s*(?:;|$)", step, re.DOTALL):
                columns += re.findall(r"(?:^|,)\s*([a-z_]+) ([A-Z]+)", body)
            columns += re.findall(rf"ALTER TABLE {name} ADD COLUMN ([a-z_]+) ([A-Z]+)", step)
        return Table(name, {column: kind.lower() for column, kind in columns})


class _Connection(Session, Protocol):
    def begin(self, *, writes: bool = True) -> None: ...
    def commit(self) -> None: ...
    def roll_back(self) -> None: ...
    def lock_migrations(self) -> None: ...


def migrate(connection: _Connection, applications: Sequence[Migrations], shown: str) -> None:
    """Bring all tables up to date, all or nothing; other processes wait meanwhile.

    Raises InputError for a database that a newer version has migrated.
    """
    connection.begin()
    try:
        connection.lock_migrations()
        connection.run(_VERSIONS)
        for application in applications:
            _migrate(connection, application, shown)
        connection.commit()
    except BaseException:
        connection.roll_back()
        raise


def _migrate(session: Session, given: Migrations, shown: str) -> None:
    rows = session.rows("SELECT version FROM schema_version WHERE application = ?", given.application)
    version = rows[0][0] if rows else 0
    if version > len(given.steps):
        raise InputError(
            f"{shown}: the tables of {given.application} have version {version}, and this program knows "
            f"{len(given.steps)}: use the newer program"
        )
    for step in given.steps[version:]:
        for statement in filter(None, map(str.strip, step.split(";"))):
            session.run(statement)
    session.run(
        "INSERT INTO schema_version (application, version) VALUES (?, ?) "
        "ON CONFLICT (application) DO UPDATE SET version = excluded.version",
        given.application,
        len(given.steps),
    )
