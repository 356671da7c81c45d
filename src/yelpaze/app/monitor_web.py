"""The web of a monitor: API, pages, and the gateway that updates them."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from yelpaze.app.live_object import Live
from yelpaze.bus.protocol import Bus, BusUnavailable
from yelpaze.model.api_error import ApiError
from yelpaze.model.errors import StoppedError
from yelpaze.model.notice import Report
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.records import TRANSITIONS, Transition, decoded
from yelpaze.store.store import Store
from yelpaze.web.answers import answer
from yelpaze.web.monitor_api.app import monitor_api
from yelpaze.web.monitor_api.context import MonitorContext
from yelpaze.web.status_page.page import add_status_page

_CHANNEL = "status"
_OPEN = ("allow_subscribe_for_client", "allow_subscribe_for_anonymous")
_AGAIN_SECONDS = 1.0
_SETTLED_SECONDS = 0.2  # until the store has what a transition says


class MonitorWeb:
    """The ASGI application, and the task that publishes what changes. An async context manager."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        config: MonitorConfig,
        report: Report,
        wall: Callable[[], float] = time.time,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._bus = bus
        self._report = report
        self._ready = ready
        self._context = MonitorContext(bus, store, config, wall)
        self._is_closing = False
        self._live = Live(
            {
                "client": {"allow_anonymous_connect_without_token": True},
                "channel": {"without_namespace": dict.fromkeys(_OPEN, True)},
            }
        )

    async def __aenter__(self) -> Self:
        await self._live.node()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._live.close()

    async def close_pages(self) -> None:
        """End the connections of the pages that are open, and publish to none."""
        self._is_closing = True
        await self._live.close()

    def reconfigure(self, config: MonitorConfig) -> None:
        """Go on with another configuration."""
        self._context.config = config

    def app(self, registry: CollectorRegistry | None = None) -> FastAPI:
        """API, pages and gateway; `/metrics`, if there is a registry."""
        app = monitor_api(self._context, self._ready)
        if registry is not None and self._context.config.metrics:

            @app.get("/metrics", include_in_schema=False)
            def metrics(request: Request) -> Response:
                self._context.check_reader(request)
                return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        add_status_page(app, self._context)
        app.mount("/live", self._guarded(self._live.asgi()))
        return app

    def _guarded(self, gateway: Any) -> Any:
        """The gateway, for those who may read."""

        async def asked(scope: Any, receive: Any, send: Any) -> None:
            try:
                self._context.check_reader(HTTPConnection(scope))
            except ApiError as error:
                if scope["type"] == "http":
                    await answer({"code": error.code, "detail": error.detail}, error.status)(
                        scope, receive, send
                    )
                else:
                    await send({"type": "websocket.close", "code": 1008})
                return
            await gateway(scope, receive, send)

        return asked

    async def run(self) -> None:
        """Tell the pages of transitions, until cancelled."""
        while True:
            with contextlib.suppress(BusUnavailable):
                async with self._bus.consume([TRANSITIONS]) as consumer:
                    while True:
                        records, _ = await consumer.read(1000, 1.0)
                        found = await decoded(self._bus, records, Transition)
                        if found:
                            await asyncio.sleep(_SETTLED_SECONDS)
                        for _, one in found:
                            with contextlib.suppress(StoppedError):
                                if self._is_closing:
                                    continue  # a gateway that is closed would be started anew
                                await self._live.publish(_CHANNEL, {"endpoint": one.check, "kind": one.kind})
            await asyncio.sleep(_AGAIN_SECONDS)
