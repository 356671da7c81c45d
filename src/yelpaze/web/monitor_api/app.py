"""The API of the monitor.

/api/v1/endpoints                       checks and their state
/api/v1/endpoints/{key}/…               results, periods; badges, statuses and push at Gatus's paths
/api/v1/incidents                       incidents; …/{id}/ack acknowledges one
/api/v1/silences, /api/v1/maintenances  what operators asked for
/api/v1/locations                       probes
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query
from starlette.responses import Response

from yelpaze.model.api_error import ApiError
from yelpaze.monitor import queries
from yelpaze.monitor.queries import PERIODS
from yelpaze.monitor.records import ProbeRequest, probe_topic, record_of
from yelpaze.monitor.silences import active
from yelpaze.version import __version__
from yelpaze.web.answers import add_error_handlers, answer, body_of
from yelpaze.web.monitor_api.context import MonitorContext, found_check, operator, reader
from yelpaze.web.monitor_api.gatus import add_gatus_paths
from yelpaze.web.monitor_api.values import (
    AckIn,
    CommandOut,
    EndpointOut,
    IncidentOut,
    PeriodOut,
    SilenceIn,
    SilenceOut,
    endpoint_out,
    incident_out,
    last_out,
    location_out,
    period_out,
    silence_out,
)
from yelpaze.web.openapi import describe, described

_STRUCTS = (AckIn, SilenceIn, EndpointOut, IncidentOut, SilenceOut, CommandOut, PeriodOut)
_MOST_BODY = 64 << 10
_UNCACHED = {"cache-control": "no-cache, no-store, must-revalidate", "expires": "0"}
_REQUEST_MS = 30_000
_MOST_MINUTES = 100 * 365 * 24 * 60
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1 << 40)]
Before = Annotated[datetime | None, Query()]
_Ack = Annotated[Any, Depends(body_of(AckIn, _MOST_BODY))]
_Silence = Annotated[Any, Depends(body_of(SilenceIn, _MOST_BODY))]
_GATUS = ("30d", "7d", "24h", "1h")


def monitor_api(context: MonitorContext, ready: Callable[[], bool]) -> FastAPI:
    """The application, without pages."""
    app = FastAPI(
        title="Yelpaze monitor",
        version=__version__,
        description="Checks, incidents, silences and badges.",
        docs_url=None,
        redoc_url=None,
    )
    add_error_handlers(app)
    for add in (add_gatus_paths, _endpoints, _incidents, _silences):
        add(app, context)

    @app.get("/health", include_in_schema=False)
    async def health() -> Response:
        return answer({"status": "UP"})

    @app.get("/healthz", include_in_schema=False)
    async def is_alive() -> Response:
        return answer({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def is_ready() -> Response:
        return answer({"status": "ok"}) if ready() else answer({"status": "unavailable"}, 503)

    describe(app, _STRUCTS, (EndpointOut, IncidentOut, SilenceOut))
    return app


def _endpoints(app: FastAPI, context: MonitorContext) -> None:
    read = [reader(context)]

    @app.get("/api/v1/endpoints", dependencies=read, openapi_extra=described(None, page_of=EndpointOut))
    async def list_endpoints(limit: Limit = 100, offset: Offset = 0, q: str = "") -> Response:
        """List checks with their state, in the order of the configuration."""
        work = partial(queries.list_checks, limit=limit, offset=offset, text=q, stale_before=context.now())
        rows, count = await context.read(work)
        show = context.config.api.show_urls
        return answer({"data": [endpoint_out(row, show_url=show) for row in rows], "total": count})

    @app.get("/api/v1/endpoints/{key}", dependencies=read, openapi_extra=described(EndpointOut))
    async def get_endpoint(key: str) -> Response:
        """Return a check and its state."""
        return answer(endpoint_out(await found_check(context, key), show_url=context.config.api.show_urls))

    @app.get("/api/v1/endpoints/{key}/results", dependencies=read, openapi_extra=described(None))
    async def list_results(key: str, limit: Limit = 100, before: Before = None) -> Response:
        """List the last results of a check, newest first."""
        row = await found_check(context, key)
        until = context.now() + 1 if before is None else _ms(before)
        work = partial(queries.list_results, key=row.key, before=until, limit=limit)
        results = await context.read(work)
        return answer(
            {"data": [{**last_out(one), "attempt": one.attempt, "final": one.final} for one in results]}
        )

    @app.get("/api/v1/endpoints/{key}/periods", dependencies=read, openapi_extra=described(None))
    async def list_periods(key: str) -> Response:
        """Return uptime and latency over the last hour, day, week, 30 and 90 days."""
        row, now = await found_check(context, key), context.now()
        found = []
        for name, length in PERIODS.items():
            work = partial(queries.sums_of, ids=[row.id], since=now - length, now=now)
            sums = (await context.read(work)).get(row.id, queries.Sums(histogram=(0,) * 20))
            found.append(period_out(name, sums))
        return answer({"data": found})

    @app.post(
        "/api/v1/endpoints/{key}/check",
        status_code=202,
        dependencies=[operator(context)],
        openapi_extra=described(CommandOut, status=202),
    )
    async def check_now(key: str) -> Response:
        """Check at once, at all of its locations."""
        row, now = await found_check(context, key), context.now()
        check = context.config.checks[row.key]
        if check.disabled or check.options.kind == "push":
            why = "it is disabled" if check.disabled else "its job calls us"
            raise ApiError(409, "conflict", f"this endpoint cannot be checked: {why}")
        asked = ProbeRequest(check=row.key, slot=now, id=f"now-{now}", expires=now + _REQUEST_MS)
        for location in check.options.locations:
            await context.publish(probe_topic(location), record_of(asked))
        return answer(CommandOut(id=asked.id), 202)

    @app.get("/api/v1/locations", dependencies=read, openapi_extra=described(None))
    async def list_locations() -> Response:
        """List the probes, and when they were last heard of."""
        rows = await context.read(queries.list_locations)
        return answer({"data": [location_out(row, context.now()) for row in rows]})


def _ms(time: datetime) -> int:
    return int((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000)


# ── incidents and silences ──────────────────────────────────────────────────────


def _incidents(app: FastAPI, context: MonitorContext) -> None:
    read, operate = [reader(context)], [operator(context)]

    async def found(incident: str) -> queries.IncidentRow:
        row = await context.read(partial(queries.find_incident, incident=incident))
        if row is None:
            raise ApiError(404, "not_found", "there is no such incident")
        return row

    @app.get("/api/v1/incidents", dependencies=read, openapi_extra=described(None, page_of=IncidentOut))
    async def list_incidents(
        state: Literal["open", "closed", "all"] = "all",
        endpoint: str | None = None,
        limit: Limit = 50,
        before: Before = None,
    ) -> Response:
        """List incidents, newest first; `before` is when the last one of a page began."""
        rows = await context.read(
            partial(
                queries.list_incidents,
                is_open={"open": True, "closed": False}.get(state),
                key=endpoint,
                before=1 << 62 if before is None else _ms(before),
                limit=limit,
            )
        )
        return answer({"data": [incident_out(row) for row in rows]})

    @app.get("/api/v1/incidents/{incident}", dependencies=read, openapi_extra=described(IncidentOut))
    async def get_incident(incident: str) -> Response:
        """Return an incident with its timeline."""
        row = await found(incident)
        timeline = await context.read(partial(queries.transitions_of, incidents=[row.id]))
        return answer(incident_out(row, timeline.get(row.id, [])))

    @app.post(
        "/api/v1/incidents/{incident}/ack",
        status_code=202,
        dependencies=operate,
        openapi_extra=described(CommandOut, status=202, body=AckIn),
    )
    async def acknowledge(incident: str, given: _Ack) -> Response:
        """Acknowledge an incident: it is reminded of no more."""
        row = await found(incident)
        command = await context.command("ack", incident=row.id, by=given.by, comment=given.comment)
        return answer(CommandOut(id=command.id), 202)

    @app.delete(
        "/api/v1/incidents/{incident}/ack",
        status_code=202,
        dependencies=operate,
        openapi_extra=described(CommandOut, status=202),
    )
    async def withdraw(incident: str) -> Response:
        """Take an acknowledgement back."""
        command = await context.command("unack", incident=(await found(incident)).id)
        return answer(CommandOut(id=command.id), 202)


def _silences(app: FastAPI, context: MonitorContext) -> None:
    read, operate = [reader(context)], [operator(context)]

    def add(path: str, kind: Literal["silence", "maintenance"]) -> None:
        @app.get(f"/api/v1/{path}", dependencies=read, openapi_extra=described(None, page_of=SilenceOut))
        async def list_silences() -> Response:
            """List those that hold, or will."""
            rows = await context.read(partial(active, at=context.now()))
            return answer({"data": [silence_out(one) for one in rows if one.kind == kind]})

        @app.post(
            f"/api/v1/{path}",
            status_code=202,
            dependencies=operate,
            openapi_extra=described(CommandOut, status=202, body=SilenceIn),
        )
        async def create(given: _Silence) -> Response:
            """Make one."""
            since, until = _span(given, context.now())
            _check_matchers(context, given.matchers)
            command = await context.command(
                kind,
                matchers=given.matchers,
                since=since,
                until=until,
                by=given.by,
                comment=given.comment,
            )
            return answer(CommandOut(id=command.id), 202)

        @app.delete(
            f"/api/v1/{path}/{{silence}}",
            status_code=202,
            dependencies=operate,
            openapi_extra=described(CommandOut, status=202),
        )
        async def end(silence: str) -> Response:
            """End one."""
            rows = await context.read(partial(active, at=context.now()))
            if not any(one.id == silence and one.kind == kind for one in rows):
                raise ApiError(404, "not_found", f"there is no such {kind}")
            which: Any = "unsilence" if kind == "silence" else "end_maintenance"
            command = await context.command(which, target=silence)
            return answer(CommandOut(id=command.id), 202)

    add("silences", "silence")
    add("maintenances", "maintenance")


def _span(given: SilenceIn, now: int) -> tuple[int, int]:
    """When it begins and ends."""
    if (given.until is None) == (given.minutes is None):
        raise ApiError(422, "validation", "give until, or minutes", ("until",))
    if given.minutes is not None and not given.minutes <= _MOST_MINUTES:
        raise ApiError(422, "validation", f"takes up to {_MOST_MINUTES:,}", ("minutes",))
    since = now if given.since is None else _ms(given.since)
    until = _ms(given.until) if given.until is not None else now + int((given.minutes or 0) * 60_000)
    if until > now + _MOST_MINUTES * 60_000:
        raise ApiError(422, "validation", "is more than 100 years from now", ("until",))
    if until <= now:
        raise ApiError(422, "validation", "is not in the future", ("until",))
    if not 0 <= since < until:
        raise ApiError(422, "validation", "is not before the end", ("since",))
    return since, until


def _check_matchers(context: MonitorContext, matchers: dict[str, str]) -> None:
    labels = {name for check in context.config.checks.values() for name, _ in check.options.labels}
    known = sorted({"key", "group", "name"} | labels)
    if not matchers:
        raise ApiError(422, "validation", f"takes at least one of {', '.join(known)}", ("matchers",))
    for name in matchers:
        if name not in known:
            raise ApiError(
                422, "validation", f"there is no label {name}: {', '.join(known)}", ("matchers", name)
            )
