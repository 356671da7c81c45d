"""Messages in the sender's own database transaction: the transactional outbox, relayed afterwards.

    BEGIN; the sender's own changes; enqueue(connection, …); COMMIT      either all of it happens, or nothing
    yelpaze hooks relay DATABASE --store STORE                           the message leaves the outbox

(microservices.io/patterns/data/transactional-outbox.html.) A row's id is the message's eventId, so that a row
that is relayed twice is one message.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from yelpaze.hooks.values import MessageIn
from yelpaze.model.errors import MisuseError

_TABLE = (
    "CREATE TABLE IF NOT EXISTS yelpaze_outbox (id VARCHAR(64) PRIMARY KEY, app VARCHAR(256) NOT NULL, "
    "message TEXT NOT NULL, created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
)
_INSERT = "INSERT INTO yelpaze_outbox (id, app, message) VALUES (?, ?, ?)"


def create_outbox(connection: Any) -> None:
    """Make the table `yelpaze_outbox`, unless it is there. `connection`: psycopg's or sqlite3's."""
    connection.execute(_TABLE)


def enqueue(
    connection: Any,
    app: str,
    event_type: str,
    payload: Mapping[str, Any],
    *,
    event_id: str | None = None,
    channels: Iterable[str] | None = None,
    tags: Iterable[str] | None = None,
    order_key: str | None = None,
    expires_at: datetime | None = None,
    schedule: str | None = None,
) -> str:
    """Put a message into the outbox, within the transaction that `connection` is in.

    Args:
        connection: A connection of psycopg or sqlite3 (PEP 249 with `execute`).
        app: Id or uid of the application.
        event_type: For example `order.completed`.
        payload: A JSON object.
        event_id: An id of the sender's own; by default a new one.
        channels: Channels that endpoints filter by.
        tags: For finding it again.
        order_key: A later message with this key takes the place of an undelivered earlier one.
        expires_at: It is not attempted later.
        schedule: "alarm" for that of alarms.

    Returns the message's eventId. Raises MisuseError for what is no message, and what the driver raises.

    >>> import sqlite3
    >>> connection = sqlite3.connect(":memory:")
    >>> create_outbox(connection)
    >>> with connection:
    ...     enqueue(connection, "acme", "order.completed", {"id": 7}, event_id="order-7")
    'order-7'

    """
    new_id = f"out-{uuid.uuid4()}" if event_id is None else event_id
    message = {
        "eventId": new_id,
        "eventType": event_type,
        "payload": payload,
        "channels": None if channels is None else list(channels),
        "tags": None if tags is None else list(tags),
        "orderKey": order_key,
        "expiresAt": None if expires_at is None else expires_at.isoformat(),
        "schedule": schedule,
    }
    try:
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
        msgspec.json.decode(text, type=MessageIn)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise MisuseError(f"no message: {error}") from None
    sql = _INSERT if isinstance(connection, sqlite3.Connection) else _INSERT.replace("?", "%s")
    connection.execute(sql, (new_id, app, text))
    return new_id
