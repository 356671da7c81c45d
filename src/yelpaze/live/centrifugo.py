"""Centrifugo's client protocol in JSON: commands in, replies and pushes out, one a line.

    {"id":1,"connect":{…}}  {"id":2,"subscribe":{…}} …     each gets {"id":…,"<method>":{…}} or an error
    {}                                                     a ping from us, a pong from the client

Commands of a client are done one after the other. While one waits (for Redis, or because the client is over
its rate) a few more are kept, then nothing is read from the connection: whoever is too fast is slowed, not
buffered.
"""

from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import msgspec

from yelpaze.live import eager, framing
from yelpaze.live.broker import BrokerAwayError, Query
from yelpaze.live.client import CLOSED, CONNECTED, NEW, Asked, Client
from yelpaze.live.codes import (
    BAD_COMMAND,
    INTERNAL,
    METHOD_NOT_FOUND,
    PERMISSION_DENIED,
    SERVER_ERROR,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBED_INSUFFICIENT,
    Ended,
    Ending,
    Failure,
    Refused,
)
from yelpaze.live.hub import Joined, Membership
from yelpaze.live.tokens import Claims
from yelpaze.live.values import ClientInfo, Position, Publication, on_one_line
from yelpaze.version import __version__

PING: Final = b"{}"
_KEPT = 16
_MOST_IN_A_FRAME = 64
_REJECT_UNRECOVERED = 2  # bit of `flag`: rather fail than go on with a gap
_NO_DATA = msgspec.Raw(b"")


# ── what a client sends ─────────────────────────────────────────────────────────


class _Recovering(msgspec.Struct, frozen=True):
    recover: bool = False
    epoch: str = ""
    offset: int = 0

    @property
    def since(self) -> Position | None:
        return Position(self.offset, self.epoch) if self.recover else None


class _Connect(msgspec.Struct, frozen=True):
    token: str = ""
    subs: dict[str, _Recovering] = {}


class _Subscribe(_Recovering, frozen=True):
    channel: str = ""
    flag: int = 0
    token: str = ""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class _Channel(msgspec.Struct, frozen=True):
    channel: str = ""


class _Publish(msgspec.Struct, frozen=True):
    channel: str = ""
    data: msgspec.Raw = _NO_DATA


class _History(msgspec.Struct, frozen=True):
    channel: str = ""
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


class _Refresh(msgspec.Struct, frozen=True):
    token: str = ""


class _SubRefresh(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""


class _Any(msgspec.Struct, frozen=True):
    pass


class Command(msgspec.Struct, frozen=True):
    """One command; exactly one of its methods is there."""

    id: int = 0
    connect: _Connect | None = None
    subscribe: _Subscribe | None = None
    unsubscribe: _Channel | None = None
    publish: _Publish | None = None
    presence: _Channel | None = None
    presence_stats: _Channel | None = None
    history: _History | None = None
    refresh: _Refresh | None = None
    sub_refresh: _SubRefresh | None = None
    ping: _Any | None = None
    rpc: _Any | None = None
    send: _Any | None = None

    def methods(self) -> list[str]:
        """The methods that it names."""
        return [name for name in _METHODS if getattr(self, name) is not None]


_METHODS = Command.__struct_fields__[1:]
_decode = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.encode


# ── what it is told ─────────────────────────────────────────────────────────────


class _Connected(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    client: str
    version: str
    subs: dict[str, "_Subscribed"] = {}
    expires: bool = False
    ttl: int = 0
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class _Subscribed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: tuple[Publication, ...] = ()
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False


class _Expiry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class _Stretch(msgspec.Struct, frozen=True, omit_defaults=True):
    publications: tuple[Publication, ...] = ()
    epoch: str = ""
    offset: int = 0


class _Stats(msgspec.Struct, frozen=True, omit_defaults=True):
    num_clients: int = 0
    num_users: int = 0


def _told(joined: Joined, how: Membership, now: float) -> _Subscribed:
    """A subscription as its client is told of it."""
    return _Subscribed(
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


def stats_of(there: Mapping[str, ClientInfo]) -> _Stats:
    """How many clients and users a presence has."""
    return _Stats(len(there), len({info.user for info in there.values()}))


# ── the session ─────────────────────────────────────────────────────────────────


class CentrifugoSession(Client):
    """A client that speaks Centrifugo's protocol."""

    __slots__ = ("_is_busy", "_outbox", "_waiting")

    def __init__(self, node: Any, peer: Any) -> None:
        super().__init__(node, peer)
        self._waiting: deque[Command] | None = None
        self._outbox: list[bytes] | None = None
        self._is_busy = False

    def receive(self, message: bytes) -> None:
        """Take a message: commands, one a line."""
        lines = message.split(b"\n")
        if len(lines) > _MOST_IN_A_FRAME:
            self.peer.end(BAD_COMMAND)
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
            command = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.peer.end(BAD_COMMAND)
            return
        if not self._is_sound(command):
            self.peer.end(BAD_COMMAND)
        elif self._is_busy:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(command)
            if len(self._waiting) == _KEPT:
                self.peer.pause()
        else:
            self._do(command)

    def _is_sound(self, command: Command) -> bool:
        methods = command.methods()
        if command.id <= 0:
            return methods == ["send"] and self.state == CONNECTED
        if len(methods) > 1:
            return False
        return self.state == CONNECTED or methods == ["connect"]

    def _do(self, command: Command) -> None:
        """Begin a command; maybe it is done at once."""
        self._is_busy = True
        eager.start(
            self._answer(command),
            lambda reply: self._done(command, reply),
            lambda error: self._failed(command, error),
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
        self._next()

    def _failed(self, command: Command, error: Exception) -> None:
        if isinstance(error, Ended):
            self._flush()
            self.peer.end(error.ending)
        elif isinstance(error, Refused):
            self._refuse(command, error.failure)
        elif isinstance(error, BrokerAwayError):
            self._refuse(command, INTERNAL)
        else:
            self.node.defect(error)
            self.peer.end(SERVER_ERROR)

    def _refuse(self, command: Command, failure: Failure) -> None:
        self.node.statistics.refused[failure.code] += 1
        self._say(b'{"id":%d,"error":%b}' % (command.id, _encode(failure)))
        self._next()

    def _next(self) -> None:
        self._is_busy = False
        if self._waiting and self.state != CLOSED:
            command = self._waiting.popleft()
            if not self._waiting:
                self._waiting = None
                self.peer.resume()
            if self._is_sound(command):
                self._do(command)
            else:
                self.peer.end(BAD_COMMAND)

    # What is said while a message is being taken goes out as one.

    def _say(self, message: bytes) -> None:
        if self._outbox is not None:
            self._outbox.append(message)
        elif self.state != CLOSED:
            self.peer.send(message)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox and self.state != CLOSED:
            self.peer.send(b"\n".join(outbox))

    # ── commands ────────────────────────────────────────────────────────────────

    async def _connect(self, asked: _Connect) -> _Connected:
        if self.state != NEW:
            raise Ended(BAD_COMMAND)
        claims = await self.connect(asked.token)
        self.peer.greeted()
        self.peer.hold()  # until the reply: what is published in the first channel while the last is joined
        subs = {}
        for channel in self._own_channels(claims):
            recovering = asked.subs.get(channel)
            options = self.node.rules.options(channel)
            how = self._membership(options, Asked(), None)
            how = msgspec.structs.replace(how, is_server_side=True)
            joined, _ = await self.join(channel, options, how, recovering.since if recovering else None)
            subs[channel] = _told(joined, how, self.node.now())
        ping = self.node.config.client.ping_interval
        return _Connected(
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

    def _own_channels(self, claims: Claims) -> list[str]:
        """Where the gateway subscribes it by itself."""
        channels = list(claims.channels)
        personal = self.node.config.client.subscribe_to_user_personal_channel
        if personal.enabled and self.user:
            channels.append(self.node.rules.personal(self.user, personal.personal_channel_namespace))
        return list(dict.fromkeys(channels))

    def _ttl(self, expire_at: int) -> int:
        return max(0, int(expire_at - self.node.now())) if expire_at else 0

    async def _subscribe(self, asked: _Subscribe) -> _Subscribed:
        wanted = Asked(asked.token, asked.since, asked.positioned, asked.recoverable, asked.join_leave)
        joined, how = await self.subscribe(asked.channel, wanted)
        if joined.recovered is False and asked.flag & _REJECT_UNRECOVERED:
            self.unsubscribe(asked.channel)
            raise Refused(UNRECOVERABLE_POSITION)
        return _told(joined, how, self.node.now())

    async def _unsubscribe(self, asked: _Channel) -> _Any:
        self.unsubscribe(asked.channel)
        return _Any()

    async def _publish(self, asked: _Publish) -> _Any:
        await self.publish(asked.channel, on_one_line(asked.data))
        return _Any()

    async def _history(self, asked: _History) -> _Stretch:
        found = await self.history(asked.channel, Query(asked.since, asked.limit, asked.reverse))
        return _Stretch(found.publications, found.position.epoch, found.position.offset)

    async def _presence(self, asked: _Channel) -> dict[str, Any]:
        return {"presence": await self.presence(asked.channel)}

    async def _presence_stats(self, asked: _Channel) -> _Stats:
        return stats_of(await self.presence(asked.channel))

    async def _refresh(self, asked: _Refresh) -> _Expiry:
        if not asked.token:
            raise Ended(BAD_COMMAND)
        await self.refresh(asked.token)
        return _Expiry(
            client=self.id,
            version=f"Yelpaze {__version__}",
            expires=self.expire_at > 0,
            ttl=self._ttl(self.expire_at),
        )

    async def _sub_refresh(self, asked: _SubRefresh) -> _Expiry:
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
        return _Expiry(expires=how.expire_at > 0, ttl=self._ttl(how.expire_at))

    async def _ping(self, _: _Any) -> _Any:
        return _Any()

    async def _rpc(self, _: _Any) -> _Any:
        raise Refused(METHOD_NOT_FOUND)

    async def _send(self, _: _Any) -> _Any:
        return _Any()  # messages without a reply have nobody here who takes them

    # ── what the gateway says by itself ─────────────────────────────────────────

    def _push(self, channel: str, name: str, value: Any) -> None:
        self._say(framing.pushed(channel, name, value))

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """Take it out of a channel, and say so."""
        if self.unsubscribe(channel):
            self._push(channel, "unsubscribe", ending)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It was put into a channel; its right was another's."""
        told = _told(joined, how, self.node.now())
        self._push(channel, "subscribe", told)

    def insufficient(self, channel: str) -> None:
        """It has missed something: it subscribes again, with what it last had."""
        self.unsubscribed(channel, UNSUBSCRIBED_INSUFFICIENT)
