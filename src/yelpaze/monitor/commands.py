"""What operators ask for, in the store. Each command happens once, by its id."""

import msgspec

from yelpaze.monitor.records import Command
from yelpaze.monitor.tables import SILENCE
from yelpaze.store.session import Session


def apply(session: Session, command: Command) -> None:
    """A unit of work: do what a command asks for; harmless if it is done."""
    match command.kind:
        case "ack":
            session.run(
                "UPDATE incident SET acked = ?, acked_by = ?, comment = ? WHERE id = ?",
                *(command.at, command.by, command.comment, command.incident),
            )
        case "unack":
            session.run(
                "UPDATE incident SET acked = NULL, acked_by = '', comment = '' WHERE id = ?", command.incident
            )
        case "silence" | "maintenance":
            matchers = msgspec.json.encode(command.matchers).decode()
            since = command.since or command.at
            row = (command.id, command.kind, matchers, since, command.until, command.by, command.comment)
            session.insert(SILENCE, [row], ignore_known=True)
        case _:
            session.run(
                "UPDATE silence SET until = ? WHERE id = ? AND until > ?",
                *(command.at, command.target, command.at),
            )
