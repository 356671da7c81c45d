"""Test events: a payload that an event type's schema gives as an example, or a plain one."""

from typing import Any

import msgspec

from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.log.endpoints import check_event_type
from yelpaze.hooks.log.event_types import find_event_type
from yelpaze.hooks.values import ExampleIn, MessageIn
from yelpaze.store.session import Session


def example_of(session: Session, given: ExampleIn) -> MessageIn:
    """A test event as it is asked for. Raises HooksError."""
    check_event_type(given.event_type)
    payload = given.payload
    if payload is None:
        payload = msgspec.Raw(msgspec.json.encode(_example(session, given)))
    return MessageIn(event_type=given.event_type, payload=payload)


def _example(session: Session, given: ExampleIn) -> Any:
    try:
        schemas = find_event_type(session, given.event_type).schemas
    except HooksError:  # types need not be in the catalogue
        schemas = None
    found = [
        one for schema in (schemas or {}).values() if isinstance(schema, dict) for one in _examples(schema)
    ]
    index = given.example_index or 0
    if 0 <= index < len(found) and isinstance(found[index], dict):
        return found[index]
    return {"type": given.event_type, "data": {"test": True}}


def _examples(schema: dict[str, Any]) -> list[Any]:
    found = schema.get("examples")
    if isinstance(found, list):
        return found
    return [schema["example"]] if "example" in schema else []
