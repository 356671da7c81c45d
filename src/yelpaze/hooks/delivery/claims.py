"""What the dispatcher reads: which endpoints have something due, their settings, and their deliveries."""

from collections.abc import Sequence

import msgspec

from yelpaze.hooks.context import Context
from yelpaze.hooks.delivery.queue import Task
from yelpaze.hooks.kinds.protocol import Secret
from yelpaze.hooks.log.endpoints import COLUMNS, Endpoint, endpoint_of, secrets_of
from yelpaze.hooks.tables import PENDING
from yelpaze.store.session import Row, Session, first

_MOST_NOTES = 1000


class Claim(msgspec.Struct, frozen=True):
    """How many deliveries of an endpoint are wanted at most."""

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


def notes_for(session: Session, shards: Sequence[int]) -> list[Row]:
    """What other processes have left: number, shard and endpoint."""
    return session.rows(
        "SELECT id, shard, endpoint_id FROM ready WHERE shard IN ?? LIMIT ?", list(shards), _MOST_NOTES
    )


def forget_notes(session: Session, numbers: Sequence[int]) -> None:
    """They have been heard."""
    session.run("DELETE FROM ready WHERE id IN ??", list(numbers))


def loaded_endpoints(
    session: Session, context: Context, ids: Sequence[str]
) -> dict[str, tuple[Endpoint, tuple[Secret, ...], int | None]]:
    """Endpoints with secrets and the rate of their application; those that were deleted are not there."""
    rows = session.rows(f"SELECT {COLUMNS} FROM endpoint WHERE id IN ??", list(ids))  # noqa: S608
    secrets = secrets_of(session, context, ids)
    found = [endpoint_of(context, row) for row in rows]
    apps = sorted({endpoint.app_id for endpoint in found})
    rates: dict[str, int | None] = dict(session.rows("SELECT id, rate FROM application WHERE id IN ??", apps))
    return {
        endpoint.id: (endpoint, secrets.get(endpoint.id, ()), rates.get(endpoint.app_id))
        for endpoint in found
    }


def claim_due(
    session: Session, claims: Sequence[Claim], now: int
) -> list[tuple[str, list[Task], int | None]]:
    """What is due of each endpoint, the oldest first; and when there is more, in milliseconds, or None."""
    return [(claim.endpoint_id, *_claim(session, claim, now)) for claim in claims]


def _claim(session: Session, claim: Claim, now: int) -> tuple[list[Task], int | None]:
    rows = session.rows(
        "SELECT m.id, m.app_id, m.event_type, m.payload, m.created, d.due, d.attempts, d.step, d.cause, "
        "m.order_key, m.expires, m.schedule FROM delivery d JOIN message m ON m.id = d.message_id "
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
