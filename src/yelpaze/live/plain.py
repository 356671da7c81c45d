"""Clients without a library: one channel each, text in and text out, over WebSocket or server-sent events.

The token is in the query (`?token=…`) or, on a WebSocket, the first message. A bad one closes the
connection with 4001 after it was accepted: a browser tells its page the code of a close, but nothing of a
refused handshake.
"""

from collections.abc import Coroutine
from typing import Any

from yelpaze.live import eager
from yelpaze.live.broker import BrokerAwayError
from yelpaze.live.client import CONNECTED, Asked, Client
from yelpaze.live.codes import (
    BAD_TOKEN,
    DENIED,
    FORCE_DISCONNECT,
    INSUFFICIENT_STATE,
    INTERNAL,
    INVALID_TOKEN,
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
from yelpaze.live.framing import data_of
from yelpaze.live.stream import Joined, Membership
from yelpaze.live.turns import TakingTurns
from yelpaze.live.values import Position

_DIGITS = 18  # fit into 64 bits
_ENDINGS = {TOKEN_EXPIRED: BAD_TOKEN, PERMISSION_DENIED: DENIED, INTERNAL: SERVER_ERROR}


def ending_of(failure: Failure) -> Ending:
    """How a plain client's connection ends when what it wants is refused."""
    return _ENDINGS.get(failure) or Ending(DENIED.code, failure.message)


class OneChannel(Client):
    """A client that was made for one channel: without it, it has nothing to do here."""

    takes_channels = False

    __slots__ = ()

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
            self._run(self._enter(token))

    def receive(self, message: bytes) -> None:
        """Take a message: the token, if it was not given yet, or something to publish."""
        self.take(message)

    def begin(self, wish: bytes) -> None:
        """Let it in, or publish."""
        self._run(self._say(wish) if self.state == CONNECTED else self._enter(wish.decode().strip()))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        eager.start(work, lambda _: self.done(), lambda error: self.peer.end(_why(self, error)))

    async def _enter(self, token: str) -> None:
        await self.connect(token)
        self.peer.greeted()
        await self.subscribe(self._channel, Asked(is_plain=True))

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
        try:
            await self.connect(token)
        except Refused as error:
            raise Ended(ending_of(error.failure)) from None
        since = position_of(last_event_id)
        joined, _ = await self.subscribe(self._channel, Asked(since=since, is_plain=True))
        return joined


def position_of(last_event_id: str) -> Position | None:
    """The place in the stream that an event's id names; None if it is not one of ours."""
    offset, colon, epoch = last_event_id.partition(":")
    if not colon or not offset.isdecimal() or not offset.isascii() or len(offset) > _DIGITS:
        return None
    return Position(int(offset), epoch)


def _why(session: Client, error: Exception) -> Ending:
    if isinstance(error, Ended):
        return BAD_TOKEN if error.ending == INVALID_TOKEN else error.ending
    if isinstance(error, Refused):
        return ending_of(error.failure)
    if isinstance(error, BrokerAwayError):
        return SERVER_ERROR
    session.node.defect(error)
    return SERVER_ERROR
