"""The paths of the gateway, for its own HTTP server and behind ASGI.

GET  /connection/websocket   Centrifugo's protocol       GET  /sse/{channel}   server-sent events
GET  /ws/{channel}           plain WebSocket             POST /api/{method}    the server API
GET  /health, /healthz       200 while it runs           GET  /api/openapi.json
GET  /readyz                 503 while it ends

Where GET is, HEAD is, too, without a body (RFC 9110, section 9.3.2), and so is OPTIONS.
"""

from enum import IntEnum, auto
from typing import Final

from yelpaze.live.config import Config
from yelpaze.live.protocol.handshake import Rejected


class RouteKind(IntEnum):
    """What is at a path. Integers: an Enum's hash is Python code, and every request looks into tables."""

    CENTRIFUGO = auto()
    PLAIN = auto()
    EVENTS = auto()
    API = auto()
    OPENAPI = auto()
    HEALTH = auto()
    READINESS = auto()


WEBSOCKETS = frozenset({RouteKind.CENTRIFUGO, RouteKind.PLAIN})
READ = frozenset({RouteKind.EVENTS, RouteKind.OPENAPI, RouteKind.HEALTH, RouteKind.READINESS})
READ_METHODS: Final = "GET, HEAD, OPTIONS"
_EXACT = {
    "/connection/websocket": RouteKind.CENTRIFUGO,
    "/health": RouteKind.HEALTH,  # Centrifugo's
    "/healthz": RouteKind.HEALTH,
    "/readyz": RouteKind.READINESS,
    "/api/openapi.json": RouteKind.OPENAPI,
}
_FOLDERS = {"ws": RouteKind.PLAIN, "sse": RouteKind.EVENTS, "api": RouteKind.API}


def route_of(path: str, config: Config, *, is_websocket: bool | None = None) -> tuple[RouteKind, str]:
    """What is at a path, and the channel or API method that it names.

    Raises Rejected where there is nothing, or, if `is_websocket` is given, only something of the other sort.

    >>> route_of("/sse/news", Config())
    (<RouteKind.EVENTS: 3>, 'news')
    """
    kind, name = _EXACT.get(path), ""
    if kind is None:
        before, _, rest = path.partition("/")
        folder, _, name = rest.partition("/")
        kind = _FOLDERS.get(folder) if name and not before else None
    if (
        kind is None
        or (kind is RouteKind.PLAIN and config.websocket.plain_disabled)
        or (kind is RouteKind.EVENTS and config.sse.disabled)
        or (is_websocket is not None and (kind in WEBSOCKETS) is not is_websocket)
    ):
        raise Rejected(404, "there is nothing at this address")
    return kind, name


def require(method: str, kind: RouteKind) -> None:
    """Raise Rejected unless the request has a method that its route takes. OPTIONS is answered before."""
    if kind in READ and method not in ("GET", "HEAD"):
        raise Rejected(405, "this address is read with GET", [("Allow", READ_METHODS)])
    if kind is RouteKind.API and method != "POST":
        raise Rejected(405, "the server API is called with POST", [("Allow", "POST")])
