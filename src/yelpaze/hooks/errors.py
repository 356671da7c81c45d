"""Errors of the API, in Svix's form: a status, a code, and what to do.

400 bad_request     401 authentication_failed     404 not_found     409 conflict
413 payload_too_large     422 a field is wrong     429 rate_limited     503 unavailable
"""

from yelpaze.model.api_error import ApiError


class HooksError(ApiError):
    """A request that is refused; nothing was done. See `ApiError`."""


def invalid(field: str, detail: str) -> HooksError:
    """A field of the body is wrong. Dots separate names within it."""
    return HooksError(422, "validation", detail, tuple(field.split(".")))


def not_found(what: str) -> HooksError:
    """There is no such thing, or it is not the caller's."""
    return HooksError(404, "not_found", f"there is no such {what}")


def conflict(detail: str) -> HooksError:
    """Another thing has that name already."""
    return HooksError(409, "conflict", detail)
