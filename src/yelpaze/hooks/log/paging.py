"""Lists a page at a time, with Svix's iterators: the id after which the next page begins.

An iterator with a `-` before it asks for the page before that id. An id that begins with one itself has a
`:` before it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from yelpaze.hooks.errors import HooksError
from yelpaze.store.session import Row, Session

MOST = 250


class PageRequest(msgspec.Struct, frozen=True):
    """Which page is asked for."""

    iterator: str | None = None
    limit: int = 50
    descending: bool = False


class Slice(msgspec.Struct, frozen=True):
    """The rows of a page; their first column is the id."""

    rows: list[Row]
    iterator: str | None
    prev_iterator: str | None
    done: bool


def sliced(
    session: Session,
    select: str,
    column: str,
    conditions: Sequence[tuple[str, Sequence[Any]]],
    asked: PageRequest,
) -> Slice:
    """Read a page of `select … FROM …`, ordered by `column`. Raises HooksError for a limit out of bounds."""
    if not 1 <= asked.limit <= MOST:
        raise HooksError(422, "validation", f"takes 1 to {MOST}", ("limit",), where="query")
    backwards = asked.iterator is not None and asked.iterator.startswith("-")
    descending = asked.descending is not backwards
    wheres = list(conditions)
    if asked.iterator:
        place = asked.iterator[1:] if asked.iterator[0] in "-:" else asked.iterator
        wheres.append((f"{column} {'<' if descending else '>'} ?", [place]))
    where = f" WHERE {' AND '.join(text for text, _ in wheres)}" if wheres else ""
    parameters = [value for _, values in wheres for value in values]
    order = f" ORDER BY {column} {'DESC' if descending else 'ASC'} LIMIT ?"
    rows = session.rows(select + where + order, *parameters, asked.limit + 1)
    is_last = len(rows) <= asked.limit
    rows = rows[: asked.limit]
    if backwards:
        rows.reverse()
    return Slice(
        rows=rows,
        iterator=_after(str(rows[-1][0])) if rows else None,
        prev_iterator=f"-{rows[0][0]}" if rows else None,
        done=is_last,
    )


def _after(name: str) -> str:
    return f":{name}" if name.startswith(("-", ":")) else name
