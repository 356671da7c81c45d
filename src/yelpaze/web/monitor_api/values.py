"""Bodies and answers of the monitor's API. Names are camel case, times RFC 3339."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from yelpaze.monitor.queries import CheckRow, IncidentRow, LastResult, LocationRow, ResultRow, Sums
from yelpaze.monitor.records import Transition
from yelpaze.monitor.silences import Silence


class _Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class AckIn(_Value, frozen=True):
    """Who has seen an incident, and what they say of it."""

    by: str = ""
    comment: str = ""


class SilenceIn(_Value, frozen=True):
    """Which checks, and until when: `until`, or `minutes` from now.

    `matchers` map `key`, `group`, `name` or a label to a value; `*` at its end is any rest.
    """

    matchers: dict[str, str]
    until: datetime | None = None
    minutes: float | None = None
    since: datetime | None = None
    by: str = ""
    comment: str = ""


class EndpointOut(_Value, frozen=True):
    """A check and its state: up, seems_down, down or unknown."""

    key: str
    name: str
    group: str
    kind: str
    url: str
    interval: float
    status: str
    locations: list[dict[str, Any]]


class IncidentOut(_Value, frozen=True):
    """An incident; `until` is null while it is open."""

    id: str
    endpoint: str
    state: str
    since: datetime
    until: datetime | None
    reason: str
    message: str
    acknowledged_at: datetime | None
    acknowledged_by: str
    comment: str
    timeline: list[dict[str, Any]] | None = None


class SilenceOut(_Value, frozen=True):
    """A silence, or a maintenance."""

    id: str
    kind: str
    matchers: dict[str, str]
    since: datetime
    until: datetime
    by: str
    comment: str


class CommandOut(_Value, frozen=True):
    """A command that was taken; it is carried out in a moment."""

    id: str


class PeriodOut(_Value, frozen=True):
    """Uptime (0 to 1) and latency in milliseconds over a period; null without results."""

    period: str
    good: int
    bad: int
    uptime: float | None
    average: float | None
    p50: float | None
    p95: float | None


def at(milliseconds: int) -> datetime:
    """A point in time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def endpoint_out(row: CheckRow, *, show_url: bool) -> EndpointOut:
    """A check for callers."""
    return EndpointOut(
        key=row.key,
        name=row.name,
        group=row.group,
        kind=row.kind,
        url=row.url if show_url else "",
        interval=row.interval / 1000,
        status=row.status,
        locations=[last_out(one) for one in row.last],
    )


def last_out(one: LastResult | ResultRow) -> dict[str, Any]:
    """A result for callers; what is empty is left out."""
    detail = one.detail
    found: dict[str, Any] = {
        "location": one.location,
        "timestamp": at(one.slot),
        "success": one.success,
        "status": one.status,
        "duration": one.duration,
        "error": detail.error,
        "message": detail.message,
        "conditions": list(detail.conditions),
        "timings": None
        if detail.timings is None
        else dict(zip(("dns", "connect", "tls", "firstByte"), detail.timings, strict=True)),
        "certificateExpires": None if detail.certificate is None else at(detail.certificate),
        "blind": detail.blind,
    }
    return {name: value for name, value in found.items() if name == "success" or _is_there(value)}


def _is_there(value: object) -> bool:
    return value is not None and value is not False and value not in ("", [])


def incident_out(row: IncidentRow, timeline: list[Transition] | None = None) -> IncidentOut:
    """An incident for callers."""
    return IncidentOut(
        id=row.id,
        endpoint=row.check_key,
        state=row.state,
        since=at(row.since),
        until=None if row.until is None else at(row.until),
        reason=row.reason,
        message=row.message,
        acknowledged_at=None if row.acked is None else at(row.acked),
        acknowledged_by=row.acked_by,
        comment=row.comment,
        timeline=None if timeline is None else [_step(one) for one in timeline],
    )


def _step(one: Transition) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "timestamp": at(one.at),
        "count": one.count,
        "reason": one.reason,
        "locations": list(one.locations),
        "message": one.message,
        "conditions": list(one.conditions),
    }


def silence_out(one: Silence) -> SilenceOut:
    """A silence for callers."""
    return SilenceOut(
        id=one.id,
        kind=one.kind,
        matchers=one.matchers,
        since=at(one.since),
        until=at(one.until),
        by=one.by_whom,
        comment=one.comment,
    )


def period_out(period: str, sums: Sums) -> PeriodOut:
    """The figures of a period."""
    return PeriodOut(
        period=period,
        good=sums.good,
        bad=sums.bad,
        uptime=sums.uptime,
        average=sums.average,
        p50=sums.quantile(0.5),
        p95=sums.quantile(0.95),
    )


def location_out(row: LocationRow, now: int) -> dict[str, Any]:
    """A probe for callers."""
    return {
        "location": row.name,
        "probe": row.probe,
        "seen": at(row.seen),
        "isThere": now - row.seen < 30_000,  # noqa: PLR2004  six heartbeats
        "blind": row.blind,
        "skewMs": row.skew,
        "lateMs": row.late,
        "checks": row.checks,
    }
