"""The checks of the configuration in the store, for pages and API."""

from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.tables import CHECK
from yelpaze.store.session import Session

_CONFLICT = (
    "(id) DO UPDATE SET place = excluded.place, name = excluded.name, grp = excluded.grp, "
    "kind = excluded.kind, url = excluded.url, interval = excluded.interval, config = excluded.config, "
    "removed = 0"
)


def write_checks(session: Session, config: MonitorConfig, now: int) -> None:
    """A unit of work: keep what the checks are called; those that are gone are marked."""
    rows = [
        (
            *(check.id, check.key, place, check.name, check.group, check.options.kind),
            "" if check.options.hide_url else check.url,
            *(int(check.options.interval * 1000), config.hash, 0),
        )
        for place, check in enumerate(config.checks.values())
    ]
    session.insert(CHECK, rows, conflict=_CONFLICT)
    session.run("UPDATE monitor_check SET removed = ? WHERE config <> ? AND removed = 0", now, config.hash)
