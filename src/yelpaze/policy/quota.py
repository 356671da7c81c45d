"""What a host says of its own limits, and how many calls that leaves.

Read, in this order, the first that is there and well formed:

- `RateLimit: "name";r=50;t=30` with `RateLimit-Policy: "name";q=100;w=60` (IETF httpapi,
  draft-ietf-httpapi-ratelimit-headers; structured fields, RFC 9651). Of several, the tightest.
- `X-RateLimit-Remaining` and `X-RateLimit-Reset`, or the draft's older `RateLimit-Remaining`
  and `RateLimit-Reset`. A reset above 10⁹ is a time since 1970, in seconds (GitHub), milliseconds or
  microseconds by its size; a date is a time, too; else it is seconds from now.

Malformed is ignored, and so is a time that is more than a day ahead. Retry-After wins over all of
them, which is the caller's to see to.
"""

import math
from typing import Any

import http_sf
import msgspec

from yelpaze.model.headers import Headers
from yelpaze.policy.retry import retry_after_seconds

_SINCE_1970 = 1e9
_MILLISECONDS, _MICROSECONDS = 1e11, 1e14  # since 1970: from 1973 on, and until the year 5138
_LONGEST_AHEAD = 86_400.0
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
    remaining = _number(headers.get(prefix + "remaining"))
    reset = _reset(headers.get(prefix + "reset"), wall)
    if remaining is None or reset is None:
        return None
    return Quota(int(remaining), min(reset, _LONGEST))


def _reset(value: str | None, wall: float) -> float | None:
    """Seconds from now; None for what makes no sense."""
    number = _number(value)
    if number is None:
        return None if value is None or value.strip().isdigit() else retry_after_seconds(value, wall=wall)
    if number <= _SINCE_1970:
        return number
    if number >= _MICROSECONDS:
        number /= 1e6
    elif number >= _MILLISECONDS:
        number /= 1e3
    ahead = max(0.0, number - wall)
    return ahead if ahead <= _LONGEST_AHEAD else None


def _number(value: str | None) -> float | None:
    # `100, 100;w=60` and "100;w=60" occur: the first number counts.
    text = (value or "").split(",")[0].split(";")[0].strip()
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
