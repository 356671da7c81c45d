"""Messages: taken in many to a transaction, each with a delivery for every endpoint that it goes to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from yelpaze.hooks.context import Access, Context, at, ms, sure_at
from yelpaze.hooks.errors import HooksError, conflict, invalid, not_found
from yelpaze.hooks.ids import id_at
from yelpaze.hooks.log.applications import Application, create_application, find_application
from yelpaze.hooks.log.endpoints import as_json, check_channels, check_event_type
from yelpaze.hooks.log.fan_out import FanOut, Target
from yelpaze.hooks.log.idempotency import Key, answered, remember
from yelpaze.hooks.log.paging import PageRequest, Slice, sliced
from yelpaze.hooks.tables import CANCELED, DELIVERY, MESSAGE, PENDING, READY
from yelpaze.hooks.values import MessageIn, MessageOut, Trigger
from yelpaze.store.leases import Leases
from yelpaze.store.session import Row, Session, first

_COLUMNS = ", ".join(MESSAGE.types)
_MOST_KEY = 256
_MOST_TAGS = 10
_MOST_RETENTION_DAYS = 90
_MOST_RETENTION_HOURS = 24 * _MOST_RETENTION_DAYS
_ALARM = "alarm"
_LATEST = 253_370_764_800_000  # milliseconds: the beginning of the year 9999


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as a row."""

    id: str
    app_id: str
    uid: str | None
    event_type: str
    channels: str | None
    tags: str | None
    payload: bytes
    order_key: str | None
    expires: int | None
    schedule: str | None
    deliver_at: int | None
    discard_at: int | None
    created: int

    def out(self, *, with_content: bool = True) -> MessageOut:
        """Return its public form."""
        return MessageOut(**self.fields(with_content=with_content))

    def fields(self, *, with_content: bool = True) -> dict[str, Any]:
        """The fields of what callers see."""
        return {
            "id": self.id,
            "event_id": self.uid,
            "event_type": self.event_type,
            "payload": msgspec.Raw(bytes(self.payload) if with_content and self.payload else b"{}"),
            "channels": _list(self.channels),
            "tags": _list(self.tags),
            "timestamp": sure_at(self.created),
            "deliver_at": at(self.deliver_at),
            "order_key": self.order_key,
            "expires_at": at(self.expires),
        }


class NewMessage(msgspec.Struct, frozen=True):
    """A message that somebody wants to send; checked by `check_message`."""

    app: str
    access: Access
    given: MessageIn
    key: Key | None = None
    only: str | None = None  # a test event goes to this endpoint alone, whatever its filters are


class Accepted(msgspec.Struct, frozen=True):
    """A message that is in the store now, or was already; and to whom it goes from here."""

    message: Message
    targets: Sequence[Target] = ()  # in shards that this process owns
    fanned_out: int = 0  # to how many endpoints it goes in all
    is_new: bool = True  # false for the second request with the same idempotency key


def check_message(context: Context, given: MessageIn) -> None:
    """Refuse what cannot be sent, before anything is done. Raises HooksError."""
    check_event_type(given.event_type)
    payload = bytes(given.payload)
    if len(payload) > context.settings.max_payload:
        raise HooksError(
            413,
            "payload_too_large",
            f"the payload has {len(payload):,} bytes, and {context.settings.max_payload:,} are allowed",
            ("payload",),
        )
    if payload[:1] != b"{":
        raise invalid("payload", "takes a JSON object")
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise invalid("payload", "is not in UTF-8") from None
    check_channels(given.channels)
    _check_fields(given)


def _check_fields(given: MessageIn) -> None:
    if given.tags is not None and len(given.tags) > _MOST_TAGS:
        raise invalid("tags", f"takes {_MOST_TAGS} at most")
    for name in ("event_id", "order_key"):
        value = getattr(given, name)
        if value is not None and (not 1 <= len(value) <= _MOST_KEY or not value.isprintable()):
            raise invalid(_camel(name), f"takes 1 to {_MOST_KEY} printable characters")
    for name in ("expires_at", "deliver_at"):
        time = getattr(given, name)
        if time is not None and not 0 <= ms(time) <= _LATEST:
            raise invalid(_camel(name), "takes a time in the years 1970 to 9998")
    if given.schedule not in (None, "default", _ALARM):
        raise invalid("schedule", 'takes "default" or "alarm"')
    for name, most in (
        ("payload_retention_period", _MOST_RETENTION_DAYS),
        ("payload_retention_hours", _MOST_RETENTION_HOURS),
    ):
        value = getattr(given, name)
        if value is not None and not 1 <= value <= most:
            raise invalid(_camel(name), f"takes 1 to {most}")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.title, rest))


def create_messages(
    session: Session,
    context: Context,
    fan_out: FanOut,
    leases: Leases | None,
    epochs: dict[int, int],
    wanted: Sequence[NewMessage],
) -> list[Accepted | HooksError]:
    """Take in all that can be taken in; for the others, why not.

    Deliveries in shards of this process are handed over in memory; for the others the owner is told.
    """
    batch = _Batch(session, context, fan_out, _applications(session, wanted))
    for app_id, uid, message_id in _known_uids(session, batch.apps, wanted):
        batch.seen[app_id, uid] = message_id
    if leases is not None and epochs:
        batch.held = leases.held(session, epochs)
    results = [batch.add(new) for new in wanted]
    batch.flush()
    return results


class _Batch:
    """Messages on their way into one transaction."""

    def __init__(
        self, session: Session, context: Context, fan_out: FanOut, apps: dict[str, tuple[str, int]]
    ) -> None:
        self._session = session
        self._context = context
        self._fan_out = fan_out
        self._messages: list[Row] = []
        self._deliveries: list[Row] = []
        self._ready: set[tuple[int, str]] = set()
        self._made: dict[Key, Message] = {}
        self.apps = apps
        self.seen: dict[tuple[str, str], str] = {}
        self.held: set[int] = set()

    def add(self, new: NewMessage) -> Accepted | HooksError:
        """Take one in; or why not."""
        try:
            known = self._known(new.key)
            return self._create(new) if known is None else Accepted(known, is_new=False)
        except HooksError as error:
            return error

    def _known(self, key: Key | None) -> Message | None:
        """The message that the same request made before, in this batch or an earlier one."""
        if key is None:
            return None
        if key in self._made:
            return self._made[key]
        message_id = answered(self._session, self._context, key)
        if message_id is None:
            return None
        rows = self._session.rows(f"SELECT {_COLUMNS} FROM message WHERE id = ?", message_id)  # noqa: S608
        if not rows:
            raise not_found("message any more: it was deleted")
        return message_of(rows[0])

    def _create(self, new: NewMessage) -> Accepted:
        given, context = new.given, self._context
        app_id, version = self._application(new)
        if given.event_id is not None and (app_id, given.event_id) in self.seen:
            raise conflict(f"there is a message with the eventId {given.event_id!r}")
        now = context.now()
        message = _message(context, given, app_id, now)
        if given.event_id is not None:
            self.seen[app_id, given.event_id] = message.id
        targets = self._targets(new, app_id, version)
        if given.order_key is not None:
            self.flush()  # an earlier one may be in this batch
            supersede(self._session, message, [target.id for target in targets])
        due = max(now, message.deliver_at or now)
        self._messages.append(msgspec.structs.astuple(message))
        self._deliveries += [
            (target.id, message.id, PENDING, due, 0, 0, int(Trigger.SCHEDULED), 0) for target in targets
        ]
        held = self.held
        self._ready |= {(target.shard, target.id) for target in targets if target.shard not in held}
        if new.key is not None:
            self._made[new.key] = message
            remember(self._session, self._context, new.key, message.id)
        own = [target for target in targets if target.shard in held]
        return Accepted(message, own, len(targets))

    def _application(self, new: NewMessage) -> tuple[str, int]:
        found = self.apps.get(new.app)
        if found is None and new.given.application is not None and new.access.is_all():
            app, _ = create_application(
                self._session, self._context, new.given.application, get_if_exists=True
            )
            if new.app not in (app.id, app.uid):
                raise invalid("application.uid", f"is not the one of the path, {new.app!r}")
            found = self.apps[new.app] = (app.id, app.version)
        if found is None or new.access.app_id not in (None, found[0]):
            raise not_found("application")
        return found

    def _targets(self, new: NewMessage, app_id: str, version: int) -> list[Target]:
        if new.only is None:
            given = new.given
            return self._fan_out.of(self._session, app_id, version, given.event_type, given.channels)
        rows = self._session.rows("SELECT id, shard FROM endpoint WHERE id = ?", new.only)
        return [Target(endpoint_id, shard, None, None) for endpoint_id, shard in rows]

    def flush(self) -> None:
        """Write what has been taken in."""
        self._session.insert(MESSAGE, self._messages)
        self._session.insert(DELIVERY, self._deliveries)
        rng = self._context.rng
        ready = [(rng.getrandbits(62), shard, name) for shard, name in sorted(self._ready)]
        self._session.insert(READY, ready)
        self._messages, self._deliveries, self._ready = [], [], set()


def _message(context: Context, given: MessageIn, app_id: str, now: int) -> Message:
    return Message(
        id=context.ids.new("msg"),
        app_id=app_id,
        uid=given.event_id,
        event_type=given.event_type,
        channels=as_json(given.channels),
        tags=as_json(given.tags),
        payload=bytes(given.payload),
        order_key=given.order_key,
        expires=None if given.expires_at is None else ms(given.expires_at),
        schedule=given.schedule if given.schedule == _ALARM else None,
        deliver_at=None if given.deliver_at is None else ms(given.deliver_at),
        discard_at=_discard_at(given, now),
        created=now,
    )


def _applications(session: Session, wanted: Sequence[NewMessage]) -> dict[str, tuple[str, int]]:
    """Ids and versions of the applications by id and by uid."""
    names = list({new.app for new in wanted})
    rows = session.rows(
        "SELECT id, uid, version FROM application WHERE id IN ?? UNION ALL "
        "SELECT id, uid, version FROM application WHERE uid IN ??",
        *(names, names),
    )
    found = {uid: (app_id, version) for app_id, uid, version in rows if uid is not None}
    return found | {app_id: (app_id, version) for app_id, _, version in rows}


def _known_uids(
    session: Session, apps: dict[str, tuple[str, int]], wanted: Sequence[NewMessage]
) -> list[Row]:
    pairs = [
        (apps[new.app][0], new.given.event_id)
        for new in wanted
        if new.given.event_id is not None and new.app in apps
    ]
    if not pairs:
        return []
    return session.rows(
        "SELECT app_id, uid, id FROM message WHERE app_id IN ?? AND uid IN ??",
        *(sorted({app for app, _ in pairs}), sorted({str(uid) for _, uid in pairs})),
    )


def supersede(session: Session, message: Message, endpoints: list[str]) -> None:
    """Cancel what is undelivered under the order key of a message that is not in the store yet."""
    session.run(
        "UPDATE delivery SET state = ? WHERE state = ? AND endpoint_id IN ?? AND message_id IN "
        "(SELECT id FROM message WHERE app_id = ? AND order_key = ?)",
        *(CANCELED, PENDING, endpoints, message.app_id, message.order_key),
    )


def _discard_at(given: MessageIn, now: int) -> int | None:
    if given.payload_retention_hours is not None:
        return now + given.payload_retention_hours * 3_600_000
    if given.payload_retention_period is not None and given.payload_retention_period < _MOST_RETENTION_DAYS:
        return now + given.payload_retention_period * 86_400_000
    return None


# ── reading ─────────────────────────────────────────────────────────────────────


class MessageFilter(msgspec.Struct, frozen=True):
    """Which messages are asked for."""

    event_types: tuple[str, ...] = ()
    channel: str | None = None
    tag: str | None = None
    before: datetime | None = None
    after: datetime | None = None
    with_content: bool = True

    def conditions(self, prefix: str = "", id_column: str = "id") -> list[tuple[str, list[Any]]]:
        """As SQL, on columns with that prefix; times are read off the ids."""
        found: list[tuple[str, list[Any]]] = []
        if self.event_types:
            found.append((f"{prefix}event_type IN ??", [list(self.event_types)]))
        for column, value in (("channels", self.channel), ("tags", self.tag)):
            if value is not None:
                quoted = (
                    msgspec.json.encode(value)
                    .decode()
                    .replace("|", "||")
                    .replace("%", "|%")
                    .replace("_", "|_")
                )
                found.append((f"{prefix}{column} LIKE ? ESCAPE '|'", [f"%{quoted}%"]))
        if self.before is not None:
            found.append((f"{id_column} < ?", [id_at("msg", ms(self.before))]))
        if self.after is not None:
            found.append((f"{id_column} >= ?", [id_at("msg", ms(self.after))]))
        return found


def message_of(row: Row) -> Message:
    """The struct of a row."""
    return Message(*row)


def list_messages(session: Session, app: Application, asked: PageRequest, which: MessageFilter) -> Slice:
    """A page of an application's messages."""
    conditions = [("app_id = ?", [app.id]), *which.conditions()]
    return sliced(session, f"SELECT {_COLUMNS} FROM message", "id", conditions, asked)  # noqa: S608


def find_message(session: Session, app: Application, name: str) -> Message:
    """A message by id or eventId. Raises HooksError."""
    rows = session.rows(
        f"SELECT {_COLUMNS} FROM message WHERE app_id = ? AND (id = ? OR uid = ?)",  # noqa: S608
        *(app.id, name, name),
    )
    row = first(sorted(rows, key=lambda row: row[0] != name))
    if row is None:
        raise not_found("message")
    return message_of(row)


def expunge_message(session: Session, access: Access, app_name: str, name: str) -> None:
    """Delete the payload of a message; what is undelivered of it is dropped. Raises HooksError."""
    message = find_message(session, find_application(session, access, app_name), name)
    session.run("UPDATE message SET payload = ? WHERE id = ?", b"", message.id)
    session.run(
        "UPDATE delivery SET state = ? WHERE message_id = ? AND state = ?", CANCELED, message.id, PENDING
    )


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(msgspec.json.decode(text))
