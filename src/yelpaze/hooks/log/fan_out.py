"""Fan-out: the endpoints of each application, cached until one of them changes."""

import msgspec

from yelpaze.hooks.log.endpoints import matches
from yelpaze.store.session import Session

_MOST = 50_000  # applications


class Target(msgspec.Struct, frozen=True, gc=False):
    """An endpoint as fan-out needs it."""

    id: str
    shard: int
    event_types: frozenset[str] | None
    channels: frozenset[str] | None


class FanOut:
    """The enabled endpoints of applications. It is used within the writer's transactions only.

    An application's version is a random number that changes with its endpoints, so what was read in a
    transaction that was rolled back is never taken for true.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, list[Target]]] = {}

    def of(
        self, session: Session, app_id: str, version: int, event_type: str, channels: tuple[str, ...] | None
    ) -> list[Target]:
        """The endpoints that a message goes to."""
        known = self._known.get(app_id)
        if known is None or known[0] != version:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[app_id] = (version, _targets(session, app_id))
        return [
            target
            for target in known[1]
            if matches(target.event_types, target.channels, event_type, channels)
        ]


def _targets(session: Session, app_id: str) -> list[Target]:
    rows = session.rows(
        "SELECT id, shard, event_types, channels FROM endpoint WHERE app_id = ? AND disabled = 0", app_id
    )
    return [Target(id, shard, _set(types), _set(channels)) for id, shard, types, channels in rows]  # noqa: A001


def _set(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(msgspec.json.decode(text))
