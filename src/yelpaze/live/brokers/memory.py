"""The broker of one process: everything in memory, nothing waits."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from yelpaze.live.brokers.broker import UNUSED_TTL, BrokerEvents, HistoryOptions, Query
from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication

_SWEEP = 30.0
_KEY_TTL = 300.0  # as Centrifugo keeps results of idempotent publications


class _Stream:
    __slots__ = ("ends", "epoch", "forgotten", "offset", "publications")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.offset = 0
        self.publications: deque[Publication] = deque()
        self.ends = 0.0
        self.forgotten = 0.0

    @property
    def position(self) -> Position:
        return Position(self.offset, self.epoch)


class MemoryBroker:
    """For one process: past it, Redis. `clock` gives seconds, `epochs` a new name for each stream."""

    def __init__(self, clock: Callable[[], float], epochs: Callable[[], str]) -> None:
        self._clock = clock
        self._epochs = epochs
        self._streams: dict[str, _Stream] = {}
        self._presence: dict[str, dict[str, ClientInfo]] = {}
        self._results: dict[tuple[str, str], tuple[Position, float]] = {}
        self._events: BrokerEvents
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, events: BrokerEvents) -> None:
        """Nothing to connect to."""
        self._events = events
        self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_again)

    def _sweep_again(self) -> None:
        self.sweep()
        self._sweep_later()

    async def close(self) -> None:
        """Nothing to close but the timer."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def subscribe(self, channel: str) -> None:
        """All is heard anyway."""

    async def unsubscribe(self, channel: str) -> None:
        """Likewise."""

    async def publish(
        self, channel: str, publication: Publication, keep: HistoryOptions | None, idempotency_key: str = ""
    ) -> Position:
        """Keep it if asked to, and pass it on."""
        key = channel, idempotency_key
        known = self._results.get(key) if idempotency_key else None
        if known is not None and known[1] > self._clock():
            return known[0]
        position = Position()
        if keep is not None:
            stream = self._stream(channel, keep.meta_ttl)
            stream.offset += 1
            stream.forgotten = self._clock() + keep.meta_ttl
            stream.ends = self._clock() + keep.ttl
            position = stream.position
            publication = Publication(publication.data, publication.info, position.offset)
            stream.publications.append(publication)
            while len(stream.publications) > keep.size:
                stream.publications.popleft()
        if idempotency_key:
            self._results[key] = position, self._clock() + _KEY_TTL
        self._events.on_publication(channel, publication, position.epoch)
        return position

    def _stream(self, channel: str, meta_ttl: float) -> _Stream:
        """The channel's stream as it stands now."""
        now = self._clock()
        stream = self._streams.get(channel)
        if stream is None or stream.forgotten <= now:
            stream = self._streams[channel] = _Stream(self._epochs())
        stream.forgotten = now + (meta_ttl if stream.offset else min(meta_ttl, UNUSED_TTL))
        if stream.ends <= now:
            stream.publications.clear()
        return stream

    async def history(self, channel: str, query: Query, meta_ttl: float) -> History:
        """Read a stretch."""
        stream = self._stream(channel, meta_ttl)
        if query.limit == 0:
            return History((), stream.position)
        kept = stream.publications
        found = reversed(kept) if query.reverse else iter(kept)
        if query.since is not None:
            offset = query.since.offset
            if query.reverse:
                found = (one for one in found if one.offset < offset)
            else:
                found = islice(kept, max(0, offset + 1 - kept[0].offset) if kept else 0, None)
        limit = None if query.limit < 0 else query.limit
        return History(tuple(islice(found, limit)), stream.position)

    async def remove_history(self, channel: str) -> None:
        """Forget the publications."""
        if channel in self._streams:
            self._streams[channel].publications.clear()

    async def publish_join_leave(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
        """Pass it on."""
        self._events.on_join_leave(channel, info, is_join=is_join)

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:  # noqa: ARG002
        """Note who is there. In one process nobody goes without being removed."""
        self._presence.setdefault(channel, {})[info.client] = info

    async def remove_presence(self, channel: str, client: str) -> None:
        """Note who is gone."""
        there = self._presence.get(channel)
        if there is not None:
            there.pop(client, None)
            if not there:
                del self._presence[channel]

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is there."""
        return dict(self._presence.get(channel, {}))

    async def publish_control(self, message: bytes) -> None:
        """There is one node."""
        self._events.on_control(message)

    def sweep(self) -> None:
        """Forget what has expired."""
        now = self._clock()
        for channel, stream in list(self._streams.items()):
            if stream.forgotten <= now:
                del self._streams[channel]
            elif stream.ends <= now:
                stream.publications.clear()
        self._results = {key: known for key, known in self._results.items() if known[1] > now}
