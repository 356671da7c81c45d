"""Rows of a table or query.

Pages are read in the order of a key (`WHERE key > last ORDER BY key LIMIT n`): nothing is held
open on the server, and a run goes on from the last key. So the key must be unique and never null.
"""

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from math import isfinite
from typing import Any

import msgspec

from yelpaze.io.database import Database, Place, Rows, first_line, qualified, quoted
from yelpaze.io.protocol import Block, Row
from yelpaze.io.threads import in_thread
from yelpaze.model.errors import InputError

_PAGE = 1000


class SqlSource:
    """Rows of a table or query as objects, by the columns' names, in the order of the key."""

    coerce = False
    size = None

    def __init__(self, open_database: Callable[[], Database], place: Place) -> None:
        self.position = 0
        self._place = place
        self._database = open_database()
        try:
            self._look(self._database)
        except BaseException:
            self.close()
            raise

    def _look(self, database: Database) -> None:
        place = self._place
        if (place.table is None) == (place.query is None):
            raise InputError(f"{place.shown}: give one of table=NAME and query=SELECT…, and key=COLUMN")
        if place.table is not None:
            self._from = qualified(place.table)
            self._names = database.names_of(f"SELECT * FROM {self._from}")  # noqa: S608  quoted
        else:
            # A line of its own, for a query that ends in a comment.
            self._from = f"({(place.query or '').rstrip('; ')}\n) AS yelpaze_rows"
            self._names = database.names_of(f"SELECT * FROM {self._from}")  # noqa: S608  the user's own
        key = place.key or (place.table and database.primary_key(place.table))
        if key is None:
            raise InputError(
                f"{place.shown}: rows are read in the order of a unique column: name it with key=COLUMN"
            )
        if key not in self._names:
            raise InputError(f"{place.shown}: has no column {key!r}; columns are: {', '.join(self._names)}")
        twice = [name for name in self._names if self._names.count(name) > 1]
        if twice:
            raise InputError(f"{place.shown}: the column {twice[0]!r} is there twice: rename one")
        self._key = key

    def identity(self) -> list[dict[str, Any]] | None:
        place = self._place
        return [
            {
                "database": self._database.shown,
                "table": place.table,
                "query": place.query,
                "key": self._key,
            }
        ]

    def close(self) -> None:
        """Let the database go."""
        self._database.close()

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        number, last = cursor or (0, None)
        self.position = number
        key, place = quoted(self._key), self._names.index(self._key)
        if await in_thread(
            lambda: self._ask(f"SELECT 1 FROM {self._from} WHERE {key} IS NULL LIMIT 1")  # noqa: S608  quoted
        ):
            raise InputError(f"{self._place.shown}: the key {self._key!r} is null in some rows")
        while True:
            page = await in_thread(lambda: self._page(key, last))  # noqa: B023
            keys = [row[place] for row in page]
            for one, other in pairwise(keys):
                if one == other:
                    raise InputError(
                        f"{self._place.shown}: the key {self._key!r} is not unique: {one!r} is there twice"
                    )
            rows: list[Row] = [
                (number + count, None, dict(zip(self._names, row, strict=True)))
                for count, row in enumerate(page[:_PAGE], 1)
            ]
            yield Block((number, last), rows)
            number += len(rows)
            self.position = number
            if len(page) <= _PAGE:
                return
            last = keys[_PAGE - 1]
            self._check(last)

    def _check(self, key: Any) -> None:
        """A cursor must come back from JSON as what the database takes for the same value."""
        is_odd = isinstance(key, bytes) or (isinstance(key, float) and not isfinite(key))
        try:
            msgspec.json.encode(key)
        except TypeError:
            is_odd = True
        if is_odd:
            raise InputError(
                f"{self._place.shown}: the key {self._key!r} cannot hold {key!r}: "
                "give a column of numbers, texts or times"
            )

    def _page(self, key: str, after: Any) -> Rows:
        order = f"ORDER BY {key} LIMIT {_PAGE + 1}"
        if after is None:
            return self._ask(f"SELECT * FROM {self._from} {order}")  # noqa: S608  the user's own query
        database = self._database
        rows, key = database.escaped(self._from), database.escaped(key)
        order = database.escaped(order)
        return self._ask(f"SELECT * FROM {rows} WHERE {key} > {database.marker} {order}", after)  # noqa: S608

    def _ask(self, text: str, *parameters: Any) -> Rows:
        database = self._database
        found: Rows = []

        def work() -> None:
            found[:] = database.query(text, *parameters)

        try:
            database.lasting(work, lambda: False)
        except database.refusals as error:
            raise InputError(f"{self._place.shown}: the query fails: {first_line(error)}") from None
        return found
