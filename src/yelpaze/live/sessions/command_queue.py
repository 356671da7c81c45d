"""Clients whose wishes are done one after the other.

While one waits (for Redis, or because the client is over its rate) a few more are kept, then nothing is read
from the connection: whoever is too fast is slowed, not buffered.
"""

from collections import deque
from typing import Any

from yelpaze.live.sessions.client import CLOSED, Client

_KEPT = 16


class TakingTurns(Client):
    """A client that begins the next thing when the last is done; those that inherit say how to begin one."""

    __slots__ = ("_is_busy", "_is_going_on", "_waiting")

    def __init__(self, node: Any, peer: Any) -> None:
        super().__init__(node, peer)
        self._waiting: deque[Any] | None = None
        self._is_busy = False
        self._is_going_on = False

    def take(self, wish: Any) -> None:
        """Begin it, now or when those before it are done."""
        if not self._is_busy:
            self._is_busy = True
            self.begin(wish)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(wish)
        if len(self._waiting) == _KEPT:
            self.peer.pause()

    def begin(self, wish: Any) -> None:
        """Begin it; `done` is called once it is done, maybe before this returns."""
        raise NotImplementedError

    def done(self) -> None:
        """The next may begin."""
        self._is_busy = False
        if self._is_going_on:  # the loop below is what began this one
            return
        self._is_going_on = True
        try:
            while self._waiting and not self._is_busy and self.state != CLOSED:
                wish = self._waiting.popleft()
                if not self._waiting:
                    self._waiting = None
                    self.peer.resume()
                self._is_busy = True
                self.begin(wish)
        finally:
            self._is_going_on = False
