"""Deletion of old data, a little at a time, so that deliveries do not wait for it."""

from yelpaze.hooks.context import Context
from yelpaze.hooks.ids import id_at
from yelpaze.hooks.log.idempotency import KEPT
from yelpaze.hooks.tables import CANCELED, PENDING
from yelpaze.store.session import Session

_CHUNK = 500
# What still waits to be delivered is never too old, whatever the clock says.
_OLD_MESSAGES = (
    "SELECT id FROM message WHERE id < ? AND NOT EXISTS "
    "(SELECT 1 FROM delivery d WHERE d.message_id = message.id AND d.state = 1) LIMIT ?"
)
_SPENT = "SELECT id FROM message WHERE discard_at IS NOT NULL AND discard_at <= ? LIMIT ?"


def delete_old(session: Session, context: Context) -> int:
    """Delete some of what is past its retention; return how many rows, 0 if nothing is left."""
    now = context.now()
    before = now - int(context.settings.retention * 1000)
    old = _ids(session, _OLD_MESSAGES, id_at("msg", before))
    count = 0
    if old:
        count += session.run("DELETE FROM delivery WHERE message_id IN ??", old)
        count += session.run("DELETE FROM message WHERE id IN ??", old)
    attempts = _ids(session, "SELECT id FROM attempt WHERE id < ? LIMIT ?", id_at("atmpt", before))
    if attempts:
        count += session.run("DELETE FROM attempt WHERE id IN ??", attempts)
    spent = _ids(session, _SPENT, now)
    if spent:
        session.run("UPDATE message SET payload = ?, discard_at = NULL WHERE id IN ??", b"", spent)
        session.run(
            "UPDATE delivery SET state = ? WHERE message_id IN ?? AND state = ?", CANCELED, spent, PENDING
        )
        count += len(spent)
    count += session.run("DELETE FROM idempotency WHERE created <= ?", now - KEPT)
    count += session.run("DELETE FROM secret WHERE expires IS NOT NULL AND expires <= ?", now)
    count += session.run("DELETE FROM token WHERE expires IS NOT NULL AND expires <= ?", now)
    return count


def _ids(session: Session, sql: str, before: str | int) -> list[str]:
    return [row[0] for row in session.rows(sql, before, _CHUNK)]
