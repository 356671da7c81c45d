"""Sums of results: minutes from raw results, hours from minutes, days from hours.

`dirty` names the buckets that have changed. A bucket is made anew as a whole, so that it may be done twice.
"""

from yelpaze.monitor.config.settings import RetentionSettings
from yelpaze.monitor.tables import BUCKETS, DAY_MS, DIRTY, EDGES, HOUR, LEVELS, MINUTE
from yelpaze.store.session import Session

_SETTLED_MS = 15_000  # after its end; later results make it dirty again
_EVERY = {"h": 5 * MINUTE, "d": HOUR}  # while a bucket goes on, it is made anew so often
_AT_ONCE = 10
_BELOW = {"h": ("m", HOUR), "d": ("h", DAY_MS)}
_ABOVE = {"m": ("h", HOUR), "h": ("d", DAY_MS)}
_COLUMNS = ", ".join(BUCKETS)
_COUNTED = ", ".join(
    f"sum(CASE WHEN success = 1 AND duration >= {low} AND duration < {high} THEN 1 ELSE 0 END)"
    for low, high in zip(
        (0, *(edge * 1000 for edge in EDGES)), (*(edge * 1000 for edge in EDGES), 1 << 62), strict=True
    )
)
_ADDED = ", ".join(f"sum({name})" for name in BUCKETS)


def roll_up(session: Session, now: int, *, early: bool = False, everything: bool = False) -> bool:
    """Make some buckets anew; true if there are more. `early`: the current minute, too, as far as it is."""
    is_more = False
    for level, size in LEVELS.items():
        due = now if everything or early else now - size - _SETTLED_MS
        rows = session.rows(
            "SELECT bucket FROM dirty WHERE level = ? AND bucket <= ? ORDER BY bucket LIMIT ?",
            *(level, due if level == "m" or everything else now, _AT_ONCE),
        )
        for (bucket,) in rows:
            if level != "m" and not everything and not _is_due(session, level, bucket, now):
                continue
            _make(session, level, bucket)
            if level in _ABOVE:
                above, above_size = _ABOVE[level]
                session.insert(DIRTY, [(above, bucket - bucket % above_size)], ignore_known=True)
            session.run("DELETE FROM dirty WHERE level = ? AND bucket = ?", level, bucket)
            is_more = True
    return is_more


def _is_due(session: Session, level: str, bucket: int, now: int) -> bool:
    below, _ = _BELOW[level]
    if now >= bucket + LEVELS[level] + 2 * _SETTLED_MS:
        waiting = session.rows(
            "SELECT 1 FROM dirty WHERE level = ? AND bucket >= ? AND bucket < ? LIMIT 1",
            *(below, bucket, bucket + LEVELS[level]),
        )
        return not waiting
    return now % _EVERY[level] < _SETTLED_MS


def _make(session: Session, level: str, bucket: int) -> None:
    end = bucket + LEVELS[level]
    session.run("DELETE FROM rollup WHERE level = ? AND bucket = ?", level, bucket)
    head = f"INSERT INTO rollup (level, check_id, location, bucket, good, bad, total, {_COLUMNS})"
    if level == "m":
        day = bucket // DAY_MS
        if not session.rows("SELECT 1 FROM result_day WHERE day = ?", day):
            return  # dropped meanwhile
        session.run(
            f"{head} SELECT 'm', check_id, location, {bucket}, sum(success), sum(1 - success), "  # noqa: S608
            f"sum(CASE WHEN success = 1 THEN duration ELSE 0 END), {_COUNTED} FROM result_{day} "
            "WHERE slot >= ? AND slot < ? AND final = 1 GROUP BY check_id, location",
            *(bucket, end),
        )
        return
    below, _ = _BELOW[level]
    session.run(
        f"{head} SELECT '{level}', check_id, location, {bucket}, sum(good), sum(bad), sum(total), {_ADDED} "  # noqa: S608
        "FROM rollup WHERE level = ? AND bucket >= ? AND bucket < ? GROUP BY check_id, location",
        *(below, bucket, end),
    )


def drop_old(session: Session, retention: RetentionSettings, now: int) -> None:
    """Drop what is older than its retention."""
    kept = (now - int(retention.results * 1000)) // DAY_MS
    for (day,) in session.rows("SELECT day FROM result_day WHERE day < ?", kept):
        session.run(f"DROP TABLE IF EXISTS result_{day}")
        session.run("DELETE FROM result_day WHERE day = ?", day)
    for level, seconds in (("m", retention.minutes), ("h", retention.hours), ("d", retention.days)):
        session.run("DELETE FROM rollup WHERE level = ? AND bucket < ?", level, now - int(seconds * 1000))
