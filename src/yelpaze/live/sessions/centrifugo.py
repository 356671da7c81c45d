"""Centrifugo's client protocol in JSON: commands in, replies and pushes out, one a line.

    {"id":1,"connect":{…}}  {"id":2,"subscribe":{…}} …     each gets {"id":…,"<method>":{…}} or an error
    {}                                                     a ping from us, a pong from the client

Commands of a client are done one after the other. While one waits (for Redis, or because the client is over
its rate) a few more are kept, then nothing is read from the connection: whoever is too fast is slowed, not
buffered.
"""

from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from yelpaze.live.brokers.broker import BrokerAwayError, Query
from yelpaze.live.core import eager
from yelpaze.live.core.stream import Joined, Membership
from yelpaze.live.core.tokens import Claims
from yelpaze.live.protocol import encoding as framing
from yelpaze.live.protocol.codes import (
    BAD_COMMAND,
    INSUFFICIENT_STATE,
    INTERNAL,
    METHOD_NOT_FOUND,
    PERMISSION_DENIED,
    SERVER_ERROR,
    SUBSCRIPTION_EXPIRED,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBED_EXPIRED,
    UNSUBSCRIBED_INSUFFICIENT,
    Ended,
    Ending,
    Failure,
    Refused,
)
from yelpaze.live.protocol.messages import (
    ChannelRequest,
    Command,
    ConnectRequest,
    ConnectResult,
    HistoryRequest,
    HistoryResult,
    Nothing,
    PresenceStatsResult,
    PublishRequest,
    RefreshRequest,
    RefreshResult,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    decode,
    stats_of,
    told,
)
from yelpaze.live.protocol.values import on_one_line
from yelpaze.live.sessions.client import CLOSED, CONNECTED, NEW, Asked
from yelpaze.live.sessions.command_queue import TakingTurns
from yelpaze.version import __version__

PING: Final = b"{}"
_encode = msgspec.json.encode
_MOST_IN_A_FRAME = 1000  # a library that comes back sends its subscriptions in one
_REJECT_UNRECOVERED = 2  # bit of `flag`: rather fail than go on with a gap

_AGAIN: Final = {
    UNSUBSCRIBED_INSUFFICIENT: INSUFFICIENT_STATE,
    UNSUBSCRIBED_EXPIRED: SUBSCRIPTION_EXPIRED,
}


class CentrifugoSession(TakingTurns):
    """A client that speaks Centrifugo's protocol."""

    __slots__ = ("_is_refused", "_outbox")

    def __init__(self, node: Any, peer: Any) -> None:
        super().__init__(node, peer)
        self._outbox: list[bytes] | None = None
        self._is_refused = False  # to connect: the rest of what came with that is left

    def receive(self, message: bytes) -> None:
        """Take a message: commands, one a line."""
        lines = message.split(b"\n")
        if len(lines) > _MOST_IN_A_FRAME:
            self._break_off(BAD_COMMAND)
            return
        self._outbox = []
        for line in lines:
            if line == PING:
                self.peer.ponged()
            elif line and self.state != CLOSED:
                self._take(line)
        self._flush()

    def _take(self, line: bytes) -> None:
        try:
            command = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._break_off(BAD_COMMAND)
            return
        self.take(command)

    def _is_sound(self, command: Command) -> bool:
        methods = command.methods()
        if command.id <= 0:
            return methods == ["send"] and self.state == CONNECTED
        if len(methods) > 1:
            return False
        return self.state == CONNECTED or methods == ["connect"]

    def begin(self, wish: Command) -> None:
        """Begin a command; maybe it is done at once."""
        if self._is_refused and wish.connect is None:
            self.done()
            return
        if not self._is_sound(wish):
            self._break_off(BAD_COMMAND)
            return
        self._is_refused = False
        eager.start(
            self._answer(wish),
            lambda reply: self._done(wish, reply),
            lambda error: self._failed(wish, error),
        )

    async def _answer(self, command: Command) -> tuple[str, Any]:
        limit = self.node.config.client.command_rate_limit
        if limit and self.state == CONNECTED:
            await self.held_to(limit)
        methods = command.methods()
        if not methods:
            raise Refused(METHOD_NOT_FOUND)
        (name,) = methods
        work: Coroutine[Any, Any, Any] = getattr(self, f"_{name}")(getattr(command, name))
        return name, await work

    def _done(self, command: Command, reply: tuple[str, Any]) -> None:
        name, value = reply
        self.node.statistics.commands[name] += 1
        if command.id:
            self._say(b'{"id":%d,"%b":%b}' % (command.id, name.encode(), _encode(value)))
        if name == "connect":
            self.peer.release()
        self.done()

    def _failed(self, command: Command, error: Exception) -> None:
        if isinstance(error, Ended):
            self._break_off(error.ending)
        elif isinstance(error, Refused):
            self._refuse(command, error.failure)
        elif isinstance(error, BrokerAwayError):
            self._refuse(command, INTERNAL)
        else:
            self.node.defect(error)
            self._break_off(SERVER_ERROR)

    def _refuse(self, command: Command, failure: Failure) -> None:
        self.node.statistics.refused[failure.code] += 1
        self._say(b'{"id":%d,"error":%b}' % (command.id, _encode(failure)))
        if command.connect is not None and self.state == CONNECTED:  # it is half in: it comes again
            self._break_off(SERVER_ERROR)
        else:
            self._is_refused = command.connect is not None
            self.done()

    # What is said while a message is being taken goes out as one.

    def _say(self, message: bytes) -> None:
        if self._outbox is not None:
            self._outbox.append(message)
        elif self.state != CLOSED:
            self.peer.send(message)

    def _break_off(self, ending: Ending) -> None:
        """End it, after what was said."""
        self._flush()
        self.peer.end(ending)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox and self.state != CLOSED:
            self.peer.send(b"\n".join(outbox))

    # ── commands ────────────────────────────────────────────────────────────────

    async def _connect(self, asked: ConnectRequest) -> ConnectResult:
        if self.state != NEW:
            raise Ended(BAD_COMMAND)
        claims = await self.connect(asked.token)
        self.peer.greeted()
        self.peer.hold()  # until the reply: what is published in the first channel while the last is joined
        subs = {}
        for channel, said in self._own_channels(claims).items():
            recovering = asked.subs.get(channel)
            options = self.node.rules.options(channel)
            how = self._membership(options, Asked(), said)
            how = msgspec.structs.replace(how, is_server_side=True)
            joined, _ = await self.join(channel, options, how, recovering.since if recovering else None)
            subs[channel] = told(joined, how, self.node.now())
        ping = self.node.config.client.ping_interval
        return ConnectResult(
            client=self.id,
            version=f"Yelpaze {__version__}",
            subs=subs,
            expires=self.expire_at > 0,
            ttl=self._ttl(self.expire_at),
            ping=int(ping),
            pong=ping > 0,
            session=self.id,
            node=self.node.uid,
        )

    def _own_channels(self, claims: Claims) -> dict[str, Claims]:
        """Where the gateway subscribes it by itself, and how."""
        channels = dict(claims.channels)
        personal = self.node.config.client.subscribe_to_user_personal_channel
        if personal.enabled and self.user:
            name = self.node.rules.personal(self.user, personal.personal_channel_namespace)
            channels.setdefault(name, Claims())
        return channels

    def _ttl(self, expire_at: int) -> int:
        return max(0, int(expire_at - self.node.now())) if expire_at else 0

    async def _subscribe(self, asked: SubscribeRequest) -> SubscribeResult:
        wanted = Asked(asked.token, asked.since, asked.positioned, asked.recoverable, asked.join_leave)
        joined, how = await self.subscribe(asked.channel, wanted)
        if joined.recovered is False and asked.flag & _REJECT_UNRECOVERED:
            self.unsubscribe(asked.channel)
            raise Refused(UNRECOVERABLE_POSITION)
        return told(joined, how, self.node.now())

    async def _unsubscribe(self, asked: ChannelRequest) -> Nothing:
        self.unsubscribe(asked.channel)
        return Nothing()

    async def _publish(self, asked: PublishRequest) -> Nothing:
        await self.publish(asked.channel, on_one_line(asked.data))
        return Nothing()

    async def _history(self, asked: HistoryRequest) -> HistoryResult:
        found = await self.history(asked.channel, Query(asked.since, asked.limit, asked.reverse))
        return HistoryResult(found.publications, found.position.epoch, found.position.offset)

    async def _presence(self, asked: ChannelRequest) -> dict[str, Any]:
        return {"presence": await self.presence(asked.channel)}

    async def _presence_stats(self, asked: ChannelRequest) -> PresenceStatsResult:
        return stats_of(await self.presence(asked.channel))

    async def _refresh(self, asked: RefreshRequest) -> RefreshResult:
        if not asked.token:
            raise Ended(BAD_COMMAND)
        await self.refresh(asked.token)
        return RefreshResult(
            client=self.id,
            version=f"Yelpaze {__version__}",
            expires=self.expire_at > 0,
            ttl=self._ttl(self.expire_at),
        )

    async def _sub_refresh(self, asked: SubRefreshRequest) -> RefreshResult:
        if not asked.channel or not asked.token:
            raise Ended(BAD_COMMAND)
        claims = await self.subscription_claims(asked.channel, asked.token)
        how = self.node.hub.membership(self.peer, asked.channel)
        if how is None:
            raise Refused(PERMISSION_DENIED)
        how = msgspec.structs.replace(how, expire_at=claims.expire_at)
        self.node.hub.change(self.peer, asked.channel, how)
        if how.expire_at:
            self.node.wheel.put(self, 0)
        return RefreshResult(expires=how.expire_at > 0, ttl=self._ttl(how.expire_at))

    async def _ping(self, _: Nothing) -> Nothing:
        return Nothing()

    async def _rpc(self, _: Nothing) -> Nothing:
        raise Refused(METHOD_NOT_FOUND)

    async def _send(self, _: Nothing) -> Nothing:
        return Nothing()  # messages without a reply have nobody here who takes them

    # ── what the gateway says by itself ─────────────────────────────────────────

    def _push(self, channel: str, name: str, value: Any) -> None:
        self._say(framing.pushed(channel, name, value))

    def unsubscribe(self, channel: str) -> bool:
        """Take it out of a channel; whether it was in."""
        if self._outbox:  # before what its channels still have for it
            self._flush()
            self._outbox = []
        return super().unsubscribe(channel)

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """Take it out of a channel, and say so.

        What the gateway has subscribed by itself, a client does not subscribe again: it is to connect again.
        """
        how = self.node.hub.membership(self.peer, channel)
        if how is not None and how.is_server_side and ending in _AGAIN:
            self._break_off(_AGAIN[ending])
        elif self.unsubscribe(channel):
            self._push(channel, "unsubscribe", ending)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It was put into a channel; its right was another's."""
        self._push(channel, "subscribe", told(joined, how, self.node.now()))

    def insufficient(self, channel: str) -> None:
        """It has missed something: it subscribes again, with what it last had."""
        self.unsubscribed(channel, UNSUBSCRIBED_INSUFFICIENT)
