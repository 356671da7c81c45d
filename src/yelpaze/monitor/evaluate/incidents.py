"""Transitions in the store: incidents, their history, and the outbox."""

from collections.abc import Sequence

import msgspec

from yelpaze.monitor.records import Transition
from yelpaze.monitor.tables import TRANSITION
from yelpaze.store.session import Session

_decode = msgspec.json.Decoder(Transition).decode
_AT_ONCE = 500
_OPEN = (
    "INSERT INTO incident (id, check_key, state, since, until, reason, message, acked, acked_by, comment, "
    "config) VALUES (?, ?, 'seems_down', ?, NULL, '', ?, NULL, '', '', ?) ON CONFLICT DO NOTHING"
)


def write_transitions(session: Session, transitions: Sequence[Transition]) -> None:
    """A unit of work: keep transitions and move their incidents; harmless if they are known."""
    rows = [
        (one.id, one.incident, one.n, one.kind, one.at, msgspec.json.encode(one).decode(), 0)
        for one in transitions
    ]
    session.insert(TRANSITION, rows, ignore_known=True)
    for one in transitions:
        if one.kind == "seems_down":
            session.run(_OPEN, one.incident, one.check, one.since, reason_of(one), one.config)
        elif one.kind == "down":
            session.run(
                "UPDATE incident SET state = 'down', message = ? WHERE id = ? AND until IS NULL",
                *(reason_of(one), one.incident),
            )
        elif one.kind == "resolved":
            session.run(
                "UPDATE incident SET state = 'resolved', until = ?, reason = ? "
                "WHERE id = ? AND until IS NULL",
                *(one.at, one.reason, one.incident),
            )


def reason_of(one: Transition) -> str:
    """What failed, for people."""
    return one.message or ", ".join(one.conditions)


def unpublished(session: Session, before: int) -> list[Transition]:
    """Transitions of slots before that time which were perhaps not published, oldest first."""
    rows = session.rows(
        "SELECT value FROM transition WHERE published = 0 AND at < ? ORDER BY at, n LIMIT ?",
        *(before, _AT_ONCE),
    )
    return [_decode(value) for (value,) in rows]


def mark_published(session: Session, ids: Sequence[str]) -> None:
    """A unit of work: these are on the bus."""
    session.run("UPDATE transition SET published = 1 WHERE id IN ??", list(ids))
