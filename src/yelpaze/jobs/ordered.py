"""Results in the order of the rows."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from yelpaze.flow.execution import RowExecution
from yelpaze.flow.failure import Failure
from yelpaze.flow.runner import RowConsumer


class InOrder:
    """A RowConsumer that passes the ends of rows on in the order in which the rows started."""

    def __init__(self, consumer: RowConsumer) -> None:
        self._consumer = consumer
        self._order: deque[int] = deque()
        self._ended: dict[int, tuple[RowExecution, Any, Failure | None]] = {}

    def begin(self, number: int) -> Mapping[int, Any] | None:
        self._order.append(number)
        return self._consumer.begin(number)

    def end(self, row: RowExecution, value: Any, failure: Failure | None) -> None:
        self._ended[row.number] = (row, value, failure)
        while self._order and self._order[0] in self._ended:
            self._consumer.end(*self._ended.pop(self._order.popleft()))
