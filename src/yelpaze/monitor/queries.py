"""What pages and API read: checks with their state, results, incidents, uptime and latency by period."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from yelpaze.monitor.check import id_of
from yelpaze.monitor.records import Transition
from yelpaze.monitor.storage.service import Detail
from yelpaze.monitor.tables import BUCKETS, DAY_MS, EDGES, HOUR
from yelpaze.store.session import Row, Session, first

CheckStatus = Literal["up", "seems_down", "down", "unknown"]
PERIODS = {"1h": HOUR, "24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS, "90d": 90 * DAY_MS}
_SUMMED = ", ".join(f"sum({name})" for name in BUCKETS)
_decode_detail = msgspec.json.Decoder(Detail).decode
_decode_transition = msgspec.json.Decoder(Transition).decode
_MOST_AT_ONCE = 1000
_SPECIAL = re.compile("[%_!]")  # in LIKE


class CheckRow(msgspec.Struct, frozen=True):
    """A check, its state, and what each location saw last."""

    id: int
    key: str
    name: str
    group: str
    kind: str
    url: str
    interval: int
    status: CheckStatus
    last: tuple["LastResult", ...] = ()


class LastResult(msgspec.Struct, frozen=True):
    """The last result at a location; `duration` in milliseconds."""

    location: str
    slot: int
    success: bool
    status: int
    duration: float
    detail: Detail


class ResultRow(msgspec.Struct, frozen=True):
    """A result that is kept."""

    location: str
    slot: int
    attempt: int
    final: bool
    success: bool
    status: int
    duration: float
    detail: Detail


class Sums(msgspec.Struct, frozen=True):
    """Counts over a period. `total` is the time of the good ones in milliseconds."""

    good: int = 0
    bad: int = 0
    total: float = 0.0
    histogram: tuple[int, ...] = ()

    @property
    def uptime(self) -> float | None:
        """The share of good results; None if there are none."""
        count = self.good + self.bad
        return self.good / count if count else None

    @property
    def average(self) -> float | None:
        """Milliseconds of a good result, on average."""
        return self.total / self.good if self.good else None

    def quantile(self, share: float) -> float | None:
        """Milliseconds that `share` of the good results did not exceed, to within a histogram class."""
        if not self.good:
            return None
        left = share * self.good
        for count, edge in zip(self.histogram, (*EDGES, EDGES[-1]), strict=True):
            left -= count
            if left <= 0:
                return float(edge)
        return float(EDGES[-1])


class IncidentRow(msgspec.Struct, frozen=True):
    """An incident; `until` is None while it is open. Times are milliseconds since 1970."""

    id: str
    check_key: str
    state: str
    since: int
    until: int | None
    reason: str
    message: str
    acked: int | None
    acked_by: str
    comment: str


_CHECK = "SELECT id, key, name, grp, kind, url, interval FROM monitor_check"
_INCIDENT = (
    "SELECT id, check_key, state, since, until, reason, message, acked, acked_by, comment FROM incident"
)


def list_checks(
    session: Session, *, limit: int = _MOST_AT_ONCE, offset: int = 0, text: str = "", stale_before: int = 0
) -> tuple[list[CheckRow], int]:
    """Checks in the order of the configuration, and how many there are in all."""
    where, parameters = "removed = 0", []
    if text:
        where += " AND lower(name || ' ' || grp || ' ' || key) LIKE ? ESCAPE '!'"
        literal = _SPECIAL.sub(r"!\g<0>", text.lower()).replace("\0", "\ufffd")
        parameters.append(f"%{literal}%")
    [(count,)] = session.rows(f"SELECT count(*) FROM monitor_check WHERE {where}", *parameters)  # noqa: S608
    rows = session.rows(f"{_CHECK} WHERE {where} ORDER BY place LIMIT ? OFFSET ?", *parameters, limit, offset)
    return _with_status(session, rows, stale_before), count


def find_check(session: Session, key: str, stale_before: int = 0) -> CheckRow | None:
    """A check by its key."""
    rows = session.rows(f"{_CHECK} WHERE key = ? AND removed = 0", key)
    return first(_with_status(session, rows, stale_before))  # type: ignore[arg-type, return-value]


def _with_status(session: Session, rows: Sequence[Row], stale_before: int) -> list[CheckRow]:
    ids = [row[0] for row in rows]
    keys = [row[1] for row in rows]
    states: dict[str, Any] = dict(
        session.rows("SELECT check_key, state FROM incident WHERE until IS NULL AND check_key IN ??", keys)
    )
    last: dict[int, list[LastResult]] = {}
    for check_id, *rest in session.rows(
        "SELECT check_id, location, slot, success, status, duration, detail FROM last_result "
        "WHERE check_id IN ?? ORDER BY location",
        ids,
    ):
        location, slot, success, status, duration, detail = rest
        one = LastResult(location, slot, bool(success), status, duration / 1000, _detail(detail))
        last.setdefault(check_id, []).append(one)
    found = []
    for row in rows:
        seen = tuple(last.get(row[0], ()))
        status_of: CheckStatus = states.get(row[1]) or ("up" if seen else "unknown")
        if status_of == "up" and row[6] and all(one.slot < stale_before - 3 * row[6] for one in seen):
            status_of = "unknown"
        check_id, key, name, group, kind, url, interval = row
        found.append(CheckRow(check_id, key, name, group, kind, url, interval, status_of, seen))
    return found


def _detail(text: str) -> Detail:
    return _decode_detail(text) if text else Detail()


def list_results(
    session: Session, key: str, *, before: int, limit: int, tries: bool = True
) -> list[ResultRow]:
    """The last results of a check before a time, newest first; `tries`: those that were repeated, too."""
    final = "" if tries else " AND final = 1"
    check_id = id_of(key)
    found: list[ResultRow] = []
    days = [day for (day,) in session.rows("SELECT day FROM result_day ORDER BY day DESC")]
    for day in days:
        if day * DAY_MS > before or len(found) >= limit:
            continue
        rows = session.rows(
            f"SELECT location, slot, attempt, final, success, status, duration, detail FROM result_{day} "  # noqa: S608
            f"WHERE check_id = ? AND slot < ?{final} ORDER BY slot DESC, location, attempt DESC LIMIT ?",
            *(check_id, before, limit - len(found)),
        )
        found += [_result(row) for row in rows]
    return found


def _result(row: Row) -> ResultRow:
    location, slot, attempt, final, success, status, duration, detail = row
    return ResultRow(
        *(location, slot, attempt, bool(final), bool(success), status), duration / 1000, _detail(detail)
    )


# ── sums ────────────────────────────────────────────────────────────────────────


def sums_of(session: Session, ids: Sequence[int], since: int, now: int) -> dict[int, Sums]:
    """Counts of checks over a period: whole days, the hours of today, the minutes of this hour."""
    today, hour = now - now % DAY_MS, now - now % HOUR
    found: dict[int, Sums] = {}
    spans = []
    if since < today:
        spans.append(("d", since - since % DAY_MS if now - since > 3 * DAY_MS else today, today))
        if now - since <= 3 * DAY_MS:
            spans[0] = ("h", since - since % HOUR, today)
    spans += [("h", max(since - since % HOUR, today), hour), ("m", max(since, hour), now + 1)]
    for level, begin, end in spans:
        if begin >= end:
            continue
        rows = session.rows(
            f"SELECT check_id, sum(good), sum(bad), sum(total), {_SUMMED} FROM rollup "  # noqa: S608
            "WHERE level = ? AND check_id IN ?? AND bucket >= ? AND bucket < ? GROUP BY check_id",
            *(level, list(ids), begin, end),
        )
        for check_id, *counts in rows:
            found[check_id] = _added(found.get(check_id), counts)
    return found


def _added(old: Sums | None, counts: Sequence[int]) -> Sums:
    good, bad, total, *histogram = (int(one) for one in counts)
    if old is None:
        return Sums(good, bad, total / 1000, tuple(histogram))
    both = tuple(one + other for one, other in zip(old.histogram, histogram, strict=True))
    return Sums(old.good + good, old.bad + bad, old.total + total / 1000, both)


class Bucket(msgspec.Struct, frozen=True):
    """A day or an hour of a check: counts, and milliseconds of the good results in all."""

    at: int
    good: int
    bad: int
    total: float


def buckets_of(
    session: Session, ids: Iterable[int], level: Literal["m", "h", "d"], since: int
) -> dict[int, list[Bucket]]:
    """The buckets of checks since a time, oldest first."""
    found: dict[int, list[Bucket]] = {}
    for check_id, at, good, bad, total in session.rows(
        "SELECT check_id, bucket, sum(good), sum(bad), sum(total) FROM rollup WHERE level = ? "
        "AND check_id IN ?? AND bucket >= ? GROUP BY check_id, bucket ORDER BY bucket",
        *(level, list(ids), since),
    ):
        found.setdefault(check_id, []).append(Bucket(at, int(good), int(bad), int(total) / 1000))
    return found


# ── incidents ───────────────────────────────────────────────────────────────────


def list_incidents(
    session: Session,
    *,
    is_open: bool | None = None,
    key: str | None = None,
    before: int = 1 << 62,
    limit: int = 50,
    confirmed: bool = False,
) -> list[IncidentRow]:
    """Incidents that began before a time, newest first. `confirmed` leaves out false alarms."""
    where, parameters = ["since < ?"], [before]
    if is_open is not None:
        where.append("until IS NULL" if is_open else "until IS NOT NULL")
    if confirmed:
        where.append("(state = 'down' OR (state = 'resolved' AND reason <> 'false_alarm'))")
    if key is not None:
        where.append("check_key = ?")
        parameters.append(key)  # type: ignore[arg-type]
    rows = session.rows(
        f"{_INCIDENT} WHERE {' AND '.join(where)} ORDER BY since DESC, id LIMIT ?", *parameters, limit
    )
    return [IncidentRow(*row) for row in rows]


def find_incident(session: Session, incident: str) -> IncidentRow | None:
    """An incident by its id."""
    row = first(session.rows(f"{_INCIDENT} WHERE id = ?", incident))
    return None if row is None else IncidentRow(*row)


def transitions_of(session: Session, incidents: Sequence[str]) -> dict[str, list[Transition]]:
    """The timelines of incidents, oldest first."""
    found: dict[str, list[Transition]] = {}
    for (value,) in session.rows(
        "SELECT value FROM transition WHERE incident IN ?? ORDER BY incident, n", list(incidents)
    ):
        one = _decode_transition(value)
        found.setdefault(one.incident, []).append(one)
    return found


class LocationRow(msgspec.Struct, frozen=True):
    """A probe of a location, as it was last heard of; `skew` and `late` in milliseconds."""

    name: str
    probe: str
    seen: int
    blind: bool
    skew: int
    late: int
    checks: int


def list_locations(session: Session) -> list[LocationRow]:
    """All probes that were ever heard of."""
    rows = session.rows(
        "SELECT name, probe, seen, blind, skew, late, checks FROM location ORDER BY name, seen DESC"
    )
    return [LocationRow(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]
