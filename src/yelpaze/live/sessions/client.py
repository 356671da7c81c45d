"""A client, whatever it speaks: who it is, what it may do, and which channels it is subscribed to.

    new ──connect──→ connected ──close──→ closed
     └──────────────────close──────────────┘

It knows no socket and no clock: what it needs comes from its node. The session on the connection (`Session`)
owns the client, translates, and is notified of what the gateway does to it. The client's methods are
coroutines that wait only for the broker and for keys (see `eager`). A refusal is raised as `Refused`, the end
of the connection as `Ended`. After each wait the connection may be gone.
"""

import uuid
from collections.abc import Callable, Container, Coroutine, Iterable
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol

import msgspec

from yelpaze.live.brokers.broker import Query
from yelpaze.live.config import ChannelOptions
from yelpaze.live.core.channels import may
from yelpaze.live.core.node import Node
from yelpaze.live.core.stream import (
    NO_OPTIONS,
    Joined,
    Membership,
    SubscribeOptions,
    membership_of,
)
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
from yelpaze.live.sessions.connection import ClientConnection
from yelpaze.policy.rate import Gcra

_LONGEST: Final = 3600.0  # seconds of one sleep, so that the wheel needs no bucket for next month
NEW: Final = 0
CONNECTED: Final = 1
CLOSED: Final = 2


@lru_cache(10_000)
def _one_more(channels: tuple[str, ...], channel: str) -> tuple[str, ...]:
    """Clients in the same channels share the tuple, and the names in it."""
    return (*channels, channel)


class Session(Protocol):
    """The dialect that is spoken with a client."""

    client: "Client"
    is_bound: ClassVar[bool]  # to one channel: it takes no others, and cannot refresh its token

    def receive(self, message: bytes) -> None:
        """Take a message of the client."""

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """The gateway has subscribed the client."""

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """The gateway unsubscribes the client, for that reason."""

    def insufficient(self, channel: str) -> None:
        """The client has missed publications of a channel."""


class Client:
    """One connected program."""

    __slots__ = (
        "_gates",
        "_id",
        "bucket",
        "channels",
        "connection",
        "expire_at",
        "info",
        "node",
        "session",
        "state",
        "user",
    )

    def __init__(self, node: Node, connection: ClientConnection, session: Session) -> None:
        self.node = node
        self.connection = connection
        self.session = session
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
        """Connect with a token. Raises Refused for one that has expired, Ended for a bad one or a limit."""
        return self.admit(await self.claims_of(token))

    def admit(self, claims: Claims) -> Claims:
        """Connect with the claims of a token. Raises Ended for a limit."""
        if self.state == CLOSED:
            raise Ended(INVALID_TOKEN)
        node = self.node
        if not node.clients.admits(claims.user):
            raise Ended(CONNECTION_LIMIT)
        self._id, self.user, self.info = node.new_id(), claims.user, claims.info
        self.expire_at = claims.expire_at
        self.state = CONNECTED
        node.clients.add(self)
        if self.expire_at:
            node.wheel.put(self, 0)  # waking, it tells itself when to wake again
        return claims

    async def claims_of(
        self, token: str, read: Callable[[str], Coroutine[Any, Any, Claims]] | None = None
    ) -> Claims:
        """The claims of a connection token, or those of a client that needs none. Raises Refused, Ended.

        `read` reads the token in place of `read_token`.
        """
        settings = self.node.config.client
        if token and not (settings.insecure and not self.node.can_verify):
            claims = await (read or self.read_token)(token)
            if not claims.user and settings.disallow_anonymous_connection_tokens:
                raise Ended(INVALID_TOKEN)
            return claims
        if settings.insecure or settings.allow_anonymous_connect_without_token:
            return Claims()
        raise Ended(NO_TOKEN)

    async def read_token(self, token: str) -> Claims:
        """A connection token's claims. A token that names a channel is refused: it is for subscriptions."""
        claims = await self.verified(token, self.node.tokens)
        if claims.channel is not None:
            self.node.report_refused("a token for a channel does not connect")
            raise Ended(INVALID_TOKEN)
        return claims

    async def verified(self, token: str, verifier: Verifier) -> Claims:
        """The claims of a token that `verifier` accepts. Raises Refused, Ended."""
        try:
            return await verifier.read(token)
        except ExpiredTokenError:
            raise Refused(TOKEN_EXPIRED) from None
        except BadTokenError as error:
            self.node.report_refused(str(error))
            raise Ended(INVALID_TOKEN) from None

    async def refresh(self, token: str) -> Claims:
        """A new token for the same user. Raises Refused, Ended."""
        claims = await self.read_token(token)
        if claims.user != self.user:
            raise Ended(INVALID_TOKEN)
        self.info, self.expire_at = claims.info, claims.expire_at
        if self.expire_at:
            self.node.wheel.put(self, 0)
        return claims

    # ── where it listens ────────────────────────────────────────────────────────

    async def subscribe(
        self, channel: str, asked: SubscribeOptions = NO_OPTIONS, *, claims: Claims | None = None
    ) -> tuple[Joined, Membership]:
        """Add it to a channel that it may listen to, or that a token's `claims` let it. Raises Refused."""
        self._check_new(channel)
        options = self.node.rules.options(channel)
        claims = claims or await self.right_to(channel, asked.token, options)
        return await self.join(channel, options, self.membership(options, asked, claims), asked.since)

    def _check_new(self, channel: str) -> None:
        if channel in self.channels:
            raise Refused(ALREADY_SUBSCRIBED)
        if len(self.channels) >= self.node.config.client.channel_limit:
            raise Refused(LIMIT_EXCEEDED)

    async def right_to(self, channel: str, token: str, options: ChannelOptions) -> Claims | None:
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

    def membership(
        self,
        options: ChannelOptions,
        asked: SubscribeOptions,
        claims: Claims | None,
        *,
        is_server_side: bool = False,
    ) -> Membership:
        """The membership by the channel's options, the client's, and what a token overrides."""
        if claims is None:
            return membership_of(options, asked, is_server_side=is_server_side)
        if claims.override:
            options = msgspec.structs.replace(options, **claims.override)
        info = ClientInfo(self.id, self.user, self.info, claims.info) if claims.info else None
        return membership_of(
            options, asked, expire_at=claims.expire_at, info=info, is_server_side=is_server_side
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
                self.connection, channel, options, node.rules.meta_ttl(options), how, wanted
            )
        except BaseException:
            self._forget(channel)
            if how.has_presence:
                node.background(node.broker.remove_presence(channel, self.id))
            raise
        # From here to the reply nothing is waited for: what is published now comes after it.
        if channel not in self.channels:  # it was taken out, or is gone, before it was in
            node.hub.leave(self.connection, channel)
            if how.has_presence:
                node.background(node.broker.remove_presence(channel, self.id))
            raise Ended(CONNECTION_EXPIRED) if self.state == CLOSED else Refused(PERMISSION_DENIED)
        if how.publishes_joins:
            self._publish_join_leave(channel, how, is_join=True)
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
        how = self.node.hub.leave(self.connection, channel)
        self.node.background(self._departed(channel, how))
        return how is not None

    async def _departed(self, channel: str, how: Membership | None) -> None:
        if how is None:
            return
        if how.has_presence:
            await self.node.broker.remove_presence(channel, self.id)
        if how.publishes_joins:
            self._publish_join_leave(channel, how, is_join=False)

    def _publish_join_leave(self, channel: str, how: Membership, *, is_join: bool) -> None:
        """Tell the others, after the reply, in the order in which it came and went."""
        node, info = self.node, how.info or self.seen
        node.soon(lambda: node.background(node.broker.publish_join_leave(channel, info, is_join=is_join)))

    def is_in(self, channel: str) -> bool:
        """Whether it listens to a channel."""
        return self.node.hub.membership(self.connection, channel) is not None

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
        how = self.node.hub.membership(self.connection, channel)
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
            how = self.node.hub.leave(self.connection, channel)
            if how is not None and (how.has_presence or how.publishes_joins):
                self.node.background(self._departed(channel, how))
        if was == CONNECTED:
            self.node.clients.remove(self)

    def wake(self) -> None:
        """Look for what has expired, with time for clients that can refresh."""
        settings = self.node.config.client
        now = self.node.now()
        delay = 0 if self.session.is_bound else settings.expired_close_delay
        sub_delay = 0 if self.session.is_bound else settings.expired_sub_close_delay
        if self.expire_at and self.expire_at + delay <= now:
            self.connection.end(CONNECTION_EXPIRED)
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
            how = self.node.hub.membership(self.connection, channel)
            if how is not None and how.expire_at:
                yield channel, how.expire_at

    # ── what the gateway does to it ─────────────────────────────────────────────

    @property
    def takes_channels(self) -> bool:
        """Whether the gateway can subscribe it to channels."""
        return not self.session.is_bound

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """The gateway has subscribed it."""
        self.session.subscribed(channel, joined, how)

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """The gateway unsubscribes it."""
        self.session.unsubscribed(channel, ending)

    def end(self, ending: Ending) -> None:
        """Close its connection."""
        self.connection.end(ending)
