"""Which backend a store's name means."""

from functools import partial
from pathlib import Path

from yelpaze.model.errors import InputError
from yelpaze.model.extras import require
from yelpaze.model.secrets import SECRETS
from yelpaze.store.leases import LEASES
from yelpaze.store.migrations import Migrations
from yelpaze.store.sqlite import SqliteConnection
from yelpaze.store.store import Connection, Store

_POSTGRES = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"


def is_postgres(name: str) -> bool:
    """Whether that name means a PostgreSQL database."""
    return name.startswith(_POSTGRES)


def sqlite_path(name: str) -> str:
    """The file that a name means: `hooks.db`, or `sqlite:///hooks.db`. Raises InputError."""
    path = name.removeprefix(_SQLITE)
    if not path or "://" in path:
        raise InputError(f"{SECRETS.url(name)!r}: a store is an SQLite file or a postgresql:// URL")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist: create it first")
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    return path


def connect_to(name: str, *, read_only: bool = False, own: bool = True) -> Connection:
    """A connection to a database by its name; one that is not our own must be there, and stays as it is.

    Raises InputError, MisuseError, StoreUnavailable.
    """
    if is_postgres(name):
        require("postgres", "a store in PostgreSQL")
        from yelpaze.store.postgres import PostgresConnection  # noqa: PLC0415  an extra

        return PostgresConnection(name)
    return SqliteConnection(sqlite_path(name), read_only=read_only, own=own)


def open_store(name: str, *migrations: Migrations) -> Store:
    """A store by its name: an SQLite file, or a `postgresql://` URL. It is opened by `async with`.

    Raises InputError.
    """
    shown = SECRETS.url(name) if is_postgres(name) else sqlite_path(name)
    return Store(partial(connect_to, name), [LEASES, *migrations], shown)
