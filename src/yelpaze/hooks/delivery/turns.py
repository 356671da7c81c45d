"""The order in which endpoints start attempts."""

from collections import deque
from collections.abc import Callable, Iterator

from yelpaze.hooks.delivery.queue import EndpointQueue


class Turns:
    """Endpoints in line: those that are proven, and the others, by turns.

    Those that are not proven have their turn only while there is room for them: so that however many wait, a
    turn looks at none of them.
    """

    def __init__(self, has_room_for_suspects: Callable[[], bool]) -> None:
        self._has_room_for_suspects = has_room_for_suspects
        self._proven: deque[EndpointQueue] = deque()
        self._suspects: deque[EndpointQueue] = deque()
        self._was_suspects_turn = False

    def __iter__(self) -> Iterator[EndpointQueue]:
        yield from self._proven
        yield from self._suspects

    def join(self, queue: EndpointQueue) -> None:
        """Get in line."""
        queue.is_active = True
        (self._proven if queue.is_proven else self._suspects).append(queue)

    def next(self) -> EndpointQueue | None:
        """Remove the next endpoint from the line and return it; None if none may start now."""
        may_be_suspect = bool(self._suspects) and self._has_room_for_suspects()
        self._was_suspects_turn = may_be_suspect and (not self._was_suspects_turn or not self._proven)
        line = self._suspects if self._was_suspects_turn else self._proven
        if not line:
            return None
        queue = line.popleft()
        queue.is_active = False
        return queue
