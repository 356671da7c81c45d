"""The paths of the gateway, for its own HTTP server and behind ASGI.

GET  /connection/websocket   Centrifugo's protocol       GET  /sse/{channel}   server-sent events
GET  /ws/{channel}           plain WebSocket             POST /api/{method}    the server API
GET  /health                 200 while it runs           GET  /api/openapi.json
"""

from enum import IntEnum, auto
from typing import NamedTuple

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


class Route(NamedTuple):
    """A path's kind, and the channel or API method that it names."""

    kind: RouteKind
    name: str = ""

    @property
    def is_websocket(self) -> bool:
        """Whether a WebSocket is opened there."""
        return self.kind is RouteKind.CENTRIFUGO or self.kind is RouteKind.PLAIN


_EXACT = {
    "/connection/websocket": Route(RouteKind.CENTRIFUGO),
    "/health": Route(RouteKind.HEALTH),
    "/api/openapi.json": Route(RouteKind.OPENAPI),
}
_FOLDERS = {"ws": RouteKind.PLAIN, "sse": RouteKind.EVENTS, "api": RouteKind.API}


def route_of(path: str, config: Config, *, is_websocket: bool | None = None) -> Route:
    """The route of a path. Raises Rejected where there is nothing of the wanted sort.

    >>> route_of("/sse/news", Config())
    Route(kind=<RouteKind.EVENTS: 3>, name='news')
    """
    route = _matching(path, config)
    if route is None or is_websocket not in (None, route.is_websocket):
        raise Rejected(404, "there is nothing at this address")
    return route


def _matching(path: str, config: Config) -> Route | None:
    if (route := _EXACT.get(path)) is not None:
        return route
    before, _, rest = path.partition("/")
    folder, _, name = rest.partition("/")
    kind = _FOLDERS.get(folder)
    if before or not name or kind is None:
        return None
    is_disabled = (kind is RouteKind.PLAIN and config.websocket.plain_disabled) or (
        kind is RouteKind.EVENTS and config.sse.disabled
    )
    return None if is_disabled else Route(kind, name)


def require(method: str, wanted: str, what: str) -> None:
    """Raise Rejected unless the request has that method."""
    if method != wanted:
        raise Rejected(405, f"{what} with {wanted}", [("Allow", wanted)])
