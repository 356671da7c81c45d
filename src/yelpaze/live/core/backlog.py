"""What waits for a connection that reads too slowly; it exists only while one does."""

from collections import deque
from collections.abc import Callable
from typing import Any

from yelpaze.live.core.stream import Writer

_REPLY = ""  # no channel has this name: replies are never dropped
_MANY = 64
OVERHEAD = 100  # bytes that an entry takes beside its frame, whatever is in it


class _Entry:
    __slots__ = ("frame", "is_droppable")

    def __init__(self, frame: Any, *, is_droppable: bool) -> None:
        self.frame = frame  # None once it was dropped
        self.is_droppable = is_droppable


class Backlog:
    """Frames in order, at most `limit` bytes of them.

    A channel's policy says what happens when more comes: `close` ends the connection, `drop_oldest` gives
    up the oldest publications of such channels, `latest` keeps only a channel's newest frame, in the place of
    the one before.
    """

    __slots__ = ("_droppable", "_entries", "_latest", "_limit", "_overflow", "_size", "is_paused")

    def __init__(self, limit: int, overflow: Callable[[], None]) -> None:
        self._entries: deque[_Entry] = deque()
        self._droppable: deque[_Entry] = deque()
        self._latest: dict[str, _Entry] = {}
        self._limit = limit
        self._size = 0
        self._overflow = overflow
        self.is_paused = True

    def __len__(self) -> int:
        return sum(entry.frame is not None for entry in self._entries)

    def add(self, frame: Any, channel: str = _REPLY, policy: str = "close") -> None:
        """Keep it, by the policy."""
        self._size += _size(frame)
        entry = self._latest.get(channel) if policy == "latest" else None
        if entry is not None and entry.frame is not None:
            self._size -= _size(entry.frame)
            entry.frame = frame
        else:
            self._append(_Entry(frame, is_droppable=policy == "drop_oldest"), channel, policy)
        while self._size > self._limit and self._droppable:
            self._drop(self._droppable.popleft())
        if self._size > self._limit:
            self._overflow()

    def _append(self, entry: _Entry, channel: str, policy: str) -> None:
        self._entries.append(entry)
        if policy == "latest":
            self._latest[channel] = entry
        elif policy == "drop_oldest":
            self._droppable.append(entry)

    def _drop(self, entry: _Entry) -> None:
        self._size -= _size(entry.frame)
        entry.frame = None
        while self._entries and self._entries[0].frame is None:
            self._entries.popleft()
        if len(self._entries) > 2 * len(self._droppable) + _MANY and len(self._entries) > 2 * len(self):
            self._entries = deque(one for one in self._entries if one.frame is not None)

    def drain(self, transport: Writer) -> bool:
        """Write until it is paused again; whether all is written."""
        self.is_paused = False
        while self._entries and not self.is_paused:
            entry = self._entries.popleft()
            frame, entry.frame = entry.frame, None
            if frame is not None:
                if entry.is_droppable:
                    self._droppable.popleft()
                self._size -= _size(frame)
                transport.write(frame)
        return not self._entries and not self.is_paused


def _size(frame: Any) -> int:
    """Bytes, or characters where a server behind ASGI makes the frames, which come in lists."""
    length: int = sum(map(len, frame)) if isinstance(frame, list) else len(frame)
    return length + OVERHEAD
