"""The result of one row of `Flow.stream` or `Flow.run`."""

from typing import Any

import msgspec

from yelpaze.flow.failure import Failure


class Result(msgspec.Struct, frozen=True):
    """A row's number (from 1), the row itself, and its value or failure."""

    row: int
    input: Any
    value: Any
    failure: Failure | None

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.failure is None
