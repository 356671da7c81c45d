"""Clients without a library: one channel each, text in and text out, over WebSocket or server-sent events.

The token is in the query (`?token=…`) or, on a WebSocket, the first message. A bad one closes the
connection with 4001 after it was accepted: a browser tells its page the code of a close, but nothing of a
refused handshake.
"""

from collections.abc import Coroutine
from typing import Any

from yelpaze.live.brokers.broker import BrokerAwayError
from yelpaze.live.core import eager
from yelpaze.live.core.stream import Joined, Membership
from yelpaze.live.core.tokens import Claims
from yelpaze.live.protocol.codes import (
    BAD_TOKEN,
    DENIED,
    FORCE_DISCONNECT,
    INSUFFICIENT_STATE,
    INTERNAL,
    INVALID_TOKEN,
    NO_TOKEN,
    PERMISSION_DENIED,
    SERVER_ERROR,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    UNSUBSCRIBED_EXPIRED,
    Ended,
    Ending,
    Failure,
    Refused,
)
from yelpaze.live.protocol.encoding import data_of
from yelpaze.live.protocol.values import Position
from yelpaze.live.sessions.client import CONNECTED, NEW, Asked, Client
from yelpaze.live.sessions.command_queue import TakingTurns

_DIGITS = 18  # fit into 64 bits
_ENDINGS = {TOKEN_EXPIRED: BAD_TOKEN, PERMISSION_DENIED: DENIED, INTERNAL: SERVER_ERROR}


def ending_of(failure: Failure) -> Ending:
    """How a plain client's connection ends when what it wants is refused."""
    return _ENDINGS.get(failure) or Ending(DENIED.code, failure.message)


class OneChannel(Client):
    """A client that was made for one channel: without it, it has nothing to do here."""

    takes_channels = False
    can_refresh = False

    __slots__ = ()
    _channel: str

    async def _enter(self, token: str, since: Position | None = None) -> Joined:
        """Let it in. A token for the channel is good for both: to connect and to subscribe."""
        claims = await self.connect(token)
        said = claims if claims.channel is not None else None
        joined, _ = await self.subscribe(self._channel, Asked(since=since, is_plain=True), claims=said)
        return joined

    async def _read(self, token: str) -> Claims:
        """Either kind of token: each must be signed by the keys of its kind."""
        node = self.node
        has_own_keys = node.subscription_tokens is not node.tokens
        try:
            claims = await self._checked(token, node.tokens)
        except Ended:
            if not has_own_keys:
                raise
        else:
            if claims.channel is None:
                return claims
        if has_own_keys:
            claims = await self._checked(token, node.subscription_tokens)
        if claims.channel != self._channel or claims.client:
            node.tell_refused("a token for another channel or client")
            raise Ended(INVALID_TOKEN)
        return claims

    def unsubscribed(self, channel: str, ending: Ending) -> None:  # noqa: ARG002  it has one
        """Without its channel it has nothing to do here."""
        expired = ending == UNSUBSCRIBED_EXPIRED
        self.peer.end(SUBSCRIPTION_EXPIRED if expired else FORCE_DISCONNECT)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It has one channel, and hears of no other."""

    def insufficient(self, channel: str) -> None:  # noqa: ARG002  it has one
        """It has missed something: the code tells a WebSocket, the next first event a stream."""
        self.peer.end(INSUFFICIENT_STATE)


class PlainSession(OneChannel, TakingTurns):
    """A plain WebSocket."""

    __slots__ = ("_channel",)

    def __init__(self, node: Any, peer: Any, channel: str) -> None:
        super().__init__(node, peer)
        self._channel = channel

    def open(self, token: str) -> None:
        """Begin: with the token of the query, or without one if none is needed."""
        settings = self.node.config.client
        if token or settings.insecure or settings.allow_anonymous_connect_without_token:
            self._is_busy = True
            self._run(self._begin(token))

    def receive(self, message: bytes) -> None:
        """Take a message: the token, if it was not given yet, or something to publish."""
        self.take(message)

    def begin(self, wish: bytes) -> None:
        """Let it in, or publish."""
        self._run(self._say(wish) if self.state == CONNECTED else self._begin(wish.decode().strip()))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        eager.start(work, lambda _: self.done(), lambda error: self.peer.end(_why(self, error)))

    async def _begin(self, token: str) -> None:
        await self._enter(token)
        self.peer.greeted()

    async def _say(self, message: bytes) -> None:
        limit = self.node.config.client.command_rate_limit
        if limit:
            await self.held_to(limit)
        await self.publish(self._channel, data_of(message))
        self.node.statistics.commands["publish"] += 1


class EventsSession(OneChannel):
    """A reader of server-sent events. `id` is `offset:epoch`, which comes back as Last-Event-ID."""

    __slots__ = ("_channel",)

    def __init__(self, node: Any, peer: Any, channel: str) -> None:
        super().__init__(node, peer)
        self._channel = channel

    async def enter(self, token: str, last_event_id: str) -> Joined:
        """Let it in. Raises Ended, Refused, BrokerAwayError."""
        since = position_of(last_event_id)
        try:
            return await self._enter(token, since)
        except Refused as error:
            if self.state != NEW:
                raise
            raise Ended(ending_of(error.failure)) from None


def position_of(last_event_id: str) -> Position | None:
    """The place in the stream that an event's id names; None if it is not one of ours."""
    offset, colon, epoch = last_event_id.partition(":")
    if not colon or not offset.isdecimal() or not offset.isascii() or len(offset) > _DIGITS:
        return None
    return Position(int(offset), epoch)


def _of(ending: Ending) -> Ending:
    return BAD_TOKEN if ending == INVALID_TOKEN else ending


def _why(session: Client, error: Exception) -> Ending:
    if isinstance(error, Ended):
        return Ending(BAD_TOKEN.code, error.ending.reason) if error.ending == NO_TOKEN else _of(error.ending)
    if isinstance(error, Refused):
        return ending_of(error.failure)
    if isinstance(error, BrokerAwayError):
        return SERVER_ERROR
    session.node.defect(error)
    return SERVER_ERROR
