"""What waits for a connection that reads too slowly; it exists only while one does."""

from collections import deque
from collections.abc import Callable
from typing import Any

from yelpaze.live.stream import Writer

_REPLY = ""  # no channel has this name: replies are never dropped


class Backlog:
    """Frames in order, at most `limit` bytes of them.

    A channel's policy says what happens when more comes: `close` ends the connection, `drop_oldest` gives
    up the oldest publications of such channels, `latest` keeps only a channel's newest frame.
    """

    __slots__ = ("_frames", "_limit", "_overflow", "_size", "is_paused")

    def __init__(self, limit: int, overflow: Callable[[], None]) -> None:
        self._frames: deque[tuple[Any, str, str]] = deque()
        self._limit = limit
        self._size = 0
        self._overflow = overflow
        self.is_paused = True

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Any, channel: str = _REPLY, policy: str = "close") -> None:
        """Keep it, by the policy."""
        if policy == "latest":
            self._forget(lambda kept: kept[1] == channel)
        self._frames.append((frame, channel, policy))
        self._size += _size(frame)
        if policy == "drop_oldest":
            while self._size > self._limit and self._frames[0][2] == "drop_oldest":
                self._size -= _size(self._frames.popleft()[0])
            if self._size > self._limit:  # behind what is never dropped
                self._forget(lambda kept: kept[2] == "drop_oldest", until=self._limit)
        if self._size > self._limit:
            self._overflow()

    def _forget(self, chosen: Callable[[tuple[Any, str, str]], bool], until: int = 0) -> None:
        kept: deque[tuple[Any, str, str]] = deque()
        for entry in self._frames:
            if self._size > until and chosen(entry):
                self._size -= _size(entry[0])
            else:
                kept.append(entry)
        self._frames = kept

    def drain(self, transport: Writer) -> bool:
        """Write until it is paused again; whether all is written."""
        self.is_paused = False
        while self._frames and not self.is_paused:
            frame, _, _ = self._frames.popleft()
            self._size -= _size(frame)
            transport.write(frame)
        return not self._frames and not self.is_paused


def _size(frame: Any) -> int:
    """Bytes, or characters where a server behind ASGI makes the frames, which come in lists."""
    return sum(map(len, frame)) if isinstance(frame, list) else len(frame)
