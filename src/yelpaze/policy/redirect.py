"""Where an answer sends us next, and what may travel along.

Each hop is a new pass through limits and time-outs, so libcurl's own following is off.
"""

import msgspec

from yelpaze.model.request import Request
from yelpaze.model.url import join, origin_of, with_userinfo_of

# RFC 9110 §15.4; 300 and 304 name no single next place.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
_BODY_FIELDS = frozenset({"content-type", "content-encoding", "content-language"})


def is_redirect(status: int, location: str | None) -> bool:
    """Whether the answer is one to follow."""
    return status in _REDIRECTS and bool(location)


def follow(request: Request, url: str, status: int, location: str, secret: frozenset[str]) -> Request:
    """The request of the next hop; raise MisuseError if the place cannot be called.

    `url` is where the answer came from. Across origins (scheme, host or port) credentials
    stay behind: the well-known ones, the headers named in `secret` (lower case), those
    of the URL itself, and the request's own TLS settings. A POST becomes a GET on 301 and 302 as every
    browser does, and anything but HEAD does on 303 (RFC 9110 §15.4.2 to §15.4.4); 307 and 308
    keep method and body.
    """
    target = join(url, location)
    headers, tls = request.headers, request.tls
    if origin_of(target) == origin_of(url):
        target = with_userinfo_of(url, target)
    else:
        headers, tls = _without(headers, _CREDENTIALS | secret | {"host"}), None
    method, body = request.method, request.body
    if (status in (301, 302) and method == "POST") or (status == 303 and method != "HEAD"):  # noqa: PLR2004
        method, body = "GET", None
        headers = _without(headers, _BODY_FIELDS)
    idempotent = request.idempotent if method == request.method else None
    return msgspec.structs.replace(
        request, url=target, method=method, headers=headers, body=body, idempotent=idempotent, tls=tls
    )


def _without(headers: tuple[tuple[str, str], ...], names: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers if name.lower() not in names)
