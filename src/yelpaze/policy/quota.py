"""What a host says of its own limits, and how many calls that leaves.

Read, in this order, the first that is there and well formed:

- `RateLimit: "name";r=50;t=30` with `RateLimit-Policy: "name";q=100;w=60` (IETF httpapi,
  draft-ietf-httpapi-ratelimit-headers; structured fields, RFC 9651). Of several, the tightest.
- `X-RateLimit-Remaining` and `X-RateLimit-Reset`, or the draft's older `RateLimit-Remaining`
  and `RateLimit-Reset`. A reset above 10⁹ is a time since 1970 (GitHub), else seconds from now.

Malformed is ignored. Retry-After wins over all of them, which is the caller's to see to.
"""

import math
from typing import Any

import http_sf
import msgspec

from yelpaze.model.headers import Headers

_SINCE_1970 = 1e9
# A host can't stop us for longer than this by these fields.
_LONGEST = 3600.0


class Quota(msgspec.Struct, frozen=True):
    """`remaining` requests for the next `reset` seconds."""

    remaining: int
    reset: float


def read_quota(headers: Headers, *, wall: float) -> Quota | None:
    """Read an answer's fields; `wall` is the time in seconds since 1970."""
    quota = _structured(headers.get("ratelimit"), headers.get("ratelimit-policy"))
    if quota is None:
        quota = _older(headers, "x-ratelimit-", wall) or _older(headers, "ratelimit-", wall)
    return quota


def _structured(limits: str | None, policies: str | None) -> Quota | None:
    windows: dict[str, Any] = {name: parameters.get("w") for name, parameters in _items(policies)}
    found = []
    for name, parameters in _items(limits):
        remaining: Any = parameters.get("r")
        reset: Any = parameters.get("t", windows.get(name))
        if _is_count(remaining) and _is_count(reset):
            found.append(Quota(remaining, min(float(reset), _LONGEST)))
    return min(found, key=lambda quota: (quota.remaining, -quota.reset), default=None)


def _items(field: str | None) -> list[tuple[str, dict[str, Any]]]:
    if not field:
        return []
    try:
        parsed: Any = http_sf.parse(field.encode("latin-1"), tltype="list")
    except (ValueError, UnicodeEncodeError):
        return []
    # Drafts differ on whether the name is a string or a token; an inner list is neither.
    return [(str(item), parameters) for item, parameters in parsed if not isinstance(item, list)]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _older(headers: Headers, prefix: str, wall: float) -> Quota | None:
    remaining, reset = _number(headers.get(prefix + "remaining")), _number(headers.get(prefix + "reset"))
    if remaining is None or reset is None:
        return None
    if reset > _SINCE_1970:
        reset = max(0.0, reset - wall)
    return Quota(int(remaining), min(reset, _LONGEST))


def _number(value: str | None) -> float | None:
    # `100, 100;w=60` and "100;w=60" occur: the first number counts.
    text = (value or "").split(",")[0].split(";")[0].strip()
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
