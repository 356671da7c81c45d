"""Reads of the dispatcher: endpoints that have something due, their settings, their deliveries."""

from collections.abc import Sequence

import msgspec

from yelpaze.hooks.context import Context
from yelpaze.hooks.delivery.queue import Task
from yelpaze.hooks.kinds.protocol import Secret
from yelpaze.hooks.log.endpoints import COLUMNS, Endpoint, endpoint_of, secrets_of
from yelpaze.hooks.tables import PENDING
from yelpaze.model.errors import YelpazeError
from yelpaze.store.leases import Leases
from yelpaze.store.session import Row, Session, first

_MOST_NOTES = 1000


class Claim(msgspec.Struct, frozen=True):
    """A request for at most so many deliveries of an endpoint."""

    endpoint_id: str
    most: int


def work_of_shards(session: Session, shards: Sequence[int]) -> list[Row]:
    """The endpoints of these shards that have something to do: id, shard, and when it is due."""
    rows = session.rows(
        "SELECT e.id, e.shard, "
        "(SELECT min(d.due) FROM delivery d WHERE d.endpoint_id = e.id AND d.state = 1) "
        "FROM endpoint e WHERE e.shard IN ??",
        list(shards),
    )
    return [row for row in rows if row[2] is not None]


def has_notes(session: Session, shards: Sequence[int]) -> bool:
    """Whether other processes have left notes on endpoints of these shards."""
    return bool(session.rows("SELECT id FROM ready WHERE shard IN ?? LIMIT 1", list(shards)))


def take_notes(session: Session, leases: Leases, epochs: dict[int, int]) -> set[tuple[str, int]]:
    """Take the notes for shards that are still ours: endpoints and their shards."""
    held = sorted(leases.held(session, epochs))
    rows = session.rows(
        "SELECT id, endpoint_id, shard FROM ready WHERE shard IN ?? LIMIT ?", held, _MOST_NOTES
    )
    session.run("DELETE FROM ready WHERE id IN ??", [row[0] for row in rows])
    return {(endpoint_id, shard) for _, endpoint_id, shard in rows}


def shift_due(session: Session, shards: Sequence[int], milliseconds: int) -> None:
    """Move all that is pending in these shards in time."""
    session.run(
        "UPDATE delivery SET due = due + ? WHERE state = ? AND endpoint_id IN "
        "(SELECT id FROM endpoint WHERE shard IN ??)",
        *(milliseconds, PENDING, list(shards)),
    )


class Loaded(msgspec.Struct, frozen=True):
    """An endpoint as it was read, with its secrets and its application's rate; or why it cannot be used."""

    endpoint: Endpoint | None = None
    secrets: tuple[Secret, ...] = ()
    app_rate: int | None = None
    error: Exception | None = None


def loaded_endpoints(session: Session, context: Context, ids: Sequence[str]) -> dict[str, Loaded]:
    """Endpoints by id; those that were deleted are not there."""
    rows = session.rows(f"SELECT {COLUMNS} FROM endpoint WHERE id IN ??", list(ids))  # noqa: S608
    apps = sorted({row[1] for row in rows})
    rates: dict[str, int | None] = dict(session.rows("SELECT id, rate FROM application WHERE id IN ??", apps))
    found: dict[str, Loaded] = {}
    for row in rows:
        try:
            endpoint = endpoint_of(context, row)
            secrets = secrets_of(session, context, [endpoint.id]).get(endpoint.id, ())
            found[endpoint.id] = Loaded(endpoint, secrets, rates.get(endpoint.app_id))
        except (YelpazeError, msgspec.MsgspecError) as error:  # it alone cannot be read
            found[row[0]] = Loaded(error=error)
    return found


def claim_due(
    session: Session, claims: Sequence[Claim], now: int
) -> list[tuple[str, list[Task], int | None]]:
    """Return the due deliveries of each endpoint, oldest first, and the time of the next one or None."""
    return [(claim.endpoint_id, *_claim(session, claim, now)) for claim in claims]


def _claim(session: Session, claim: Claim, now: int) -> tuple[list[Task], int | None]:
    rows = session.rows(
        "SELECT m.id, m.app_id, m.event_type, m.payload, m.created, d.due, d.attempts, d.step, d.cause, "
        "m.order_key, m.expires, m.schedule, d.version FROM delivery d JOIN message m ON m.id = d.message_id "
        "WHERE d.endpoint_id = ? AND d.state = 1 AND d.due <= ? ORDER BY d.due, d.message_id LIMIT ?",
        *(claim.endpoint_id, now, claim.most),
    )
    if len(rows) >= claim.most:
        return [Task(*row) for row in rows], now
    later = first(
        session.rows(
            "SELECT min(due) FROM delivery WHERE endpoint_id = ? AND state = ? AND due > ?",
            *(claim.endpoint_id, PENDING, now),
        )
    )
    return [Task(*row) for row in rows], None if later is None else later[0]
