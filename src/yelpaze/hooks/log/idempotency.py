"""Idempotency-Key: the same request again gets the first one's answer (as Svix has it, for 12 hours)."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from yelpaze.hooks.context import Context
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.tables import IDEMPOTENCY
from yelpaze.store.session import Session, first

KEPT = 12 * 3600 * 1000  # milliseconds
_MOST_KEY = 256
S = TypeVar("S", bound=msgspec.Struct)


class Key(msgspec.Struct, frozen=True):
    """The key of a request: within `scope`, and with a digest of the request itself."""

    scope: str
    key: str
    request: str

    @classmethod
    def of(cls, scope: str, key: str, request: bytes) -> "Key":
        """The key of a request. Raises HooksError for one that is too long."""
        if not 1 <= len(key) <= _MOST_KEY or "\0" in key:
            raise HooksError(
                422, "validation", f"takes 1 to {_MOST_KEY} characters", ("idempotency-key",), where="header"
            )
        return cls(scope, key, hashlib.sha256(request).hexdigest())


def answered(session: Session, context: Context, key: Key) -> str | None:
    """The answer that the key's first request got. Raises HooksError if that was another request."""
    row = first(
        session.rows(
            "SELECT request, answer FROM idempotency WHERE scope = ? AND key = ? AND created > ?",
            *(key.scope, key.key, context.now() - KEPT),
        )
    )
    if row is None:
        return None
    if row[0] != key.request:
        raise HooksError(
            422,
            "validation",
            "was used for another request: use a new key for each",
            ("idempotency-key",),
            where="header",
        )
    return str(row[1])


def remember(session: Session, context: Context, key: Key, answer: str) -> None:
    """Keep the answer."""
    session.run("DELETE FROM idempotency WHERE scope = ? AND key = ?", key.scope, key.key)
    session.insert(IDEMPOTENCY, [(key.scope, key.key, key.request, answer, context.now())])


def once(session: Session, context: Context, key: Key | None, work: Callable[[], S], kind: type[S]) -> S:
    """Do the work, or give the answer of the first request with that key."""
    if key is None:
        return work()
    known = answered(session, context, key)
    if known is not None:
        return msgspec.json.decode(known, type=kind)
    value = work()
    remember(session, context, key, msgspec.json.encode(value).decode())
    return value
