"""Applications, and the tokens that open them."""

import hashlib
import re
import secrets
from typing import TypeVar

import msgspec
from msgspec import UnsetType

from yelpaze.hooks.context import Access, Context, at, sure_at
from yelpaze.hooks.errors import conflict, invalid, not_found
from yelpaze.hooks.log.paging import PageRequest, Slice, sliced
from yelpaze.hooks.tables import READY
from yelpaze.hooks.values import (
    ApplicationIn,
    ApplicationOut,
    ApplicationPatch,
    TokenIn,
    TokenOut,
)
from yelpaze.store.session import Row, Session, first

T = TypeVar("T")
_COLUMNS = "id, uid, name, rate, metadata, version, created, updated"
_UID = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_MOST_NAME = 256
_MOST_METADATA = 10_000
_LONGEST_TOKEN = 10 * 366 * 86_400  # seconds
OPERATOR_UID = "yelpaze.operator"


class Application(msgspec.Struct, frozen=True):
    """An application as a row."""

    id: str
    uid: str | None
    name: str
    rate: int | None
    metadata: str
    version: int
    created: int
    updated: int

    def out(self) -> ApplicationOut:
        """Return its public form."""
        return ApplicationOut(
            id=self.id,
            uid=self.uid,
            name=self.name,
            rate_limit=self.rate,
            throttle_rate=self.rate,
            metadata=msgspec.json.decode(self.metadata),
            created_at=sure_at(self.created),
            updated_at=sure_at(self.updated),
        )


def application_of(row: Row) -> Application:
    """The struct of a row."""
    return Application(*row)


def find_application(session: Session, access: Access, name: str) -> Application:
    """An application by id or uid. Raises HooksError, for somebody else's, too."""
    if "\0" in name:  # which PostgreSQL cannot compare
        raise not_found("application")
    rows = session.rows(f"SELECT {_COLUMNS} FROM application WHERE id = ? OR uid = ?", name, name)  # noqa: S608
    row = first(sorted(rows, key=lambda row: row[0] != name))  # an id wins over a uid
    if row is None or (access.app_id is not None and row[0] != access.app_id):
        raise not_found("application")
    return application_of(row)


def list_applications(session: Session, access: Access, asked: PageRequest) -> Slice:
    """A page of the applications that the caller may see."""
    own = [("id = ?", [access.app_id])] if access.app_id is not None else []
    return sliced(session, f"SELECT {_COLUMNS} FROM application", "id", own, asked)  # noqa: S608


def create_application(
    session: Session, context: Context, given: ApplicationIn, *, get_if_exists: bool = False
) -> tuple[Application, bool]:
    """A new one, and true; or, if that is wanted, the one that has the uid. Raises HooksError."""
    check_uid(given.uid)
    rate = given.rate_limit if given.throttle_rate is None else given.throttle_rate
    check_name(given.name)
    check_rate(rate)
    metadata = checked_metadata(given.metadata)
    if given.uid is not None:
        row = first(session.rows(f"SELECT {_COLUMNS} FROM application WHERE uid = ?", given.uid))  # noqa: S608
        if row is not None and get_if_exists:
            return application_of(row), False
        if row is not None:
            raise conflict(f"there is an application with the uid {given.uid!r}")
    now = context.now()
    new = Application(
        context.ids.new("app"), given.uid, given.name, rate, metadata, context.version(), now, now
    )
    session.run(
        f"INSERT INTO application ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        *msgspec.structs.astuple(new),
    )
    return new, True


def patch_application(
    session: Session, context: Context, access: Access, name: str, patch: ApplicationPatch
) -> Application:
    """Change what the patch has. Raises HooksError."""
    old = find_application(session, access, name)
    rate = either(patch.throttle_rate, patch.rate_limit)
    new = msgspec.structs.replace(
        old,
        name=kept(patch.name, old.name),
        uid=kept(patch.uid, old.uid),
        rate=kept(rate, old.rate),
        metadata=old.metadata if isinstance(patch.metadata, UnsetType) else checked_metadata(patch.metadata),
        updated=context.now(),
        version=context.version(),
    )
    check_uid(new.uid)
    check_name(new.name)
    check_rate(new.rate)
    if new.uid is not None and new.uid != old.uid:
        taken = session.rows("SELECT id FROM application WHERE uid = ? AND id <> ?", new.uid, new.id)
        if taken:
            raise conflict(f"there is an application with the uid {new.uid!r}")
    session.run(
        "UPDATE application SET uid = ?, name = ?, rate = ?, metadata = ?, version = ?, updated = ? "
        "WHERE id = ?",
        *(new.uid, new.name, new.rate, new.metadata, new.version, new.updated, new.id),
    )
    if new.rate != old.rate:  # the owners of its endpoints read it with them
        found = session.rows("SELECT shard, id FROM endpoint WHERE app_id = ?", new.id)
        session.insert(READY, [(context.rng.getrandbits(62), *row) for row in found])
    return new


def delete_application(session: Session, access: Access, name: str) -> list[str]:
    """Delete it with all that it has; return the ids of its endpoints. Raises HooksError."""
    app = find_application(session, access, name)
    endpoints = [row[0] for row in session.rows("SELECT id FROM endpoint WHERE app_id = ?", app.id)]
    session.run("DELETE FROM secret WHERE endpoint_id IN ??", endpoints)
    session.run("DELETE FROM delivery WHERE endpoint_id IN ??", endpoints)
    for table in ("endpoint", "message", "attempt", "token"):
        session.run(f"DELETE FROM {table} WHERE app_id = ?", app.id)  # noqa: S608
    session.run("DELETE FROM application WHERE id = ?", app.id)
    return endpoints


def touch_application(session: Session, context: Context, app_id: str) -> None:
    """Its endpoints have changed: who remembers them reads them again."""
    session.run("UPDATE application SET version = ? WHERE id = ?", context.version(), app_id)


# ── tokens ──────────────────────────────────────────────────────────────────────


def digest_of(token: str) -> str:
    """Hash a token for the store. It has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(session: Session, context: Context, access: Access, given: TokenIn) -> TokenOut:
    """A new token; it is shown here and never again. Raises HooksError."""
    access.require_all()
    app_id = None
    if given.application_id is not None:
        app_id = find_application(session, access, given.application_id).id
    if given.expires_in is not None and not 1 <= given.expires_in <= _LONGEST_TOKEN:
        raise invalid("expiresIn", f"takes seconds, 1 to {_LONGEST_TOKEN:,}")
    if "\0" in given.name:
        raise invalid("name", "has NUL in it")
    token = f"yt_{secrets.token_urlsafe(32)}"
    now = context.now()
    expires = None if given.expires_in is None else now + given.expires_in * 1000
    token_id = context.ids.new("tok")
    session.run(
        "INSERT INTO token (id, hash, app_id, name, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
        *(token_id, digest_of(token), app_id, given.name[:_MOST_NAME], now, expires),
    )
    return TokenOut(
        id=token_id,
        name=given.name[:_MOST_NAME],
        application_id=app_id,
        created_at=sure_at(now),
        expires_at=at(expires),
        token=token,
    )


def find_access(session: Session, context: Context, token: str) -> Access | None:
    """Return the access that a token gives; None if it is unknown or expired."""
    row = first(session.rows("SELECT app_id, expires FROM token WHERE hash = ?", digest_of(token)))
    if row is None or (row[1] is not None and row[1] <= context.now()):
        return None
    return Access(row[0])


def list_tokens(session: Session, access: Access) -> list[TokenOut]:
    """The tokens that there are, without themselves."""
    access.require_all()
    rows = session.rows("SELECT id, name, app_id, created, expires FROM token ORDER BY id")
    return [
        TokenOut(id=id, name=name, application_id=app, created_at=sure_at(created), expires_at=at(expires))
        for id, name, app, created, expires in rows  # noqa: A001
    ]


def delete_token(session: Session, access: Access, token_id: str) -> None:
    """Revoke a token. Raises HooksError."""
    access.require_all()
    if not session.rows("SELECT id FROM token WHERE id = ?", token_id):
        raise not_found("token")
    session.run("DELETE FROM token WHERE id = ?", token_id)


# ── checks that others use, too ─────────────────────────────────────────────────


def check_uid(uid: str | None, field: str = "uid") -> None:
    """Refuse what is no uid."""
    if uid is not None and not _UID.fullmatch(uid):
        raise invalid(field, "takes 1 to 256 letters, digits, -, _ and .")


def check_name(name: str) -> None:
    """Refuse an empty name, or a very long one."""
    if not 1 <= len(name) <= _MOST_NAME or "\0" in name:
        raise invalid("name", f"takes 1 to {_MOST_NAME} characters")


def check_rate(rate: int | None) -> None:
    """Refuse a rate that lets nothing through."""
    if rate is not None and not 1 <= rate <= 1_000_000:  # noqa: PLR2004
        raise invalid("throttleRate", "takes messages per second, 1 to 1,000,000")


def checked_metadata(given: dict[str, str]) -> str:
    """Metadata as JSON. Raises HooksError."""
    text = msgspec.json.encode(given).decode()
    if len(text) > _MOST_METADATA:
        raise invalid("metadata", f"takes {_MOST_METADATA:,} bytes at most")
    return text


def kept(given: T | UnsetType, old: T) -> T:
    """Return the patch's value, or the old one if the patch has none."""
    return old if isinstance(given, UnsetType) else given


def either(one: T | UnsetType, other: T | UnsetType) -> T | UnsetType:
    """The first of two names for one field that is given."""
    return other if isinstance(one, UnsetType) else one
