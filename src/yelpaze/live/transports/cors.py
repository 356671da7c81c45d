"""What lets pages of other origins read our answers (Fetch standard, section 3.3, "CORS protocol").

Pages of `client.allowed_origins` may read every answer, refusals too, except those of the server API: its key
is not for browsers. An origin that is listed may send credentials (`withCredentials`), since a proxy before
us may want its cookie; with `*` alone none may, as Fetch does not take `*` for an answer to credentials.
"""

from collections.abc import Sequence
from typing import Final

from yelpaze.live.protocol.handshake import Request, allows_origin, check_origin
from yelpaze.live.transports.routes import READ_METHODS

_SECONDS: Final = "7200"  # the most that Chromium keeps a preflight's answer


def cors(request: Request, allowed: Sequence[str]) -> list[tuple[str, str]]:
    """The headers of an answer. Also without an Origin it varies by it, for caches (section 3.3.5)."""
    if request.path.startswith("/api/"):
        return []
    origin = request.headers.get("origin")
    listed = [pattern for pattern in allowed if pattern != "*"]
    if origin is not None and allows_origin(request, listed):
        lets = [("Access-Control-Allow-Origin", origin)]
        if origin != "null":  # that is anybody: any page can open a sandboxed frame
            lets.append(("Access-Control-Allow-Credentials", "true"))
    elif "*" in allowed:
        lets = [("Access-Control-Allow-Origin", "*")]
    else:
        return [("Vary", "Origin")]
    return [*lets, ("Access-Control-Expose-Headers", "Retry-After"), ("Vary", "Origin")]


def options(request: Request, allowed: Sequence[str]) -> list[tuple[str, str]]:
    """The headers of the answer to OPTIONS where something is read. Raises Rejected for a foreign origin.

    A preflight (section 3.2.2) is allowed whatever headers it asks for: those that we do not read do no harm.
    They are named, as `*` means nothing to requests with credentials.
    """
    check_origin(request, allowed)
    lets = cors(request, allowed)
    answer = [("Allow", READ_METHODS), *lets]
    if lets and "access-control-request-method" in request.headers:
        answer += [("Access-Control-Allow-Methods", READ_METHODS), ("Access-Control-Max-Age", _SECONDS)]
        names = request.headers.get("access-control-request-headers", "")
        answer += [("Access-Control-Allow-Headers", names)] if names else []
    return answer
