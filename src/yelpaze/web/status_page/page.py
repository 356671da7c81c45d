"""What the status page shows, read from the store and made ready for the templates."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, Response

from yelpaze.model.api_error import ApiError
from yelpaze.monitor import queries
from yelpaze.monitor.queries import Bucket, CheckRow, IncidentRow
from yelpaze.monitor.records import Transition
from yelpaze.monitor.tables import DAY_MS, HOUR
from yelpaze.store.session import Session
from yelpaze.web.monitor_api.context import MonitorContext, found_check

_DAYS = 90
_ON_A_PAGE = 100
_PAST_DAYS = 14
_MOST_PAST = 20
_GOOD, _FAIR = 0.999, 0.95
_NOTHING = "\u2013"
_WIDTH, _HEIGHT = 120, 28
_CSP = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = {"content-security-policy": _CSP, "cache-control": "no-cache", "referrer-policy": "no-referrer"}
_STATIC = {"style.css": "text/css", "live.js": "text/javascript"}


def add_status_page(app: FastAPI, context: MonitorContext) -> None:
    """Add `/`, `/endpoints/{key}` and what they need."""
    folder = Path(__file__).parent / "templates"
    templates = Environment(
        loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"time": _time, "day": _day, "lasted": _lasted, "percent": _percent, "ms": _ms}
    static = {name: (folder / name).read_bytes() for name in _STATIC}

    def render(name: str, **values: Any) -> Response:
        ui, api = context.config.ui, context.config.api
        shown = templates.get_template(name).render(
            ui=ui, show_urls=api.show_urls, now=context.now(), **values
        )
        return HTMLResponse(shown, headers=_HEADERS)

    @app.get("/", include_in_schema=False)
    async def index(request: Request, page: int = 1, q: str = "") -> Response:
        context.check_reader(request)
        values = await context.read(partial(overview, now=context.now(), page=max(1, page), text=q[:100]))
        is_part = request.headers.get("x-part") == "main"
        return render("main.html" if is_part else "index.html", **values)

    @app.get("/endpoints/{key}", include_in_schema=False)
    async def endpoint(request: Request, key: str) -> Response:
        context.check_reader(request)
        row = await found_check(context, key)
        values = await context.read(partial(detail, row=row, now=context.now()))
        is_part = request.headers.get("x-part") == "main"
        return render("endpoint_main.html" if is_part else "endpoint.html", **values)

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in static:
            raise ApiError(404, "not_found", "there is no such file")
        return Response(static[name], media_type=_STATIC[name], headers={"cache-control": "max-age=300"})


def overview(session: Session, now: int, page: int, text: str) -> dict[str, Any]:
    """All groups with their checks, and incidents."""
    _, count = queries.list_checks(session, limit=0, text=text)
    pages = -(-count // _ON_A_PAGE)
    page = min(page, max(1, pages))
    rows, _ = queries.list_checks(
        session, limit=_ON_A_PAGE, offset=(page - 1) * _ON_A_PAGE, text=text, stale_before=now
    )
    [(everything,)] = session.rows("SELECT count(*) FROM monitor_check WHERE removed = 0")
    bars, sparks = _bars(session, rows, now), _sparks(session, rows, now)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        uptime = _uptime_of(bars[row.id])
        shown = {"row": row, "bars": bars[row.id], "spark": sparks[row.id], "uptime": uptime}
        groups.setdefault(row.group, []).append(shown)
    current = queries.list_incidents(session, is_open=True, limit=_MOST_PAST)
    names = _names(session, current)
    past = queries.list_incidents(session, is_open=False, limit=_MOST_PAST, confirmed=True)
    past = [one for one in past if one.since > now - _PAST_DAYS * DAY_MS]
    names |= _names(session, past)
    timelines = queries.transitions_of(session, [one.id for one in (*current, *past)])
    return {
        "groups": [
            {"name": name, "checks": checks, "state": _worst(checks)} for name, checks in groups.items()
        ],
        "overall": _overall(session, rows),
        "current": [_incident(one, names, timelines) for one in current],
        "past": [_incident(one, names, timelines) for one in past],
        "page": page,
        "pages": pages,
        "all": everything,
        "text": text,
    }


def detail(session: Session, row: CheckRow, now: int) -> dict[str, Any]:
    """One check: periods, the last results, incidents."""
    periods = []
    for name, length in queries.PERIODS.items():
        sums = queries.sums_of(session, [row.id], now - length, now).get(row.id, queries.Sums())
        figures = {"name": name, "uptime": sums.uptime, "average": sums.average}
        periods.append({**figures, "p95": sums.quantile(0.95) if sums.histogram else None})
    incidents = queries.list_incidents(session, key=row.key, limit=_MOST_PAST)
    timelines = queries.transitions_of(session, [one.id for one in incidents])
    names = {row.key: _title(row.group, row.name)}
    return {
        "row": row,
        "title": names[row.key],
        "bars": _bars(session, [row], now)[row.id],
        "spark": _sparks(session, [row], now)[row.id],
        "periods": periods,
        "results": queries.list_results(session, row.key, before=now + 1, limit=30),
        "incidents": [_incident(one, names, timelines) for one in incidents],
    }


def _overall(session: Session, rows: Sequence[CheckRow]) -> dict[str, str]:
    [(down,)] = session.rows("SELECT count(*) FROM incident WHERE until IS NULL AND state = 'down'")
    [(doubtful,)] = session.rows("SELECT count(*) FROM incident WHERE until IS NULL AND state <> 'down'")
    if down:
        return {"state": "down", "text": "1 service is down" if down == 1 else f"{down} services are down"}
    if doubtful:
        return {"state": "seems_down", "text": "A failure is being confirmed"}
    if rows and all(row.status == "unknown" for row in rows):
        return {"state": "unknown", "text": "Waiting for the first results"}
    return {"state": "up", "text": "All services are up"}


def _worst(checks: Sequence[Mapping[str, Any]]) -> str:
    states = {one["row"].status for one in checks}
    return next((one for one in ("down", "seems_down", "unknown") if one in states), "up")


# ── bars and lines ──────────────────────────────────────────────────────────────


def _bars(session: Session, rows: Sequence[CheckRow], now: int) -> dict[int, list[dict[str, Any]]]:
    """A bar for each of the last 90 days."""
    ids, today = [row.id for row in rows], now - now % DAY_MS
    since = today - (_DAYS - 1) * DAY_MS
    days = queries.buckets_of(session, ids, "d", since)
    current = queries.sums_of(session, ids, today, now)
    found = {}
    for check_id in ids:
        by_day = {one.at: (one.good, one.bad) for one in days.get(check_id, ()) if one.at < today}
        if check_id in current:
            by_day[today] = current[check_id].good, current[check_id].bad
        found[check_id] = [
            _bar(day, *by_day.get(day, (0, 0))) for day in range(since, today + DAY_MS, DAY_MS)
        ]
    return found


def _bar(day: int, good: int, bad: int) -> dict[str, Any]:
    count = good + bad
    if not count:
        return {"state": "none", "title": f"{_day(day)}: no results", "good": 0, "count": 0}
    share = good / count
    state = "up" if share >= _GOOD else "fair" if share >= _FAIR else "down"
    return {"state": state, "title": f"{_day(day)}: {_percent(share)} up", "good": good, "count": count}


def _uptime_of(bars: Sequence[Mapping[str, Any]]) -> float | None:
    count = sum(bar["count"] for bar in bars)
    return sum(bar["good"] for bar in bars) / count if count else None


def _sparks(session: Session, rows: Sequence[CheckRow], now: int) -> dict[int, dict[str, Any]]:
    """Response times of the last day: by hour, or by minute while there are few."""
    ids, since = [row.id for row in rows], now - DAY_MS
    hours = queries.buckets_of(session, ids, "h", since)
    minutes = queries.buckets_of(session, ids, "m", now - 2 * HOUR)
    found = {}
    for check_id in ids:
        buckets = hours.get(check_id, [])
        if sum(1 for one in buckets if one.good) < 3:  # noqa: PLR2004  no line yet
            buckets = minutes.get(check_id, [])
        found[check_id] = _spark([one for one in buckets if one.good])
    return found


def _spark(buckets: Sequence[Bucket]) -> dict[str, Any]:
    values = [one.total / one.good for one in buckets]
    if not values:
        return {"points": "", "last": None, "title": ""}
    top = max(values) or 1.0
    step = _WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{number * step:.1f},{_HEIGHT - 2 - value / top * (_HEIGHT - 4):.1f}"
        for number, value in enumerate(values)
    )
    title = f"response time: {_ms(min(values))} to {_ms(max(values))}"
    return {"points": points if len(values) > 1 else "", "last": values[-1], "title": title}


# ── incidents ───────────────────────────────────────────────────────────────────


def _names(session: Session, incidents: Sequence[IncidentRow]) -> dict[str, str]:
    keys = [one.check_key for one in incidents]
    rows = session.rows("SELECT key, grp, name FROM monitor_check WHERE key IN ??", keys)
    return {key: _title(group, name) for key, group, name in rows}


def _title(group: str, name: str) -> str:
    return f"{group} / {name}" if group else name


def _incident(
    one: IncidentRow, names: Mapping[str, str], timelines: Mapping[str, Sequence[Transition]]
) -> dict[str, Any]:
    steps = [{"at": step.at, "text": _step(step)} for step in timelines.get(one.id, ())]
    if one.acked is not None:
        by = f" by {one.acked_by}" if one.acked_by else ""
        comment = f": {one.comment}" if one.comment else ""
        steps.append({"at": one.acked, "text": f"Acknowledged{by}{comment}"})
    steps.sort(key=lambda step: step["at"])  # type: ignore[arg-type, return-value]
    return {"row": one, "name": names.get(one.check_key, one.check_key), "steps": steps}


def _step(one: Transition) -> str:
    where = f" from {', '.join(one.locations)}" if one.locations else ""
    what = one.message or "; ".join(one.conditions)
    match one.kind:
        case "seems_down":
            return f"First failure{where}: {what}" if what else f"First failure{where}"
        case "down":
            return f"Down: confirmed by {_in_a_row(one.count)}{where}"
        case "failing":
            return f"Still failing: {_in_a_row(one.count)}{where}"
        case "passing":
            return f"Passing again: {one.count} in a row"
        case _:
            ends = {
                "probe_cleared": "Resolved",
                "false_alarm": "False alarm: the next checks passed",
                "maintenance": "Ended by a maintenance window",
                "superseded": "Ended: the check was changed or removed",
            }
            return ends.get(one.reason, "Resolved")


def _in_a_row(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks in a row"


# ── texts ───────────────────────────────────────────────────────────────────────


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%b %-d, %H:%M:%S")


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%b %-d, %Y")


def _lasted(milliseconds: int) -> str:
    return str(timedelta(seconds=max(0, milliseconds) // 1000))


def _percent(share: float | None) -> str:
    if share is None:
        return _NOTHING
    text = f"{int(share * 10_000) / 100:.2f}".rstrip("0").rstrip(".")
    return f"{text} %"


def _ms(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"  # noqa: PLR2004
