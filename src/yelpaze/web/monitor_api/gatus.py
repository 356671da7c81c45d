"""Gatus's own paths: statuses, badges, figures as plain text, and the results of push checks."""

import re
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from yelpaze.model.api_error import ApiError
from yelpaze.monitor import queries
from yelpaze.monitor.pushes import is_allowed, result_of, set_due
from yelpaze.monitor.queries import PERIODS, CheckRow
from yelpaze.monitor.records import RESULTS, record_of
from yelpaze.web.answers import answer
from yelpaze.web.monitor_api.badges import health_badge, latency_badge, uptime_badge
from yelpaze.web.monitor_api.context import MonitorContext, found_check, plain, reader
from yelpaze.web.monitor_api.values import at

_UNCACHED = {"cache-control": "no-cache, no-store, must-revalidate", "expires": "0"}
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d{1,20}(?:\.\d{0,20})?)(ns|us|µs|μs|ms|s|m|h)")
_MOST_SECONDS = 365 * 86_400
_GATUS = ("30d", "7d", "24h", "1h")
_BASE = "/api/v1/endpoints"
Page = Annotated[int, Query(le=10_000)]


def add_gatus_paths(app: FastAPI, context: MonitorContext) -> None:
    """Add them to the application, before those that `statuses` would be a key of."""
    _add_statuses(app, context)
    _add_figures(app, context)
    _add_push(app, context)


async def _sums(context: MonitorContext, key: str, period: str) -> queries.Sums:
    if period not in _GATUS:
        raise ApiError(400, "bad_request", f"durations are {', '.join(_GATUS)}")
    row, now = await found_check(context, key), context.now()
    work = partial(queries.sums_of, ids=[row.id], since=now - PERIODS[period], now=now)
    return (await context.read(work)).get(row.id, queries.Sums())


async def _status(context: MonitorContext, row: CheckRow, limit: int, skip: int = 0) -> dict[str, Any]:
    work = partial(
        queries.list_results, key=row.key, before=context.now() + 1, limit=limit + skip, tries=False
    )
    shown = [_result(one) for one in reversed((await context.read(work))[skip:])]
    return {"name": row.name, "group": row.group, "key": row.key, "results": shown}


def _result(one: queries.ResultRow) -> dict[str, Any]:
    return {
        "status": one.status,
        "duration": int(one.duration * 1_000_000),  # nanoseconds
        "success": one.success,
        "timestamp": at(one.slot),
        "errors": [one.detail.message] if one.detail.message else [],
        "conditionResults": [{"condition": text, "success": False} for text in one.detail.conditions],
    }


def _add_statuses(app: FastAPI, context: MonitorContext) -> None:
    read = [reader(context)]

    @app.get(f"{_BASE}/statuses", dependencies=read, tags=["gatus"])
    async def statuses(page: Page = 1, pageSize: int = 50) -> Response:  # noqa: N803  Gatus's name
        """List checks with their last results, as Gatus does."""
        rows, _ = await context.read(partial(queries.list_checks, stale_before=context.now()))
        size, number = max(1, min(pageSize, 100)), max(1, page)
        return answer([await _status(context, row, size, size * (number - 1)) for row in rows])

    @app.get(f"{_BASE}/{{key}}/statuses", dependencies=read, tags=["gatus"])
    async def status(key: str, pageSize: int = 50) -> Response:  # noqa: N803
        """Return the last results of a check, as Gatus does."""
        return answer(await _status(context, await found_check(context, key), max(1, min(pageSize, 100))))


def _add_figures(app: FastAPI, context: MonitorContext) -> None:
    @app.get(f"{_BASE}/{{key}}/health/badge.svg", tags=["gatus"])
    async def health_svg(key: str) -> Response:
        """Draw whether it is up."""
        return _svg(health_badge((await found_check(context, key)).status))

    @app.get(f"{_BASE}/{{key}}/health/badge.shields", tags=["gatus"])
    async def health_shields(key: str) -> Response:
        """Return the same for shields.io."""
        state = (await found_check(context, key)).status
        text, colour = {"up": ("up", "brightgreen"), "down": ("down", "red")}.get(state, ("?", "yellow"))
        return answer({"schemaVersion": 1, "label": "status", "message": text, "color": colour})

    @app.get(f"{_BASE}/{{key}}/uptimes/{{period}}", tags=["gatus"])
    async def uptime(key: str, period: str) -> Response:
        """Return the share of good results over 30d, 7d, 24h or 1h."""
        return plain(f"{(await _sums(context, key, period)).uptime or 0:.6f}")

    @app.get(f"{_BASE}/{{key}}/uptimes/{{period}}/badge.svg", tags=["gatus"])
    async def uptime_svg(key: str, period: str) -> Response:
        """Draw the share of good results."""
        return _svg(uptime_badge(period, (await _sums(context, key, period)).uptime))

    @app.get(f"{_BASE}/{{key}}/response-times/{{period}}", tags=["gatus"])
    async def latency(key: str, period: str) -> Response:
        """Return milliseconds on average."""
        return plain(f"{(await _sums(context, key, period)).average or 0:.0f}")

    @app.get(f"{_BASE}/{{key}}/response-times/{{period}}/badge.svg", tags=["gatus"])
    async def latency_svg(key: str, period: str) -> Response:
        """Draw milliseconds on average."""
        return _svg(latency_badge(period, (await _sums(context, key, period)).average))

    @app.get(f"{_BASE}/{{key}}/response-times/{{period}}/history", tags=["gatus"])
    async def latency_history(key: str, period: str) -> Response:
        """Return milliseconds on average, by hour."""
        if period not in _GATUS[:3]:
            raise ApiError(400, "bad_request", f"durations are {', '.join(_GATUS[:3])}")
        row = await found_check(context, key)
        since = context.now() - PERIODS[period]
        work = partial(queries.buckets_of, ids=[row.id], level="h", since=since)
        buckets = [one for one in (await context.read(work)).get(row.id, []) if one.good]
        values = [round(one.total / one.good) for one in buckets]
        return answer({"timestamps": [one.at for one in buckets], "values": values})


def _svg(text: str) -> Response:
    return Response(text, media_type="image/svg+xml", headers=_UNCACHED)


def _seconds(duration: str) -> float:
    """A duration as Go writes it. Raises ValueError.

    >>> _seconds("1m2.5s"), _seconds("250ms"), _seconds("")
    (62.5, 0.25, 0.0)
    """
    if duration == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{_GO_DURATION.pattern})*", duration):
        raise ValueError(f"duration is written 350ms or 1m2.5s, not {duration[:40]!r}")
    seconds = sum((float(number) * _GO_UNITS[unit] for number, unit in _GO_DURATION.findall(duration)), 0.0)
    if seconds > _MOST_SECONDS:
        raise ValueError("duration takes at most a year")
    return seconds


def _add_push(app: FastAPI, context: MonitorContext) -> None:
    @app.post("/api/v1/endpoints/{key}/external", tags=["gatus"])
    async def push(
        request: Request, key: str, success: str = "", error: str = "", duration: str = ""
    ) -> Response:
        """Take a push check's result: `success=true|false`, `error`, `duration` such as 350ms."""
        config, name = context.config, key.lower()
        if success not in ("true", "false"):
            return plain("success takes true or false", 400)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return plain("give the endpoint's token as `Authorization: Bearer TOKEN`", 401)
        allowed = is_allowed(config, name, token.strip().encode("latin-1"))
        if not allowed:
            return plain("not found", 404) if allowed is None else plain("the token is wrong", 401)
        try:
            seconds = _seconds(duration)
        except ValueError as fault:
            return plain(str(fault), 400)
        now = context.now()
        given = {"success": success == "true", "error": error[:1000], "duration": seconds * 1000}
        result = result_of(config, name, now, **given)  # type: ignore[arg-type]
        await context.publish(RESULTS, record_of(result))
        interval = config.checks[name].options.interval
        if interval:
            await context.store.write(partial(set_due, key=name, due=now + int(interval * 1000)))
        return plain("")
