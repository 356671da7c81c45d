"""The paths of the gateway, for its own HTTP server and behind ASGI.

GET  /connection/websocket   Centrifugo's protocol       GET  /sse/{channel}   server-sent events
GET  /ws/{channel}           plain WebSocket             POST /api/{method}    the server API
GET  /health                 200 while it runs           GET  /api/openapi.json
"""

from enum import Enum, auto
from typing import NamedTuple

from yelpaze.live.config import Config
from yelpaze.live.protocol.handshake import Rejected


class Kind(Enum):
    """What is at a path."""

    CENTRIFUGO = auto()
    PLAIN = auto()
    EVENTS = auto()
    API = auto()
    OPENAPI = auto()
    HEALTH = auto()


class Route(NamedTuple):
    """A path's kind, and the channel or API method that it names."""

    kind: Kind
    name: str = ""

    @property
    def is_websocket(self) -> bool:
        """Whether a WebSocket is opened there."""
        return self.kind in (Kind.CENTRIFUGO, Kind.PLAIN)


_EXACT = {
    "/connection/websocket": Kind.CENTRIFUGO,
    "/health": Kind.HEALTH,
    "/api/openapi.json": Kind.OPENAPI,
}
_PREFIXES = (("/ws/", Kind.PLAIN), ("/sse/", Kind.EVENTS), ("/api/", Kind.API))


def route_of(path: str, config: Config, *, is_websocket: bool | None = None) -> Route:
    """The route of a path. Raises Rejected where there is nothing of the wanted sort.

    >>> route_of("/sse/news", Config())
    Route(kind=<Kind.EVENTS: 3>, name='news')
    """
    route = _matching(path, config)
    if route is None or is_websocket not in (None, route.is_websocket):
        raise Rejected(404, "there is nothing at this address")
    return route


def _matching(path: str, config: Config) -> Route | None:
    disabled = {Kind.PLAIN: config.websocket.plain_disabled, Kind.EVENTS: config.sse.disabled}
    if path in _EXACT:
        return Route(_EXACT[path])
    for prefix, kind in _PREFIXES:
        name = path.removeprefix(prefix)
        if path.startswith(prefix) and name and not disabled.get(kind, False):
            return Route(kind, name)
    return None


def require(method: str, wanted: str, what: str) -> None:
    """Raise Rejected unless the request has that method."""
    if method != wanted:
        raise Rejected(405, f"{what} with {wanted}", [("Allow", wanted)])
