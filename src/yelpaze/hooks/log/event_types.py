"""Event types: a catalogue for people and pages; messages of other types are taken, too."""

from typing import Any

import msgspec

from yelpaze.hooks.context import Access, Context, sure_at
from yelpaze.hooks.errors import conflict, not_found
from yelpaze.hooks.log.endpoints import check_event_type
from yelpaze.hooks.log.paging import PageRequest, Slice, sliced
from yelpaze.hooks.values import EventTypeIn, EventTypeOut, EventTypePatch, EventTypeUpdate
from yelpaze.store.session import Row, Session, first

_COLUMNS = "name, content, created, updated"


def event_type_of(row: Row) -> EventTypeOut:
    """The struct of a row."""
    name, content, created, updated = row
    given = msgspec.json.decode(content, type=EventTypeUpdate)
    return EventTypeOut(
        name=name, **msgspec.structs.asdict(given), created_at=sure_at(created), updated_at=sure_at(updated)
    )


def list_event_types(session: Session, asked: PageRequest, *, with_archived: bool) -> Slice:
    """A page of all types."""
    conditions: list[tuple[str, list[Any]]] = [] if with_archived else [("archived = 0", [])]
    return sliced(session, f"SELECT {_COLUMNS} FROM event_type", "name", conditions, asked)  # noqa: S608


def find_event_type(session: Session, name: str) -> EventTypeOut:
    """A type by name. Raises HooksError."""
    row = first(session.rows(f"SELECT {_COLUMNS} FROM event_type WHERE name = ?", name))  # noqa: S608
    if row is None:
        raise not_found("event type")
    return event_type_of(row)


def create_event_type(session: Session, context: Context, access: Access, given: EventTypeIn) -> EventTypeOut:
    """A new type; one that is archived is taken up again. Raises HooksError."""
    access.require_all()
    check_event_type(given.name, "name")
    if session.rows("SELECT name FROM event_type WHERE name = ? AND archived = 0", given.name):
        raise conflict(f"there is an event type {given.name!r}")
    fields = {name: getattr(given, name) for name in EventTypeUpdate.__struct_fields__}
    return put_event_type(session, context, access, given.name, EventTypeUpdate(**fields))


def put_event_type(
    session: Session, context: Context, access: Access, name: str, given: EventTypeUpdate
) -> EventTypeOut:
    """Make it so, whether it is there or not. Raises HooksError."""
    access.require_all()
    check_event_type(name, "name")
    now = context.now()
    session.run(
        "INSERT INTO event_type (name, content, archived, created, updated) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET content = excluded.content, archived = excluded.archived, "
        "updated = excluded.updated",
        *(name, msgspec.json.encode(given).decode(), int(given.archived), now, now),
    )
    return find_event_type(session, name)


def patch_event_type(
    session: Session, context: Context, access: Access, name: str, patch: EventTypePatch
) -> EventTypeOut:
    """Change what the patch has. Raises HooksError."""
    access.require_all()
    old = find_event_type(session, name)
    fields = {
        field: getattr(patch, field) if getattr(patch, field) is not msgspec.UNSET else getattr(old, field)
        for field in EventTypeUpdate.__struct_fields__
    }
    return put_event_type(session, context, access, name, EventTypeUpdate(**fields))


def delete_event_type(
    session: Session, context: Context, access: Access, name: str, *, expunge: bool
) -> None:
    """Archive it, or with `expunge` delete it. Raises HooksError."""
    access.require_all()
    old = find_event_type(session, name)
    if expunge:
        session.run("DELETE FROM event_type WHERE name = ?", name)
        return
    fields = {field: getattr(old, field) for field in EventTypeUpdate.__struct_fields__}
    put_event_type(session, context, access, name, EventTypeUpdate(**{**fields, "archived": True}))
