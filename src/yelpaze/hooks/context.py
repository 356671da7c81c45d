"""The context of the log's functions: time, ids, keys, limits."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from zlib import crc32

import msgspec

from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.ids import Ids
from yelpaze.hooks.sealing import Sealer
from yelpaze.hooks.settings import HooksSettings
from yelpaze.hooks.tables import SHARDS


class Context(msgspec.Struct, frozen=True):
    """`wall` is seconds since 1970."""

    settings: HooksSettings
    sealer: Sealer
    ids: Ids
    rng: random.Random
    wall: Callable[[], float]

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.wall() * 1000)

    def version(self) -> int:
        """A number that no earlier version had, in a transaction that was rolled back either."""
        return self.rng.getrandbits(62)


class Access(msgspec.Struct, frozen=True):
    """The rights of a caller: all applications, or one."""

    app_id: str | None = None

    def is_all(self) -> bool:
        """Whether all applications may be seen."""
        return self.app_id is None

    def require_all(self) -> None:
        """Refuse who may see one application only."""
        if self.app_id is not None:
            raise HooksError(403, "forbidden", "this takes a token for all applications")


def shard_of(endpoint_id: str) -> int:
    """The shard of an endpoint."""
    return crc32(endpoint_id.encode()) % SHARDS


def at(milliseconds: int | None) -> datetime | None:
    """A point in time for people."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def sure_at(milliseconds: int) -> datetime:
    """A point in time that is there."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def ms(time: datetime) -> int:
    """Milliseconds since 1970; without a zone it is UTC."""
    return int((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000)
