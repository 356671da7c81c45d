"""A request to one of our APIs that is refused."""

from yelpaze.model.errors import MisuseError


class ApiError(MisuseError):
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
