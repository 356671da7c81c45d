"""The API of hooks, with Svix's paths and shapes, so that its SDKs work with another `server_url`.

/api/v1/app                         applications
/api/v1/app/{app}/endpoint          endpoints, their secrets and headers; recover, replay, test events
/api/v1/app/{app}/msg               messages
/api/v1/app/{app}/attempt           the log of attempts
/api/v1/event-type                  the catalogue of event types
/api/v1/token                       tokens (ours)
/api/v1/health                      whether it answers
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from yelpaze.hooks.context import Access
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications
from yelpaze.hooks.values import (
    ApplicationIn,
    ApplicationOut,
    ApplicationPatch,
    AttemptOut,
    EndpointHeadersIn,
    EndpointHeadersOut,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointMessageOut,
    EndpointOut,
    EndpointPatch,
    EndpointSecretOut,
    EndpointSecretRotateIn,
    EndpointStats,
    EventTypeIn,
    EventTypeOut,
    EventTypePatch,
    EventTypeUpdate,
    ExampleIn,
    MessageEndpointOut,
    MessageIn,
    MessageOut,
    RecoverIn,
    TaskOut,
    TokenIn,
    TokenOut,
)
from yelpaze.version import __version__
from yelpaze.web.answers import add_error_handlers, answer
from yelpaze.web.hooks_api.applications import add_applications
from yelpaze.web.hooks_api.attempts import add_attempts
from yelpaze.web.hooks_api.endpoint_work import add_endpoint_work
from yelpaze.web.hooks_api.endpoints import add_endpoints
from yelpaze.web.hooks_api.event_types import add_event_types
from yelpaze.web.hooks_api.messages import add_messages
from yelpaze.web.hooks_api.tokens import add_tokens
from yelpaze.web.openapi import describe

_TOKEN_SECONDS = 5.0  # how long a token is remembered
_MOST_TOKENS = 10_000
_PAGES = (
    ApplicationOut,
    AttemptOut,
    EndpointMessageOut,
    EndpointOut,
    EventTypeOut,
    MessageEndpointOut,
    MessageOut,
    TokenOut,
)
_STRUCTS = (
    *_PAGES,
    ApplicationIn,
    ApplicationPatch,
    EndpointHeadersIn,
    EndpointHeadersOut,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointPatch,
    EndpointSecretOut,
    EndpointSecretRotateIn,
    EndpointStats,
    EventTypeIn,
    EventTypePatch,
    EventTypeUpdate,
    ExampleIn,
    MessageIn,
    RecoverIn,
    TaskOut,
    TokenIn,
)

_PARTS = (
    add_applications,
    add_endpoints,
    add_endpoint_work,
    add_messages,
    add_attempts,
    add_event_types,
    add_tokens,
)


def hooks_api(hooks: Hooks, admin_token: str, ready: Callable[[], bool] = lambda: True) -> ASGIApp:
    """The API as an ASGI application. `admin_token` opens all applications."""
    app = FastAPI(
        title="Yelpaze hooks",
        version=__version__,
        description="Durable delivery of webhooks, with Svix's paths and shapes.",
        docs_url=None,  # its page would be loaded from elsewhere
        redoc_url=None,
    )
    app.state.hooks = hooks
    app.state.tokens = _Tokens(hooks, admin_token)
    add_error_handlers(app)
    app.include_router(_router(hooks), prefix="/api/v1")

    @app.get("/healthz", include_in_schema=False)
    async def alive() -> Response:
        return answer({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def is_ready() -> Response:
        return answer({"status": "ok"}) if ready() else answer({"status": "unavailable"}, 503)

    describe(app, _STRUCTS, _PAGES)
    return _Outermost(app)


class _Outermost:
    """Older clients end their paths with a slash; and no name has NUL in it, which PostgreSQL cannot keep."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if "\0" in scope["path"]:
                error = {"code": "not_found", "detail": "a name cannot have NUL in it"}
                await answer(error, 404)(scope, receive, send)
                return
            if b"%00" in scope["query_string"]:
                detail = {"loc": ["query"], "msg": "has NUL in it", "type": "value_error"}
                await answer({"detail": [detail]}, 422)(scope, receive, send)
                return
            if scope["path"].endswith("/") and len(scope["path"]) > 1:
                scope = {**scope, "path": scope["path"].rstrip("/")}
        await self._app(scope, receive, send)


class _Tokens:
    """Access by token, cached for a few seconds."""

    def __init__(self, hooks: Hooks, admin_token: str) -> None:
        self._hooks = hooks
        self._admin = admin_token.encode()
        self._known: dict[bytes, tuple[float, Access | None]] = {}

    async def access(self, request: Request) -> Access:
        """Return the access that the request's token gives. Raises HooksError."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise HooksError(401, "authentication_failed", "give a token as `Authorization: Bearer TOKEN`")
        given = token.strip().encode("latin-1", "replace")
        if self._admin and hmac.compare_digest(given, self._admin):
            return Access()
        digest, now = hashlib.sha256(given).digest(), time.monotonic()
        known = self._known.get(digest)
        if known is None or known[0] <= now:
            found = await self._hooks.read(
                partial(applications.find_access, context=self._hooks.context, token=token.strip())
            )
            if len(self._known) >= _MOST_TOKENS:
                self._known.clear()
            known = self._known[digest] = (now + _TOKEN_SECONDS, found)
        if known[1] is None:
            raise HooksError(401, "authentication_failed", "the token is not known, or has expired")
        return known[1]


def _router(hooks: Hooks) -> APIRouter:
    router = APIRouter()
    for add in _PARTS:
        add(router, hooks)

    @router.get("/health", status_code=204, tags=["health"])
    async def health() -> Response:
        return Response(status_code=204)

    return router
