"""A client, whatever it speaks: who it is, what it may do, where it listens.

    new ──connect──→ connected ──close──→ closed
     └──────────────────close──────────────┘

No socket and no clock: what it needs comes from its node, what it says goes to its peer. Its methods are
coroutines that wait for nothing but the broker and keys (see `eager`); what is refused is raised as
`Refused`, what ends the connection as `Ended`. After each wait the connection may be gone.
"""

import uuid
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from yelpaze.live.brokers.broker import Query
from yelpaze.live.config import ChannelOptions
from yelpaze.live.core.channels import may
from yelpaze.live.core.stream import Joined, Membership, membership
from yelpaze.live.core.tokens import BadTokenError, Claims, ExpiredTokenError, Verifier
from yelpaze.live.protocol.codes import (
    ALREADY_SUBSCRIBED,
    BAD_REQUEST,
    CONNECTION_EXPIRED,
    CONNECTION_LIMIT,
    INVALID_TOKEN,
    LIMIT_EXCEEDED,
    NO_TOKEN,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    UNSUBSCRIBED_EXPIRED,
    Ended,
    Ending,
    Refused,
)
from yelpaze.live.protocol.values import ClientInfo, History, MaybeRaw, Position, Publication
from yelpaze.live.sessions.peer import Peer
from yelpaze.policy.rate import Gcra

if TYPE_CHECKING:
    from yelpaze.live.core.node import Node

_LONGEST: Final = 3600.0  # seconds that it sleeps at once, so that the wheel needs no bucket for next month
NEW: Final = 0
CONNECTED: Final = 1
CLOSED: Final = 2


class Asked(msgspec.Struct, frozen=True):
    """What a subscriber asks for beside the channel."""

    token: str = ""
    since: Position | None = None
    is_positioned: bool = False
    is_recoverable: bool = False
    hears_joins: bool = False
    is_plain: bool = False  # it knows nothing of all this, so what the channel can holds for it


_NOTHING = Asked()


@lru_cache(10_000)
def _one_more(channels: tuple[str, ...], channel: str) -> tuple[str, ...]:
    """Clients in the same channels share the tuple, and the names in it."""
    return (*channels, channel)


class Client:
    """One connected program."""

    takes_channels: ClassVar[bool] = True  # whether others can put it into one
    can_refresh: ClassVar[bool] = True  # its token, when that expires

    __slots__ = ("_gates", "_id", "bucket", "channels", "expire_at", "info", "node", "peer", "state", "user")

    def __init__(self, node: "Node", peer: Peer) -> None:
        self.node = node
        self.peer = peer
        self._id = b""
        self.user = ""
        self.info: MaybeRaw = msgspec.UNSET
        self.expire_at = 0
        self.channels: tuple[str, ...] = ()
        self.state = NEW
        self.bucket: Any = None
        self._gates: dict[int, Gcra] | None = None

    @property
    def id(self) -> str:
        """Its name: a UUID, empty while it has not connected. It is kept in fewer bytes than that."""
        return str(uuid.UUID(bytes=self._id)) if self._id else ""

    def is_called(self, names: Container[bytes]) -> bool:
        """Whether its name, as bytes, is among some."""
        return self._id in names

    @property
    def seen(self) -> ClientInfo:
        """What others see of it."""
        return ClientInfo(self.id, self.user, self.info)

    # ── who it is ───────────────────────────────────────────────────────────────

    async def connect(self, token: str) -> Claims:
        """Let it in. Raises Refused for a token that has expired, Ended for a bad one or a limit."""
        claims = await self._claims(token)
        if self.state == CLOSED:
            raise Ended(INVALID_TOKEN)
        node = self.node
        if not node.admit(claims.user):
            raise Ended(CONNECTION_LIMIT)
        self._id, self.user, self.info = node.new_id(), claims.user, claims.info
        self.expire_at = claims.expire_at
        self.state = CONNECTED
        node.entered(self)
        if self.expire_at:
            node.wheel.put(self, 0)  # waking, it tells itself when to wake again
        return claims

    async def _claims(self, token: str) -> Claims:
        settings = self.node.config.client
        if token and not (settings.insecure and not self.node.can_verify):
            claims = await self._read(token)
            if not claims.user and settings.disallow_anonymous_connection_tokens:
                raise Ended(INVALID_TOKEN)
            return claims
        if settings.insecure or settings.allow_anonymous_connect_without_token:
            return Claims()
        raise Ended(NO_TOKEN)

    async def _read(self, token: str) -> Claims:
        """A connection token's claims. It names no channel: those are for subscriptions."""
        claims = await self._checked(token, self.node.tokens)
        if claims.channel is not None:
            self.node.tell_refused("a token for a channel does not connect")
            raise Ended(INVALID_TOKEN)
        return claims

    async def _checked(self, token: str, verifier: Verifier) -> Claims:
        try:
            return await verifier.read(token)
        except ExpiredTokenError:
            raise Refused(TOKEN_EXPIRED) from None
        except BadTokenError as error:
            self.node.tell_refused(str(error))
            raise Ended(INVALID_TOKEN) from None

    async def refresh(self, token: str) -> Claims:
        """A new token for the same user. Raises Refused, Ended."""
        claims = await self._read(token)
        if claims.user != self.user:
            raise Ended(INVALID_TOKEN)
        self.info, self.expire_at = claims.info, claims.expire_at
        if self.expire_at:
            self.node.wheel.put(self, 0)
        return claims

    # ── where it listens ────────────────────────────────────────────────────────

    async def subscribe(
        self, channel: str, asked: Asked = _NOTHING, *, claims: Claims | None = None
    ) -> tuple[Joined, Membership]:
        """Add it to a channel that it may listen to, or that a token's `claims` let it. Raises Refused."""
        self._check_new(channel)
        options = self.node.rules.options(channel)
        claims = claims or await self._right_to(channel, asked.token, options)
        return await self.join(channel, options, self._membership(options, asked, claims), asked.since)

    def _check_new(self, channel: str) -> None:
        if channel in self.channels:
            raise Refused(ALREADY_SUBSCRIBED)
        if len(self.channels) >= self.node.config.client.channel_limit:
            raise Refused(LIMIT_EXCEEDED)

    async def _right_to(self, channel: str, token: str, options: ChannelOptions) -> Claims | None:
        """The claims of a subscription token, or None if none was needed. Raises Refused."""
        if token:
            return await self.subscription_claims(channel, token)
        if self.node.config.client.insecure:
            return None
        if not self.node.rules.may_subscribe(channel, options, self.user):
            raise Refused(PERMISSION_DENIED)
        return None

    async def subscription_claims(self, channel: str, token: str) -> Claims:
        """A subscription token's claims, for this user and channel. Raises Refused."""
        try:
            claims = await self.node.subscription_tokens.read(token)
        except ExpiredTokenError:
            raise Refused(TOKEN_EXPIRED) from None
        except BadTokenError:
            raise Refused(PERMISSION_DENIED) from None
        ours = claims.user == self.user and (not claims.client or claims.client == self.id)
        if claims.channel != channel or not ours:
            raise Refused(PERMISSION_DENIED)
        return claims

    def _membership(self, options: ChannelOptions, asked: Asked, claims: Claims | None) -> Membership:
        override = claims.override if claims is not None else {}

        def set_to(name: str) -> bool:
            value: bool = override.get(name, getattr(options, name))
            return value

        recoverable = options.has_history and (
            asked.is_plain or set_to("force_recovery") or (asked.is_recoverable and options.allow_recovery)
        )
        positioned = options.has_history and (
            recoverable or set_to("force_positioning") or (asked.is_positioned and options.allow_positioning)
        )
        tells = set_to("join_leave")
        wants = not asked.is_plain and (asked.hears_joins or set_to("force_push_join_leave"))
        info = ClientInfo(self.id, self.user, self.info, claims.info) if claims and claims.info else None
        make = membership if info is None else Membership
        return make(
            is_positioned=positioned,
            is_recoverable=recoverable,
            has_presence=set_to("presence"),
            tells_joins=tells,
            hears_joins=tells and wants,
            expire_at=claims.expire_at if claims is not None else 0,
            info=info,
        )

    async def join(
        self, channel: str, options: ChannelOptions, how: Membership, since: Position | None
    ) -> tuple[Joined, Membership]:
        """Add it to a channel, whatever its rights. Raises Refused."""
        node = self.node
        self._check_new(channel)
        self.channels = _one_more(self.channels, channel)  # from now on no other command can
        try:
            if how.has_presence:
                await node.broker.add_presence(channel, how.info or self.seen, node.presence_ttl)
            wanted = since if how.is_recoverable else None
            joined = await node.hub.join(
                self.peer, channel, options, node.rules.meta_ttl(options), how, wanted
            )
        except BaseException:
            self._forget(channel)
            if how.has_presence:
                node.background(node.broker.remove_presence(channel, self.id))
            raise
        # From here to the reply nothing is waited for: what is published now comes after it.
        if channel not in self.channels:  # it was taken out, or is gone, before it was in
            node.hub.leave(self.peer, channel)
            if how.has_presence:
                node.background(node.broker.remove_presence(channel, self.id))
            raise Ended(CONNECTION_EXPIRED) if self.state == CLOSED else Refused(PERMISSION_DENIED)
        if how.tells_joins:
            self._announce(channel, how, is_join=True)
        if how.expire_at:
            node.wheel.put(self, 0)
        return joined, how

    def _forget(self, channel: str) -> None:
        self.channels = tuple(name for name in self.channels if name != channel)

    def unsubscribe(self, channel: str) -> bool:
        """Take it out of a channel; whether it was in."""
        if channel not in self.channels:
            return False
        self.node.hub.flush()  # what was published before comes before
        self._forget(channel)
        how = self.node.hub.leave(self.peer, channel)
        self.node.background(self._departed(channel, how))
        return how is not None

    async def _departed(self, channel: str, how: Membership | None) -> None:
        if how is None:
            return
        if how.has_presence:
            await self.node.broker.remove_presence(channel, self.id)
        if how.tells_joins:
            self._announce(channel, how, is_join=False)

    def _announce(self, channel: str, how: Membership, *, is_join: bool) -> None:
        """Tell the others, after the reply, in the order in which it came and went."""
        node, info = self.node, how.info or self.seen
        node.soon(lambda: node.background(node.broker.announce(channel, info, is_join=is_join)))

    def is_in(self, channel: str) -> bool:
        """Whether it listens to a channel."""
        return self.node.hub.membership(self.peer, channel) is not None

    # ── what it may do there ────────────────────────────────────────────────────

    def _may(self, what: str, channel: str, options: ChannelOptions) -> None:
        """Raise Refused unless the namespace allows it to this client."""
        insecure = self.node.config.client.insecure
        if not insecure and not may(what, options, self.user, is_in=self.is_in(channel)):
            raise Refused(PERMISSION_DENIED)

    async def publish(self, channel: str, data: msgspec.Raw) -> None:
        """Publish to a channel. One that publishes too fast is kept waiting. Raises Refused."""
        options = self.node.rules.options(channel)
        self._may("publish", channel, options)
        if not bytes(data):
            raise Refused(BAD_REQUEST)
        if options.publish_rate_limit:
            await self.held_to(options.publish_rate_limit, options)
        how = self.node.hub.membership(self.peer, channel)
        info = (how.info if how is not None else None) or self.seen
        await self.node.publish(channel, Publication(data, info), options)

    async def held_to(self, rate: int, what: object = None) -> None:
        """Wait until another thing of a kind may be done: a namespace's publications, or any command."""
        if self._gates is None:
            self._gates = {}
        wait = self.node.gate(self._gates, id(what), rate)
        if wait > 0:
            await self.node.sleep(wait)

    async def history(self, channel: str, query: Query) -> History:
        """Read a channel's history. Raises Refused."""
        options = self.node.rules.options(channel)
        self._may("history", channel, options)
        if not options.has_history:
            raise Refused(NOT_AVAILABLE)
        return await self.node.history(channel, query, options)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who listens to a channel. Raises Refused."""
        options = self.node.rules.options(channel)
        self._may("presence", channel, options)
        if not options.presence:
            raise Refused(NOT_AVAILABLE)
        return await self.node.broker.presence(channel)

    # ── its end ─────────────────────────────────────────────────────────────────

    def closed(self) -> None:
        """Its connection is gone."""
        if self.state == CLOSED:
            return
        was, self.state = self.state, CLOSED
        self.node.wheel.drop(self)
        channels, self.channels = self.channels, ()
        for channel in channels:
            how = self.node.hub.leave(self.peer, channel)
            if how is not None and (how.has_presence or how.tells_joins):
                self.node.background(self._departed(channel, how))
        if was == CONNECTED:
            self.node.left(self)

    def wake(self) -> None:
        """Something of it may have expired; who can refresh it has some time to do so."""
        settings = self.node.config.client
        now = self.node.now()
        delay = settings.expired_close_delay if self.can_refresh else 0
        sub_delay = settings.expired_sub_close_delay if self.can_refresh else 0
        if self.expire_at and self.expire_at + delay <= now:
            self.peer.end(CONNECTION_EXPIRED)
            return
        for channel, end in list(self._ends()):
            if end + sub_delay <= now:
                self.unsubscribed(channel, UNSUBSCRIBED_EXPIRED)
        due = [end + sub_delay for _, end in self._ends()]
        due += [self.expire_at + delay] if self.expire_at else []
        if due and self.state == CONNECTED:
            self.node.wheel.put(self, min(_LONGEST, max(1.0, min(due) - now)))

    def _ends(self) -> Iterable[tuple[str, int]]:
        for channel in self.channels:
            how = self.node.hub.membership(self.peer, channel)
            if how is not None and how.expire_at:
                yield channel, how.expire_at

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """The gateway takes it out of a channel, and says so."""
        raise NotImplementedError

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """The gateway has put it into a channel, and says so."""
        raise NotImplementedError

    def insufficient(self, channel: str) -> None:
        """It has missed something of a channel."""
        raise NotImplementedError
