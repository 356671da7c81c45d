"""Commands of one client, run one after the other.

While one waits (for Redis, or because the client is over its rate) a few more are kept; then the connection
is not read any more: a client that is too fast is slowed down, not buffered.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from yelpaze.live.sessions.connection import ClientConnection

_KEPT = 16


class CommandQueue:
    """Calls `begin(command)` for each command, once `done` was called for the one before.

    `done` may be called from within `begin`.
    """

    __slots__ = ("_begin", "_connection", "_is_draining", "_waiting", "is_busy")

    def __init__(self, connection: ClientConnection, begin: Callable[[Any], None]) -> None:
        self._connection = connection
        self._begin = begin
        self._waiting: deque[Any] | None = None
        self._is_draining = False
        self.is_busy = False

    def take(self, command: Any) -> None:
        """Begin it, now or when those before it are done."""
        if not self.is_busy:
            self.is_busy = True
            self._begin(command)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(command)
        if len(self._waiting) == _KEPT:
            self._connection.pause()

    def done(self) -> None:
        """The command under way is done: begin the next one."""
        self.is_busy = False
        if self._is_draining:  # the loop below began this one
            return
        self._is_draining = True
        try:
            while self._waiting and not self.is_busy:
                command = self._waiting.popleft()
                if not self._waiting:
                    self._waiting = None
                    self._connection.resume()
                self.is_busy = True
                self._begin(command)
        finally:
            self._is_draining = False

    def close(self) -> None:
        """Begin no more."""
        self._waiting = None
