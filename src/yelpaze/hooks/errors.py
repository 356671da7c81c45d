"""Errors of the API, in Svix's form: a status, a code, and what to do.

400 bad_request     401 authentication_failed     404 not_found     409 conflict
413 payload_too_large     422 a field is wrong     429 rate_limited     503 unavailable
"""

from yelpaze.model.errors import MisuseError


class HooksError(MisuseError):
    """A request that is refused; nothing was done.

    Attributes:
        status: HTTP status.
        code: A name for programs.
        detail: What is wrong, for people.
        field: Where in the request's body, as `("url",)`; empty if it is no single field.
        where: What has the field: `body`, `query` or `header`.
        retry_after: Seconds until it may be tried again, if that helps.

    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: tuple[str, ...] = (),
        retry_after: float | None = None,
        where: str = "body",
    ) -> None:
        self.where = where
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        super().__init__(f"{'.'.join(field)}: {detail}" if field else detail)


def invalid(field: str, detail: str) -> HooksError:
    """A field of the body is wrong. Dots separate names within it."""
    return HooksError(422, "validation", detail, tuple(field.split(".")))


def not_found(what: str) -> HooksError:
    """There is no such thing, or it is not the caller's."""
    return HooksError(404, "not_found", f"there is no such {what}")


def conflict(detail: str) -> HooksError:
    """Another thing has that name already."""
    return HooksError(409, "conflict", detail)
