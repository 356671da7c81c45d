"""Parts that all operations share: access, pages, bodies, idempotency keys."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import Depends, Query, Request
from starlette.responses import Response

from yelpaze.hooks.context import Access
from yelpaze.hooks.log.idempotency import Key
from yelpaze.hooks.log.paging import PageRequest, Slice
from yelpaze.hooks.values import (
    Page,
)
from yelpaze.web.answers import answer, body_of

T = TypeVar("T", bound=msgspec.Struct)
ROOM = 256 << 10  # bytes of a body, or of one beside its payload
_TWINS = (("throttle_rate", "rate_limit"), ("event_types", "filter_types"))

Limit = Annotated[int, Query(ge=1, le=250)]
Iterator = Annotated[str | None, Query(max_length=300)]
Order = Annotated[Literal["ascending", "descending"] | None, Query()]
Words = Annotated[str | None, Query(max_length=2000)]
Time = Annotated[datetime | None, Query()]


async def access_of(request: Request) -> Access:
    """Return the access that the caller's token gives. Raises HooksError."""
    found: Access = await request.app.state.tokens.access(request)
    return found


Caller = Annotated[Any, Depends(access_of)]


async def _newest_first(limit: Limit = 50, iterator: Iterator = None) -> PageRequest:
    return PageRequest(iterator, limit, descending=True)


async def _oldest_first(limit: Limit = 50, iterator: Iterator = None) -> PageRequest:
    return PageRequest(iterator, limit)


NewestFirst = Annotated[PageRequest, Depends(_newest_first)]
OldestFirst = Annotated[PageRequest, Depends(_oldest_first)]


def given_as(kind: type) -> Any:
    """The request's body as that struct."""
    return Depends(body_of(kind, ROOM))


def key_of(request: Request, access: Access, more: object = "") -> Key | None:
    """The request's idempotency key, within what its token opens; `more` makes it another one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    head = f"{request.method} {request.url.path} {more}\n"
    return Key.of(access.app_id or "all", key, head.encode() + getattr(request.state, "body", b""))


def page_of(found: Slice, out: Callable[[Any], Any]) -> Response:
    """A page as the answer; `out` makes a row what callers see."""
    data = [out(row) for row in found.rows]
    return answer(
        Page(data=data, iterator=found.iterator, prev_iterator=found.prev_iterator, done=found.done)
    )


def as_listed(row: Any) -> Any:
    """A row that is what callers see already."""
    return row[0]


def split_words(words: str | None) -> tuple[str, ...]:
    """A list in the query, separated by commas."""
    return tuple(filter(None, words.split(","))) if words else ()


def as_patch(given: msgspec.Struct, kind: type[T]) -> T:
    """Turn the body of a PUT into a patch that sets all fields."""
    values = {name: getattr(given, name) for name in kind.__struct_fields__ if hasattr(given, name)}
    for name, other in _TWINS:  # two names of one field: the one that is given counts
        if values.get(name, 0) is None and values.get(other) is not None:
            values[name] = msgspec.UNSET
    return kind(**values)
