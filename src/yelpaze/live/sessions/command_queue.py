"""Commands of one client, run one after the other.

While one waits (for Redis, or because the client is over its rate) a few more are kept; then the connection
is not read any more: a client that is too fast is slowed down, not buffered.
"""

from collections import deque
from typing import Any, Protocol

from yelpaze.live.sessions.client import Client

_KEPT = 16


class CommandRunner(Protocol):
    """A session that runs commands."""

    client: Client

    def begin(self, command: Any) -> None:
        """Begin a command; call the queue's `done` at its end."""


class CommandQueue:
    """Calls the session's `begin(command)` for each command, once `done` was called for the one before.

    `done` may be called from within `begin`.
    """

    __slots__ = ("_is_draining", "_session", "_waiting", "is_busy")

    def __init__(self, session: CommandRunner) -> None:
        self._session = session
        self._waiting: deque[Any] | None = None
        self._is_draining = False
        self.is_busy = False

    def take(self, command: Any) -> None:
        """Begin it, now or when those before it are done."""
        if not self.is_busy:
            self.is_busy = True
            self._session.begin(command)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(command)
        if len(self._waiting) == _KEPT:
            self._session.client.connection.pause()

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
                    self._session.client.connection.resume()
                self.is_busy = True
                self._session.begin(command)
        finally:
            self._is_draining = False

    def close(self) -> None:
        """Begin no more."""
        self._waiting = None
