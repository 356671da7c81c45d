"""Centrifugo's client protocol in JSON: commands in, replies and pushes out, one a line.

    {"id":1,"connect":{…}}  {"id":2,"subscribe":{…}} …     each gets {"id":…,"<method>":{…}} or an error
    {}                                                     a ping from us, a pong from the client

Commands of a client run one after the other (see `command_queue`).
"""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

import msgspec

from yelpaze.live.brokers.broker import BrokerUnavailable, Query
from yelpaze.live.core import eager
from yelpaze.live.core.node import Node
from yelpaze.live.core.stream import NO_OPTIONS, Joined, Membership, SubscribeOptions
from yelpaze.live.core.tokens import Claims
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import (
    BAD_COMMAND,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    INTERNAL,
    METHOD_NOT_FOUND,
    NO_MESSAGES,
    NOT_AVAILABLE,
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
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    RefreshRequest,
    RefreshResult,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    decode,
)
from yelpaze.live.protocol.values import on_one_line
from yelpaze.live.sessions.client import CLOSED, CONNECTED, NEW, Client
from yelpaze.live.sessions.command_queue import CommandQueue
from yelpaze.live.sessions.connection import ClientConnection
from yelpaze.version import __version__

PING: Final = b"{}"
_encode = msgspec.json.encode
_MOST_IN_A_FRAME = 1000  # a library that comes back sends its subscriptions in one
_REJECT_UNRECOVERED = 2  # bit of `flag`: rather fail than go on with a gap

_AGAIN: Final = {
    UNSUBSCRIBED_INSUFFICIENT: INSUFFICIENT_STATE,
    UNSUBSCRIBED_EXPIRED: SUBSCRIPTION_EXPIRED,
}


class CentrifugoSession:
    """A client that speaks Centrifugo's protocol."""

    is_bound: ClassVar[bool] = False

    __slots__ = ("_connection", "_is_refused", "_node", "_outbox", "_queue", "client")

    def __init__(self, node: Node, connection: ClientConnection) -> None:
        self._node = node
        self._connection = connection
        self.client = Client(node, connection, self)
        self._queue = CommandQueue(self)
        self._outbox: list[bytes] | None = None
        self._is_refused = False  # to connect: the rest of what came with that is passed over

    def receive(self, message: bytes) -> None:
        """Take a message: commands, one a line."""
        lines = message.split(b"\n")
        if len(lines) > _MOST_IN_A_FRAME:
            self._break_off(BAD_COMMAND)
            return
        self._outbox = []
        for line in lines:
            if line == PING:
                self._connection.ponged()
            elif line and self.client.state != CLOSED:
                self._take(line)
        self._flush()

    def _take(self, line: bytes) -> None:
        try:
            command = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._break_off(BAD_COMMAND)
            return
        self._queue.take(command)

    def _is_sound(self, command: Command) -> bool:
        methods = [name for name, _ in command.requests()]
        if command.id <= 0:
            return methods == ["send"] and self.client.state == CONNECTED
        if len(methods) > 1:
            return False
        return self.client.state == CONNECTED or methods == ["connect"]

    def begin(self, command: Command) -> None:
        """Begin a command; it may be done before this returns."""
        if self.client.state == CLOSED:
            self._queue.close()
            return
        if self._is_refused and command.connect is None:
            self._queue.done()
            return
        if not self._is_sound(command):
            self._break_off(BAD_COMMAND)
            return
        self._is_refused = False
        eager.start(
            self._answer(command),
            lambda reply: self._done(command, reply),
            lambda error: self._failed(command, error),
        )

    async def _answer(self, command: Command) -> tuple[str, Any]:
        limit = self._node.config.client.command_rate_limit
        if limit and self.client.state == CONNECTED:
            await self.client.held_to(limit)
        for name, request in command.requests():
            return name, await self._methods[name](self, request)
        raise Refused(METHOD_NOT_FOUND)

    def _done(self, command: Command, reply: tuple[str, Any]) -> None:
        name, value = reply
        self._node.statistics.commands[name] += 1
        if command.id:
            self._say(b'{"id":%d,"%b":%b}' % (command.id, name.encode(), _encode(value)))
        if name == "connect":
            self._connection.release()
        self._queue.done()

    def _failed(self, command: Command, error: Exception) -> None:
        if isinstance(error, Ended):
            self._break_off(error.ending)
        elif isinstance(error, Refused):
            self._refuse(command, error.failure)
        elif isinstance(error, BrokerUnavailable):
            self._refuse(command, INTERNAL)
        else:
            self._node.defect(error)
            self._break_off(SERVER_ERROR)

    def _refuse(self, command: Command, failure: Failure) -> None:
        self._node.statistics.refused[failure.code] += 1
        self._say(b'{"id":%d,"error":%b}' % (command.id, _encode(failure)))
        if command.connect is not None and self.client.state == CONNECTED:  # it is half in: it comes again
            self._break_off(SERVER_ERROR)
        else:
            self._is_refused = command.connect is not None
            self._queue.done()

    # What is said while a message is being taken goes out as one.

    def _say(self, message: bytes) -> None:
        if self._outbox is not None:
            self._outbox.append(message)
        elif self.client.state != CLOSED:
            self._connection.send(message)

    def _break_off(self, ending: Ending) -> None:
        """End it, after what was said."""
        self._flush()
        self._connection.end(ending)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox and self.client.state != CLOSED:
            self._connection.send(b"\n".join(outbox))

    # ── commands ────────────────────────────────────────────────────────────────

    async def _connect(self, asked: ConnectRequest) -> ConnectResult:
        client = self.client
        if client.state != NEW:
            raise Ended(BAD_COMMAND)
        claims = await client.connect(asked.token)
        self._connection.greeted()
        # until the reply: what is published in the first channel while the last is joined
        self._connection.hold()
        subs = {}
        for channel, said in self._own_channels(claims).items():
            recovering = asked.subs.get(channel)
            options = self._node.rules.options(channel)
            how = client.membership(options, NO_OPTIONS, said, is_server_side=True)
            joined, _ = await client.join(channel, options, how, recovering.since if recovering else None)
            subs[channel] = _subscribe_result(joined, how, self._node.now())
        ping = self._node.config.client.ping_interval
        return ConnectResult(
            client=self.client.id,
            version=f"Yelpaze {__version__}",
            subs=subs,
            expires=self.client.expire_at > 0,
            ttl=self._ttl(self.client.expire_at),
            ping=int(ping),
            pong=ping > 0,
            session=self.client.id,
            node=self._node.uid,
        )

    def _own_channels(self, claims: Claims) -> dict[str, Claims]:
        """Where the gateway subscribes it by itself, and how."""
        channels = dict(claims.channels)
        personal = self._node.config.client.subscribe_to_user_personal_channel
        if personal.enabled and self.client.user:
            name = self._node.rules.personal(self.client.user, personal.personal_channel_namespace)
            channels.setdefault(name, Claims())
        return channels

    def _ttl(self, expire_at: int) -> int:
        return max(0, int(expire_at - self._node.now())) if expire_at else 0

    async def _subscribe(self, asked: SubscribeRequest) -> SubscribeResult:
        _require_supported(asked)
        wanted = SubscribeOptions(
            asked.token, asked.since, asked.positioned, asked.recoverable, asked.join_leave
        )
        joined, how = await self.client.subscribe(asked.channel, wanted)
        if joined.recovered is False and asked.flag & _REJECT_UNRECOVERED:
            self._unsubscribe_from(asked.channel)
            raise Refused(UNRECOVERABLE_POSITION)
        return _subscribe_result(joined, how, self._node.now())

    async def _unsubscribe(self, asked: ChannelRequest) -> Nothing:
        self._unsubscribe_from(asked.channel)
        return Nothing()

    async def _publish(self, asked: PublishRequest) -> Nothing:
        _require_supported(asked)
        await self.client.publish(asked.channel, on_one_line(asked.data))
        return Nothing()

    async def _history(self, asked: HistoryRequest) -> HistoryResult:
        found = await self.client.history(asked.channel, Query(asked.since, asked.limit, asked.reverse))
        return HistoryResult.of(found)

    async def _presence(self, asked: ChannelRequest) -> PresenceResult:
        return PresenceResult(await self.client.presence(asked.channel))

    async def _presence_stats(self, asked: ChannelRequest) -> PresenceStatsResult:
        return PresenceStatsResult.of(await self.client.presence(asked.channel))

    async def _refresh(self, asked: RefreshRequest) -> RefreshResult:
        if not asked.token:
            raise Ended(BAD_COMMAND)
        try:
            await self.client.refresh(asked.token)
        except Refused:  # it has expired: SDKs stay away after an error here, and come back after this code
            raise Ended(CONNECTION_EXPIRED) from None
        return RefreshResult(
            client=self.client.id,
            version=f"Yelpaze {__version__}",
            expires=self.client.expire_at > 0,
            ttl=self._ttl(self.client.expire_at),
        )

    async def _sub_refresh(self, asked: SubRefreshRequest) -> RefreshResult:
        if not asked.channel:
            raise Ended(BAD_COMMAND)
        if not asked.token or not self.client.is_in(asked.channel):
            raise Refused(PERMISSION_DENIED)
        _require_supported(asked)
        claims = await self.client.subscription_claims(asked.channel, asked.token)
        how = self._node.hub.membership(self._connection, asked.channel)
        if how is None:  # it was unsubscribed meanwhile
            raise Refused(PERMISSION_DENIED)
        how = msgspec.structs.replace(how, expire_at=claims.expire_at)
        self._node.hub.change(self._connection, asked.channel, how)
        if how.expire_at:
            self._node.wheel.put(self.client, 0)
        return RefreshResult(expires=how.expire_at > 0, ttl=self._ttl(how.expire_at))

    async def _ping(self, _: Nothing) -> Nothing:
        return Nothing()

    async def _rpc(self, _: Nothing) -> Nothing:
        raise Refused(NOT_AVAILABLE)

    async def _send(self, _: Nothing) -> Nothing:
        raise Ended(NO_MESSAGES)  # without a reply, only this tells that nobody here takes messages

    # ── what the gateway says by itself ─────────────────────────────────────────

    def _push(self, channel: str, name: str, value: Any) -> None:
        self._say(encoding.pushed(channel, name, value))

    def _unsubscribe_from(self, channel: str) -> bool:
        """Unsubscribe it from a channel; whether it was subscribed."""
        if self._outbox:  # before what its channels still have for it
            self._flush()
            self._outbox = []
        return self.client.unsubscribe(channel)

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """Take it out of a channel, and say so.

        What the gateway has subscribed by itself, a client does not subscribe again: it is to connect again.
        """
        how = self._node.hub.membership(self._connection, channel)
        if how is not None and how.is_server_side and ending in _AGAIN:
            self._break_off(_AGAIN[ending])
        elif self._unsubscribe_from(channel):
            self._push(channel, "unsubscribe", ending)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It was put into a channel; its right was another's."""
        self._push(channel, "subscribe", _subscribe_result(joined, how, self._node.now()))

    def insufficient(self, channel: str) -> None:
        """It has missed something: it subscribes again, with what it last had."""
        self.unsubscribed(channel, UNSUBSCRIBED_INSUFFICIENT)

    _methods: ClassVar[dict[str, Callable[["CentrifugoSession", Any], Coroutine[Any, Any, Any]]]] = {
        "connect": _connect,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "publish": _publish,
        "history": _history,
        "presence": _presence,
        "presence_stats": _presence_stats,
        "refresh": _refresh,
        "sub_refresh": _sub_refresh,
        "ping": _ping,
        "rpc": _rpc,
        "send": _send,
    }


def _require_supported(asked: SubscribeRequest | PublishRequest | SubRefreshRequest) -> None:
    """Raise Refused for a request that is for what is not built."""
    if asked.unsupported is not None:
        raise Refused(asked.unsupported)


def _subscribe_result(joined: Joined, how: Membership, now: float) -> SubscribeResult:
    """A subscription, as its client is notified of it."""
    return SubscribeResult(
        expires=how.expire_at > 0,
        ttl=max(0, int(how.expire_at - now)) if how.expire_at else 0,
        recoverable=how.is_recoverable,
        positioned=how.is_positioned,
        epoch=joined.position.epoch if how.is_positioned else "",
        offset=joined.position.offset if how.is_positioned else 0,
        publications=joined.publications,
        was_recovering=joined.recovered is not None,
        recovered=bool(joined.recovered),
    )
