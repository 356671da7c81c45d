"""The log of attempts, and deliveries as callers see them: their state, and what is sent again."""

from datetime import datetime
from typing import Any

import msgspec

from yelpaze.hooks.context import Context, at, ms, shard_of, sure_at
from yelpaze.hooks.errors import HooksError, not_found
from yelpaze.hooks.ids import id_at
from yelpaze.hooks.log.applications import Application
from yelpaze.hooks.log.endpoints import COLUMNS as ENDPOINT_COLUMNS
from yelpaze.hooks.log.endpoints import Endpoint, endpoint_of
from yelpaze.hooks.log.messages import Message, MessageFilter, message_of
from yelpaze.hooks.log.paging import PageRequest, Slice, sliced
from yelpaze.hooks.tables import ATTEMPT, DELIVERY, FAILED, MESSAGE, PENDING, READY
from yelpaze.hooks.values import AttemptOut, EndpointMessageOut, MessageEndpointOut, MessageStatus, Trigger
from yelpaze.store.session import Row, Session, first

_COLUMNS = ", ".join(f"a.{name}" for name in ATTEMPT.types)
_CHUNK = 1000


class AttemptFilter(MessageFilter, frozen=True):
    """Which attempts are asked for; `code_class` is 100, 200 … 500, or 0 for no answer."""

    status: int | None = None
    code_class: int | None = None
    code: int | None = None
    endpoint_id: str | None = None
    with_msg: bool = False

    def of_attempts(self) -> list[tuple[str, list[Any]]]:
        """As SQL, on attempts `a`, and messages `m` where channels or tags are asked for."""
        found: list[tuple[str, list[Any]]] = []
        for column, value in (
            ("endpoint_id", self.endpoint_id),
            ("state", self.status),
            ("status", self.code),
        ):
            if value is not None:
                found.append((f"a.{column} = ?", [value]))
        if self.code_class is not None:
            found.append(("a.status >= ? AND a.status < ?", [self.code_class, self.code_class + 100]))
        for time, sign in ((self.before, "<"), (self.after, ">=")):
            if time is not None:
                found.append((f"a.id {sign} ?", [id_at("atmpt", ms(time))]))
        if self.event_types:
            found.append(("a.event_type IN ??", [list(self.event_types)]))
        rest = msgspec.structs.replace(self, before=None, after=None, event_types=())
        return found + rest.conditions("m.", "m.id")


def attempt_of(row: Row, message: Message | None, *, with_content: bool = True) -> AttemptOut:
    """An attempt as callers see it."""
    found = dict(zip(ATTEMPT.types, row, strict=True))
    status = MessageStatus(found["state"])
    return AttemptOut(
        id=found["id"],
        msg_id=found["message_id"],
        endpoint_id=found["endpoint_id"],
        event_type=found["event_type"],
        url=found["url"],
        response=found["response"] if with_content else "",
        response_status_code=found["status"],
        response_duration_ms=found["duration"],
        status=status,
        status_text=status.name.lower(),
        trigger_type=Trigger(found["cause"]),
        timestamp=sure_at(found["at"]),
        number=found["number"],
        reason=found["reason"],
        phases=msgspec.json.decode(found["phases"]),
        next_attempt=at(found["next_due"]),
        msg=None if message is None else message.out(),
    )


def list_attempts(
    session: Session,
    app: Application,
    asked: PageRequest,
    which: AttemptFilter,
    *,
    endpoint: Endpoint | None = None,
    message: Message | None = None,
) -> Slice:
    """A page of the attempts at an endpoint, or of a message. Its rows are `AttemptOut`."""
    conditions: list[tuple[str, list[Any]]] = [("a.app_id = ?", [app.id])]
    if endpoint is not None:
        conditions.append(("a.endpoint_id = ?", [endpoint.id]))
    if message is not None:
        conditions.append(("a.message_id = ?", [message.id]))
    tables = "attempt a"
    if which.channel is not None or which.tag is not None:
        tables += " JOIN message m ON m.id = a.message_id"
    conditions += which.of_attempts()
    page = sliced(session, f"SELECT {_COLUMNS} FROM {tables}", "a.id", conditions, asked)  # noqa: S608
    messages: dict[str, Message] = {}
    if which.with_msg:
        ids = sorted({row[3] for row in page.rows})
        columns = ", ".join(MESSAGE.types)
        found = session.rows(f"SELECT {columns} FROM message WHERE id IN ??", ids)  # noqa: S608
        messages = {row[0]: message_of(row) for row in found}
    rows: list[Any] = [
        (attempt_of(row, messages.get(row[3]), with_content=which.with_content),) for row in page.rows
    ]
    return msgspec.structs.replace(page, rows=rows)


def find_attempt(session: Session, app: Application, message: Message, attempt_id: str) -> AttemptOut:
    """One attempt. Raises HooksError."""
    row = first(
        session.rows(
            f"SELECT {_COLUMNS} FROM attempt a WHERE a.app_id = ? AND a.message_id = ? AND a.id = ?",  # noqa: S608
            *(app.id, message.id, attempt_id),
        )
    )
    if row is None:
        raise not_found("attempt")
    return attempt_of(row, None)


def expunge_attempt(session: Session, app: Application, message: Message, attempt_id: str) -> None:
    """Delete what the endpoint answered. Raises HooksError."""
    find_attempt(session, app, message, attempt_id)
    session.run("UPDATE attempt SET response = ? WHERE id = ?", "", attempt_id)


def list_endpoint_messages(
    session: Session, endpoint: Endpoint, asked: PageRequest, which: AttemptFilter
) -> Slice:
    """A page of the messages that go to an endpoint. Its rows are `EndpointMessageOut`."""
    conditions: list[tuple[str, list[Any]]] = [("d.endpoint_id = ?", [endpoint.id])]
    if which.status is not None:
        conditions.append(("d.state = ?", [which.status]))
    conditions += which.conditions("m.", "d.message_id")
    columns = ", ".join(f"m.{name}" for name in MESSAGE.types)
    page = sliced(
        session,
        f"SELECT d.message_id, d.state, d.due, {columns} "  # noqa: S608
        "FROM delivery d JOIN message m ON m.id = d.message_id",
        "d.message_id",
        conditions,
        asked,
    )
    rows: list[Any] = []
    for _, state, due, *columns_ in page.rows:
        status = MessageStatus(state)
        out = EndpointMessageOut(
            **message_of(tuple(columns_)).fields(with_content=which.with_content),
            status=status,
            status_text=status.name.lower(),
            next_attempt=at(due) if state == PENDING else None,
        )
        rows.append((out,))
    return msgspec.structs.replace(page, rows=rows)


def list_message_endpoints(session: Session, context: Context, message: Message, asked: PageRequest) -> Slice:
    """A page of the endpoints that a message goes to. Its rows are `MessageEndpointOut`."""
    columns = ", ".join(f"e.{name}" for name in ENDPOINT_COLUMNS.split(", "))
    page = sliced(
        session,
        f"SELECT e.id, d.state, d.due, {columns} "  # noqa: S608
        "FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id",
        "e.id",
        [("d.message_id = ?", [message.id])],
        asked,
    )
    rows: list[Any] = []
    for _, state, due, *columns_ in page.rows:
        endpoint, status = endpoint_of(context, tuple(columns_)).out(context), MessageStatus(state)
        names = (name for name in MessageEndpointOut.__struct_fields__ if hasattr(endpoint, name))
        out = MessageEndpointOut(
            **{name: getattr(endpoint, name) for name in names},
            status=status,
            status_text=status.name.lower(),
            next_attempt=at(due) if state == PENDING else None,
        )
        rows.append((out,))
    return msgspec.structs.replace(page, rows=rows)


# ── sending again ───────────────────────────────────────────────────────────────


def notify_owner(session: Session, context: Context, endpoint_id: str) -> None:
    """The endpoint's owner looks at it again."""
    session.insert(READY, [(context.rng.getrandbits(62), shard_of(endpoint_id), endpoint_id)])


def resend(session: Session, context: Context, message: Message, endpoint: Endpoint) -> None:
    """Deliver a message again, whatever came of it before. Raises HooksError."""
    check_enabled(endpoint)
    if not message.payload:
        raise HooksError(400, "bad_request", "the payload of the message has been deleted")
    now = context.now()
    changed = session.run(
        "UPDATE delivery SET state = ?, due = ?, step = 0, cause = ?, version = version + 1 "
        "WHERE endpoint_id = ? AND message_id = ?",
        *(PENDING, now, int(Trigger.MANUAL), endpoint.id, message.id),
    )
    if not changed:
        row = (endpoint.id, message.id, PENDING, now, 0, 0, int(Trigger.MANUAL), 0)
        session.insert(DELIVERY, [row])
    notify_owner(session, context, endpoint.id)


def recover(session: Session, context: Context, endpoint: Endpoint, since: datetime, until: datetime) -> int:
    """Deliver again what has failed of messages of that time; return how many. Raises HooksError."""
    check_enabled(endpoint)
    now = context.now()
    count = session.run(
        "UPDATE delivery SET state = ?, due = ?, step = 0, cause = ?, version = version + 1 "
        "WHERE endpoint_id = ? AND state = ? AND message_id >= ? AND message_id < ?",
        *(PENDING, now, int(Trigger.MANUAL), endpoint.id, FAILED),
        *(id_at("msg", ms(since)), id_at("msg", ms(until) + 1)),
    )
    notify_owner(session, context, endpoint.id)
    return count


def replay_missing(
    session: Session, context: Context, endpoint: Endpoint, after: str, until: str
) -> tuple[int, str | None]:
    """Deliver what the endpoint never got of messages with ids in between; some of them at a time.

    Returns how many, and the id after which to go on, or None. Raises HooksError.
    """
    check_enabled(endpoint)
    rows = session.rows(
        "SELECT m.id, m.event_type, m.channels FROM message m WHERE m.app_id = ? AND m.id > ? AND m.id < ? "
        "AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.endpoint_id = ? AND d.message_id = m.id) "
        "AND length(m.payload) > 0 ORDER BY m.id LIMIT ?",
        *(endpoint.app_id, after, until, endpoint.id, _CHUNK),
    )
    now = context.now()
    missing = [
        (endpoint.id, message_id, PENDING, now, 0, 0, int(Trigger.MANUAL), 0)
        for message_id, event_type, channels in rows
        if endpoint.matches(event_type, None if channels is None else msgspec.json.decode(channels))
    ]
    session.insert(DELIVERY, missing, ignore_known=True)
    if missing:
        notify_owner(session, context, endpoint.id)
    return len(missing), rows[-1][0] if len(rows) == _CHUNK else None


def check_enabled(endpoint: Endpoint) -> None:
    """Refuse an endpoint that is disabled. Raises HooksError."""
    if endpoint.disabled:
        raise HooksError(400, "bad_request", "the endpoint is disabled: enable it first")
