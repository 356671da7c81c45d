"""Endpoints: their settings, secrets and state."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET

from yelpaze.hooks.context import Access, Context, at, ms, shard_of, sure_at
from yelpaze.hooks.errors import HooksError, conflict, invalid, not_found
from yelpaze.hooks.ids import id_at
from yelpaze.hooks.kinds.email import completed
from yelpaze.hooks.kinds.protocol import Secret, Settings
from yelpaze.hooks.kinds.registry import KINDS, shown_options
from yelpaze.hooks.log.applications import (
    Application,
    check_uid,
    checked_metadata,
    either,
    find_application,
    kept,
    touch_application,
)
from yelpaze.hooks.log.checks import check_settings
from yelpaze.hooks.log.paging import PageRequest, Slice, sliced
from yelpaze.hooks.signing import key_of, new_secret
from yelpaze.hooks.tables import CANCELED, ENDPOINT, FAILED, PENDING, SUCCEEDED
from yelpaze.hooks.values import (
    EndpointHeadersOut,
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    EndpointSecretRotateIn,
    EndpointStats,
)
from yelpaze.model.errors import MisuseError
from yelpaze.model.secrets import SECRETS
from yelpaze.store.session import Row, Session, first

_NAMES = ENDPOINT.columns
COLUMNS = ", ".join(_NAMES)
EVENT_TYPE = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
CHANNEL = re.compile(r"[a-zA-Z0-9\-_.:]{1,128}")
_MOST_CHANNELS = 10
_MOST_DESCRIPTION = 4096
_MOST_SECRET = 256
_LONGEST_GRACE = 7 * 86_400
_HIDDEN = "***"
_STATS_MS = 28 * 86_400_000


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint as a row; `settings` decrypted."""

    id: str
    app_id: str
    uid: str | None
    settings: Settings
    description: str
    event_types: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    metadata: str
    version: int
    shard: int
    paused: bool
    disabled: bool
    disabled_reason: str
    failures: int
    failing_since: int | None
    warned: int
    blocked_until: int
    created: int
    updated: int

    def out(self, context: Context) -> EndpointOut:
        """Return its public form."""
        settings = self.settings
        return EndpointOut(
            id=self.id,
            uid=self.uid,
            url=settings.url,
            kind=settings.kind,
            options=shown_options(settings),
            description=self.description,
            version=1,
            disabled=self.disabled,
            disabled_reason=self.disabled_reason,
            paused=self.paused,
            filter_types=self.event_types,
            event_types=self.event_types,
            channels=self.channels,
            metadata=msgspec.json.decode(self.metadata),
            rate_limit=settings.rate,
            throttle_rate=settings.rate,
            timeout=float(settings.timeout or context.settings.timeout),
            concurrency=settings.concurrency or context.settings.endpoint_concurrency,
            fifo=settings.fifo,
            schedule=settings.schedule,
            failing_since=at(self.failing_since),
            created_at=sure_at(self.created),
            updated_at=sure_at(self.updated),
        )

    def matches(self, event_type: str, channels: Sequence[str] | None) -> bool:
        """Whether a message of that type and these channels goes to it."""
        return matches(self.event_types, self.channels, event_type, channels)


def matches(
    wanted_types: Collection[str] | None,
    wanted_channels: Collection[str] | None,
    event_type: str,
    channels: Sequence[str] | None,
) -> bool:
    """Whether filters let a message through; None lets everything through.

    >>> matches(["order.completed"], None, "order.completed", None)
    True
    >>> matches(None, ["eu"], "order.completed", None)
    False
    """
    if wanted_types is not None and event_type not in wanted_types:
        return False
    return wanted_channels is None or any(one in wanted_channels for one in channels or ())


def endpoint_of(context: Context, row: Row) -> Endpoint:
    """The struct of a row."""
    fields = dict(zip(_NAMES, row, strict=True))
    settings = msgspec.json.decode(context.sealer.open(fields.pop("sealed")), type=Settings)
    for name in ("event_types", "channels"):
        if fields[name] is not None:
            fields[name] = tuple(msgspec.json.decode(fields[name]))
    for name in ("paused", "disabled"):
        fields[name] = bool(fields[name])
    return Endpoint(settings=settings, **fields)


def find_endpoint(session: Session, context: Context, app: Application, name: str) -> Endpoint:
    """An endpoint by id or uid. Raises HooksError."""
    rows = session.rows(
        f"SELECT {COLUMNS} FROM endpoint WHERE app_id = ? AND (id = ? OR uid = ?)",  # noqa: S608
        *(app.id, name, name),
    )
    row = first(sorted(rows, key=lambda row: row[0] != name))
    if row is None:
        raise not_found("endpoint")
    return endpoint_of(context, row)


def list_endpoints(
    session: Session, context: Context, access: Access, app_name: str, asked: PageRequest
) -> Slice:
    """A page of an application's endpoints. Its rows are `EndpointOut`."""
    app = find_application(session, access, app_name)
    page = sliced(session, f"SELECT {COLUMNS} FROM endpoint", "id", [("app_id = ?", [app.id])], asked)  # noqa: S608
    rows: list[Any] = [(endpoint_of(context, row).out(context),) for row in page.rows]
    return msgspec.structs.replace(page, rows=rows)


def create_endpoint(
    session: Session,
    context: Context,
    app: Application,
    given: EndpointIn,
    *,
    trusted: bool = False,
    endpoint_id: str | None = None,
) -> Endpoint:
    """A new one, with a secret if its kind signs. Raises HooksError."""
    settings = Settings(
        kind=given.kind,
        url=given.url or (KINDS[given.kind].url or "" if given.kind in KINDS else ""),
        options=given.options,
        headers=given.headers or {},
        timeout=given.timeout,
        concurrency=given.concurrency,
        rate=given.rate_limit if given.throttle_rate is None else given.throttle_rate,
        fifo=given.fifo,
        schedule=given.schedule,
        tls=given.tls,
        trusted=trusted,
    )
    now = context.now()
    new_id = endpoint_id or context.ids.new("ep")
    types = given.filter_types if given.event_types is None else given.event_types
    new = Endpoint(
        id=new_id,
        app_id=app.id,
        uid=given.uid,
        settings=settings,
        description=given.description,
        event_types=types,
        channels=given.channels,
        metadata=checked_metadata(given.metadata),
        version=context.version(),
        shard=shard_of(new_id),
        paused=given.paused,
        disabled=given.disabled,
        disabled_reason="by request" if given.disabled else "",
        failures=0,
        failing_since=None,
        warned=0,
        blocked_until=0,
        created=now,
        updated=now,
    )
    _check(session, context, new)
    secret = None
    if KINDS[new.settings.kind].signs:
        secret = new_secret() if given.secret is None else checked_secret(new.settings, given.secret)
    elif given.secret is not None:
        raise invalid("secret", f"an endpoint of kind {new.settings.kind} is not signed")
    session.run(
        f"INSERT INTO endpoint ({COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})",  # noqa: S608
        *_row(context, new),
    )
    if secret is not None:
        _add_secret(session, context, new.id, secret, now)
    touch_application(session, context, app.id)
    return new


def patch_endpoint(
    session: Session,
    context: Context,
    app: Application,
    name: str,
    patch: EndpointPatch,
    *,
    trusted: bool = False,
) -> Endpoint:
    """Change what the patch has; whoever is not the operator takes away its trust. Raises HooksError."""
    old = find_endpoint(session, context, app, name)
    settings = old.settings
    kind = kept(patch.kind, settings.kind)
    url = kept(patch.url, settings.url)
    if kind != settings.kind and patch.url is UNSET and kind in KINDS:
        url = KINDS[kind].url or ""
    settings = msgspec.structs.replace(
        settings,
        kind=kind,
        url=url,
        options=_options(patch, settings),
        headers=kept(patch.headers, settings.headers),
        timeout=kept(patch.timeout, settings.timeout),
        concurrency=kept(patch.concurrency, settings.concurrency),
        rate=kept(either(patch.throttle_rate, patch.rate_limit), settings.rate),
        fifo=kept(patch.fifo, settings.fifo),
        schedule=kept(patch.schedule, settings.schedule),
        tls=kept(patch.tls, settings.tls),
        trusted=trusted,
    )
    disabled = kept(patch.disabled, old.disabled)
    is_enabled_again = old.disabled and not disabled
    new = msgspec.structs.replace(
        old,
        settings=settings,
        description=kept(patch.description, old.description),
        uid=kept(patch.uid, old.uid),
        disabled=disabled,
        disabled_reason="" if not disabled else old.disabled_reason or "by request",
        paused=kept(patch.paused, old.paused),
        event_types=kept(either(patch.event_types, patch.filter_types), old.event_types),
        channels=kept(patch.channels, old.channels),
        metadata=old.metadata if patch.metadata is UNSET else checked_metadata(kept(patch.metadata, {})),
        failures=0 if is_enabled_again else old.failures,
        failing_since=None if is_enabled_again else old.failing_since,
        warned=0 if is_enabled_again else old.warned,
        blocked_until=0 if is_enabled_again else old.blocked_until,
    )
    _check(session, context, new, old.settings if kind == old.settings.kind else None)
    _check_secret(session, context, new)
    return save_endpoint(session, context, new)


def _check_secret(session: Session, context: Context, endpoint: Endpoint) -> None:
    """A secret that fits what the endpoint is now. Raises HooksError."""
    if not KINDS[endpoint.settings.kind].signs:
        return
    known = secrets_of(session, context, [endpoint.id]).get(endpoint.id, ())
    if not known:
        _add_secret(session, context, endpoint.id, new_secret(), context.now())
    for one in known:
        try:
            checked_secret(endpoint.settings, one.text)
        except HooksError:
            detail = "needs a secret of another form: make the endpoint anew with one"
            raise invalid("options.signatures", detail) from None


def _options(patch: EndpointPatch, settings: Settings) -> dict[str, Any]:
    """The new options; a secret that is sent back as it was shown stays as it is."""
    given = kept(patch.options, settings.options)
    old = settings.options
    moved = kept(patch.url, settings.url) != settings.url or given.get("host") != old.get("host")
    for name in KINDS[settings.kind].secret_options if moved else ():
        # Or whoever may change the endpoint could have its secrets sent to a server of their own.
        if old.get(name) and (patch.options is UNSET or given.get(name) in (None, _HIDDEN)):
            raise invalid(f"options.{name}", "give it again, since the endpoint gets another address")
    return {
        name: settings.options[name] if value == _HIDDEN and name in settings.options else value
        for name, value in given.items()
    }


def save_endpoint(session: Session, context: Context, endpoint: Endpoint) -> Endpoint:
    """Write a changed endpoint."""
    new = msgspec.structs.replace(endpoint, version=context.version(), updated=context.now())
    values = ", ".join(f"{name} = ?" for name in _NAMES[2:])
    session.run(f"UPDATE endpoint SET {values} WHERE id = ?", *_row(context, new)[2:], new.id)  # noqa: S608
    if new.disabled:
        session.run(
            "UPDATE delivery SET state = ? WHERE endpoint_id = ? AND state = ?", *(FAILED, new.id, PENDING)
        )
    touch_application(session, context, new.app_id)
    return new


def delete_endpoint(session: Session, context: Context, app: Application, name: str) -> Endpoint:
    """Delete it and its deliveries; its attempts stay until they are too old. Raises HooksError."""
    endpoint = find_endpoint(session, context, app, name)
    session.run("DELETE FROM secret WHERE endpoint_id = ?", endpoint.id)
    session.run("DELETE FROM delivery WHERE endpoint_id = ?", endpoint.id)
    session.run("DELETE FROM endpoint WHERE id = ?", endpoint.id)
    touch_application(session, context, app.id)
    return endpoint


def _check(session: Session, context: Context, endpoint: Endpoint, old: Settings | None = None) -> None:
    check_uid(endpoint.uid)
    settings = completed(endpoint.settings, context.settings.smtp)
    check_settings(context, settings, old_url=old.url if old is not None else None)
    if len(endpoint.description) > _MOST_DESCRIPTION or "\0" in endpoint.description:
        raise invalid("description", f"takes {_MOST_DESCRIPTION:,} characters at most")
    if endpoint.event_types is not None:
        if not endpoint.event_types:
            raise invalid("eventTypes", "takes at least one; leave it out for all")
        for name in endpoint.event_types:
            check_event_type(name, "eventTypes")
    check_channels(endpoint.channels)
    if endpoint.uid is not None and session.rows(
        "SELECT id FROM endpoint WHERE app_id = ? AND uid = ? AND id <> ?",
        *(endpoint.app_id, endpoint.uid, endpoint.id),
    ):
        raise conflict(f"there is an endpoint with the uid {endpoint.uid!r}")


def check_event_type(name: str, field: str = "eventType") -> None:
    """Refuse what is no name of an event type."""
    if not EVENT_TYPE.fullmatch(name):
        raise invalid(field, "takes 1 to 256 letters, digits, -, _ and ., as in order.completed")


def check_channels(channels: Sequence[str] | None) -> None:
    """Refuse what are no channels."""
    if channels is None:
        return
    if not 1 <= len(channels) <= _MOST_CHANNELS:
        raise invalid("channels", f"takes 1 to {_MOST_CHANNELS}; leave it out for all")
    for name in channels:
        if not CHANNEL.fullmatch(name):
            raise invalid("channels", "takes 1 to 128 letters, digits, -, _, : and .")


def _row(context: Context, endpoint: Endpoint) -> list[Any]:
    sealed = context.sealer.seal(msgspec.json.encode(endpoint.settings))
    return [
        endpoint.id,
        endpoint.app_id,
        endpoint.uid,
        sealed,
        endpoint.description,
        as_json(endpoint.event_types),
        as_json(endpoint.channels),
        endpoint.metadata,
        endpoint.version,
        endpoint.shard,
        int(endpoint.paused),
        int(endpoint.disabled),
        endpoint.disabled_reason,
        endpoint.failures,
        endpoint.failing_since,
        endpoint.warned,
        endpoint.blocked_until,
        endpoint.created,
        endpoint.updated,
    ]


def as_json(value: Iterable[str] | None) -> str | None:
    """A list as the store keeps it."""
    return None if value is None else msgspec.json.encode(list(value)).decode()


# ── headers ─────────────────────────────────────────────────────────────────────


def shown_headers(endpoint: Endpoint) -> EndpointHeadersOut:
    """The headers, the values of secret ones left out."""
    given = endpoint.settings.headers
    return EndpointHeadersOut(
        headers={name: value for name, value in given.items() if not SECRETS.has(name)},
        sensitive=tuple(name for name in given if SECRETS.has(name)),
    )


def set_headers(session: Session, context: Context, endpoint: Endpoint, headers: dict[str, str]) -> Endpoint:
    """Replace all headers. Raises HooksError."""
    settings = msgspec.structs.replace(endpoint.settings, headers=headers)
    check_settings(context, settings)
    return save_endpoint(session, context, msgspec.structs.replace(endpoint, settings=settings))


# ── secrets ─────────────────────────────────────────────────────────────────────


def checked_secret(settings: Settings, text: str, field: str = "secret") -> str:
    """A secret of the caller's own. Raises HooksError."""
    forms = settings.options.get("signatures")
    is_standard = forms is None or any(one.get("form", "standard") == "standard" for one in forms)
    if is_standard:
        try:
            key_of(text)
        except MisuseError as error:
            raise invalid(field, str(error)) from None
    elif not 8 <= len(text) <= _MOST_SECRET or not (text.isascii() and text.isprintable()):  # noqa: PLR2004
        raise invalid(field, f"takes 8 to {_MOST_SECRET} printable ASCII characters")
    return text


def _add_secret(session: Session, context: Context, endpoint_id: str, text: str, now: int) -> None:
    session.run(
        "INSERT INTO secret (endpoint_id, created, expires, sealed) VALUES (?, ?, NULL, ?)",
        *(endpoint_id, now, context.sealer.seal(text.encode())),
    )


def secrets_of(
    session: Session, context: Context, endpoint_ids: Sequence[str]
) -> dict[str, tuple[Secret, ...]]:
    """The secrets that hold now, by endpoint, the newest first."""
    rows = session.rows(
        "SELECT endpoint_id, sealed, expires FROM secret WHERE endpoint_id IN ?? "
        "AND (expires IS NULL OR expires > ?) ORDER BY created DESC",
        *(list(endpoint_ids), context.now()),
    )
    found: dict[str, list[Secret]] = {}
    for endpoint_id, sealed, expires in rows:
        found.setdefault(endpoint_id, []).append(Secret(context.sealer.open(sealed).decode(), expires))
    return {endpoint_id: tuple(secrets) for endpoint_id, secrets in found.items()}


def rotate_secret(
    session: Session, context: Context, endpoint: Endpoint, given: EndpointSecretRotateIn
) -> str:
    """Make a new secret and return it; the old one signs beside it for a grace period. Raises HooksError."""
    if not KINDS[endpoint.settings.kind].signs:
        raise invalid("key", f"an endpoint of kind {endpoint.settings.kind} is not signed")
    text = new_secret() if given.key is None else given.key
    checked_secret(endpoint.settings, text, "key")
    grace = given.grace_period_seconds
    seconds = context.settings.secret_grace if grace is None else grace
    if not 0 <= seconds <= _LONGEST_GRACE:
        raise invalid("gracePeriodSeconds", f"takes 0 to {_LONGEST_GRACE}")
    now = context.now()
    last = first(session.rows("SELECT max(created) FROM secret WHERE endpoint_id = ?", endpoint.id))
    created = max(now, (last[0] or 0) + 1 if last is not None else now)
    session.run(
        "UPDATE secret SET expires = ? WHERE endpoint_id = ? AND (expires IS NULL OR expires > ?)",
        *(now + int(seconds * 1000), endpoint.id, now + int(seconds * 1000)),
    )
    session.run("DELETE FROM secret WHERE endpoint_id = ? AND expires <= ?", endpoint.id, now)
    _add_secret(session, context, endpoint.id, text, created)
    save_endpoint(session, context, endpoint)
    return text


def check_key(session: Session, context: Context) -> None:
    """Refuse a key with which what is there cannot be decrypted. Raises InputError."""
    for table in ("endpoint", "secret"):
        for (sealed,) in session.rows(f"SELECT sealed FROM {table} LIMIT 1"):  # noqa: S608
            context.sealer.open(sealed)


def reseal_all(session: Session, context: Context) -> int:
    """Encrypt everything with the newest key; return how many values that were."""
    count = 0
    for table, key in (("endpoint", "id"), ("secret", "endpoint_id, created")):
        names = key.split(", ")
        for *key_values, sealed in session.rows(f"SELECT {key}, sealed FROM {table}"):  # noqa: S608
            where = " AND ".join(f"{name} = ?" for name in names)
            session.run(
                f"UPDATE {table} SET sealed = ? WHERE {where}",  # noqa: S608
                *(context.sealer.resealed(sealed), *key_values),
            )
            count += 1
    return count


def stats_of(
    session: Session,
    context: Context,
    endpoint: Endpoint,
    since: datetime | None = None,
    until: datetime | None = None,
) -> EndpointStats:
    """Count deliveries by state, for messages of that time; by default of the last 28 days."""
    end = context.now() if until is None else ms(until)
    begin = end - _STATS_MS if since is None else ms(since)
    rows = session.rows(
        "SELECT state, count(*) FROM delivery WHERE endpoint_id = ? AND message_id >= ? AND message_id < ? "
        "GROUP BY state",
        *(endpoint.id, id_at("msg", begin), id_at("msg", end + 1)),
    )
    counts: dict[int, int] = dict(rows)
    return EndpointStats(
        success=counts.get(SUCCEEDED, 0),
        pending=counts.get(PENDING, 0),
        fail=counts.get(FAILED, 0),
        canceled=counts.get(CANCELED, 0),
    )
