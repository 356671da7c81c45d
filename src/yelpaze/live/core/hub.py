"""Who listens to what on this node, and the way of a publication to them.

    broker ──published──→ is it the next one? ──→ Stream.unsent ──at the turn's end──→ one write a member

A stream with history has a position: the last publication that its members were given. All of a channel's
members on a node get the same publications in the same order, so one position serves them all, and a member
costs no more than an entry in a dict. What comes twice is dropped; where one is missing, those after it are
held until the gap has been read from history; if it is not there any more, the members are told to recover
(`insufficient`).

A member that joins with a position of its own gets what it missed from history. From before that is read
until it is in, publications are also noted for it, so that none falls between.
"""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from yelpaze.live.brokers.broker import Broker, BrokerUnavailable, Query
from yelpaze.live.config import ChannelOptions
from yelpaze.live.core.stream import Joined, Member, Membership, Stream
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import ALREADY_SUBSCRIBED, INTERNAL, Refused
from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication

_ROUNDS = 3  # of reading what was missed while more comes in
_ALL = -1


class Hub:
    """All streams of a node."""

    def __init__(
        self,
        broker: Broker,
        *,
        soon: Callable[[Callable[[], None]], Any],
        background: Callable[[Coroutine[Any, Any, None]], Any],
        clock: Callable[[], float],
        recovery_limit: int = 300,
    ) -> None:
        self._broker = broker
        self._soon = soon
        self._background = background
        self._clock = clock
        self._recovery_limit = recovery_limit or _ALL
        self.streams: dict[str, Stream] = {}
        self._dirty: list[Stream] = []
        self._outages = 0
        self.subscriptions = 0
        self.delivered = 0
        self.missed = 0

    # ── members come and go ─────────────────────────────────────────────────────

    async def join(
        self,
        member: Member,
        name: str,
        options: ChannelOptions,
        meta_ttl: float,
        how: Membership,
        since: Position | None = None,
    ) -> Joined:
        """Add a member. Raises Refused, BrokerUnavailable; then it is not in."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = Stream(name, options, meta_ttl)
        if stream.joining is None:
            stream.joining = {}
        if member in stream.joining or member in stream.members:
            raise Refused(ALREADY_SUBSCRIBED)
        noted = stream.joining[member] = []
        try:
            await self._attached(stream)
            joined = Joined()
            if options.has_history:
                joined = await self._recovered(stream, noted, since)
            self._send(stream)  # those before it get what is theirs, it begins after that
            stream.members[member] = how
            self.subscriptions += 1
        finally:
            del stream.joining[member]
            if not stream.joining:
                stream.joining = None
            self._drop_if_unused(stream)
        return joined

    async def _attached(self, stream: Stream) -> None:
        """Wait until the broker sends us the channel; the first one asks for it."""
        if stream.attaching is not None:
            await stream.attaching
            return
        attaching = stream.attaching = asyncio.get_running_loop().create_future()
        try:
            await self._broker.subscribe(stream.name)
        except BaseException as error:
            stream.attaching = None
            attaching.set_exception(error if isinstance(error, Exception) else BrokerUnavailable())
            attaching.exception()  # it is heard, even if nobody else waits
            raise
        attaching.set_result(None)

    async def _recovered(self, stream: Stream, noted: list[Publication], since: Position | None) -> Joined:
        """Bring stream and new member to one position."""
        if stream.catching_up is not None:
            await stream.catching_up
        if not stream.epoch:
            await self._find_position(stream)
        if since is None:
            return Joined(stream.position)
        if since == stream.position:
            return Joined(stream.position, (), recovered=True)
        for _ in range(_ROUNDS):
            begun = stream.position
            history = await self._read(stream, since, self._recovery_limit)
            if not self._is_behind(history.position, begun):
                break
        else:
            raise Refused(INTERNAL)
        if history.position.epoch != stream.epoch or history.position.offset > stream.offset:
            await self._catch_up(stream)
            if self._is_behind(stream.position, history.position):
                raise BrokerUnavailable
        after = [one for one in noted if one.offset > history.position.offset]
        whole = History((*history.publications, *after), stream.position)
        recovered = history.position.epoch == stream.epoch and whole.has_all_since(since)
        return Joined(stream.position, whole.publications if recovered else (), recovered=recovered)

    async def _find_position(self, stream: Stream) -> None:
        history = await self._read(stream, None, 0)
        if stream.epoch:  # another one who joined was faster
            return
        stream.offset, stream.epoch = history.position.offset, history.position.epoch
        stream.touched = self._clock()
        held, stream.held = stream.held or [], None
        for publication, epoch in held:
            self.on_publication(stream.name, publication, epoch)

    async def _read(self, stream: Stream, since: Position | None, limit: int) -> History:
        """Read a stretch, and again if the broker was away meanwhile.

        An answer from before says nothing of what nobody heard.
        """
        while True:
            outages = self._outages
            history = await self._broker.history(stream.name, Query(since, limit), stream.meta_ttl)
            if outages == self._outages:
                return history

    @staticmethod
    def _is_behind(found: Position, begun: Position) -> bool:
        """Whether it was read before what the stream already had, as of a replica or an answer shared."""
        return found.epoch == begun.epoch and found.offset < begun.offset

    def leave(self, member: Member, name: str) -> Membership | None:
        """Take a member out; how it was in."""
        stream = self.streams.get(name)
        how = stream.members.pop(member, None) if stream is not None else None
        if stream is not None and how is not None:
            self.subscriptions -= 1
            self._drop_if_unused(stream)
        return how

    def _drop_if_unused(self, stream: Stream) -> None:
        if not stream.members and not stream.joining and self.streams.get(stream.name) is stream:
            del self.streams[stream.name]
            if stream.attaching is not None:
                self._background(self._detach(stream.name))

    async def _detach(self, name: str) -> None:
        if name not in self.streams:
            await self._broker.unsubscribe(name)

    def membership(self, member: Member, name: str) -> Membership | None:
        """How a member is in a channel; None if it is not."""
        stream = self.streams.get(name)
        return stream.members.get(member) if stream is not None else None

    def change(self, member: Member, name: str, how: Membership) -> None:
        """Another membership for the same member."""
        self.streams[name].members[member] = how

    # ── what comes from the broker ──────────────────────────────────────────────

    def on_publication(self, name: str, publication: Publication, epoch: str) -> None:
        """A publication has come."""
        stream = self.streams.get(name)
        if stream is None:
            return
        if not publication.offset or not stream.options.has_history:
            self._pass_on(stream, publication)
        elif not stream.epoch or stream.catching_up is not None:
            self._hold(stream, publication, epoch)
        elif epoch != stream.epoch or publication.offset > stream.offset + 1:
            self._hold(stream, publication, epoch)
            self._background(self._catch_up(stream))
        elif publication.offset > stream.offset:
            stream.offset = publication.offset
            stream.touched = self._clock()
            self._pass_on(stream, publication)

    def _hold(self, stream: Stream, publication: Publication, epoch: str) -> None:
        if stream.held is None:
            stream.held = []
        stream.held.append((publication, epoch))

    def _pass_on(self, stream: Stream, publication: Publication) -> None:
        if stream.joining:
            for noted in stream.joining.values():
                noted.append(publication)
        if not stream.unsent:
            self._dirty.append(stream)
            if len(self._dirty) == 1:
                self._soon(self.flush)
        stream.unsent.append(publication)

    def on_join_leave(self, name: str, info: ClientInfo, *, is_join: bool) -> None:
        """A client has come or gone: those who want to know are told."""
        stream = self.streams.get(name)
        if stream is None:
            return
        frames: dict[int, Any] = {}
        for member, how in list(stream.members.items()):
            if how.receives_joins and member.kind in encoding.WITH_PUSHES:
                if member.kind not in frames:
                    frames[member.kind] = encoding.join_leave(member.kind, name, info, is_join=is_join)
                self.write(member, frames[member.kind], stream)

    # ── gaps ────────────────────────────────────────────────────────────────────

    async def _catch_up(self, stream: Stream) -> None:
        """Read what the stream has missed; those who came after wait for it."""
        if stream.catching_up is not None:
            await stream.catching_up
            return
        stream.catching_up = asyncio.get_running_loop().create_future()
        try:
            for _ in range(_ROUNDS):
                history = await self._read(stream, stream.position, _ALL)
                self._close_gap(stream, history)
                if not self._release(stream):
                    break
        except BrokerUnavailable:
            stream.held = None  # it is read again when the broker is back
        finally:
            done, stream.catching_up = stream.catching_up, None
            done.set_result(None)

    def _close_gap(self, stream: Stream, history: History) -> None:
        before, found = stream.position, history.position
        if self._is_behind(found, before):
            return
        if found.epoch != before.epoch:
            self._send(stream)  # what came before is of the epoch before
        stream.offset, stream.epoch = found.offset, found.epoch
        stream.touched = self._clock()
        if not before.epoch:
            return
        if history.has_all_since(before):
            for publication in history.publications:
                self._pass_on(stream, publication)
            return
        self.missed += 1
        self._send(stream)
        for member, how in list(stream.members.items()):
            if how.is_positioned:
                member.insufficient(stream.name)

    def _release(self, stream: Stream) -> bool:
        """Pass on what was held, as far as it follows; whether something is missing still."""
        held, stream.held = stream.held or [], None
        for number, (publication, epoch) in enumerate(held):
            if epoch != stream.epoch or publication.offset > stream.offset + 1:
                stream.held = held[number:]
                return True
            if publication.offset == stream.offset + 1:
                stream.offset = publication.offset
                self._pass_on(stream, publication)
        return False

    def compare_all(self) -> None:
        """The broker was away: every position may be behind."""
        self._outages += 1
        for stream in list(self.streams.values()):
            if stream.options.has_history and stream.epoch:
                self._background(self._catch_up(stream))

    def compare_old(self, delay: float, most: int) -> None:
        """Compare the positions that nothing has confirmed for so long, at most so many at once."""
        before = self._clock() - delay
        old = (
            stream
            for stream in self.streams.values()
            if stream.epoch and stream.touched <= before and stream.catching_up is None
        )
        for stream in list(islice(old, most)):
            self._background(self._catch_up(stream))

    # ── the way out ─────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write what has come in this turn of the loop."""
        dirty, self._dirty = self._dirty[::-1], []
        try:
            while dirty:
                self._send(dirty.pop())
        finally:
            if dirty:  # a defect in one channel does not hold up the others
                self._dirty = [*dirty[::-1], *self._dirty]
                self._soon(self.flush)

    def _send(self, stream: Stream) -> None:
        """One write for each member, whatever the number of publications."""
        found = stream.unsent
        if not found:
            return
        stream.unsent = []
        name, epoch = stream.name, stream.epoch
        frames: list[Any] = [None] * encoding.KINDS
        slow: list[tuple[Member, Any]] = []
        for member in stream.members:
            kind = member.kind
            frame = frames[kind]
            if frame is None:
                frame = frames[kind] = encoding.publications(kind, name, found, epoch)
            if member.backlog is None:
                member.transport.write(frame)
            else:
                slow.append((member, frame))
        for member, frame in slow:  # may end it, which takes it out of the dict
            self.write(member, frame, stream)
        self.delivered += len(stream.members) * len(found)

    @staticmethod
    def write(member: Member, frame: Any, stream: Stream) -> None:
        """Write to one, or keep it by the channel's policy."""
        if member.backlog is None:
            member.transport.write(frame)
        else:
            member.backlog.add(frame, stream.name, stream.options.slow_consumer)
