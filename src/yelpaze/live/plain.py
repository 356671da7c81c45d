"""Clients without a library: one channel each, text in and text out, over WebSocket or server-sent events.

The token is in the query (`?token=…`) or, on a WebSocket, the first message. A bad one closes the
connection with 4001 after it was accepted: a browser tells its page the code of a close, but nothing of a
refused handshake.
"""

from collections import deque
from typing import Any

from yelpaze.live import eager
from yelpaze.live.broker import BrokerAwayError
from yelpaze.live.client import CLOSED, CONNECTED, NEW, Asked, Client
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
from yelpaze.live.values import Position

_KEPT = 16
_DIGITS = 18  # fit into 64 bits
_ENDINGS = {TOKEN_EXPIRED: BAD_TOKEN, PERMISSION_DENIED: DENIED, INTERNAL: SERVER_ERROR}


def ending_of(failure: Failure) -> Ending:
    """How a plain client's connection ends when what it wants is refused."""
    return _ENDINGS.get(failure) or Ending(DENIED.code, failure.message)


class PlainSession(Client):
    """A plain WebSocket."""

    takes_channels = False

    __slots__ = ("_channel", "_is_busy", "_is_going_on", "_waiting")

    def __init__(self, node: Any, peer: Any, channel: str) -> None:
        super().__init__(node, peer)
        self._channel = channel
        self._is_busy = False
        self._is_going_on = False
        self._waiting: deque[bytes] | None = None

    def open(self, token: str) -> None:
        """Begin: with the token of the query, or without one if none is needed."""
        settings = self.node.config.client
        if token or settings.insecure or settings.allow_anonymous_connect_without_token:
            self._run(self._enter(token))

    def receive(self, message: bytes) -> None:
        """Take a message: the token, if it was not given yet, or something to publish."""
        if self._is_busy:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(message)
            if len(self._waiting) == _KEPT:
                self.peer.pause()
        else:
            self._do(message)

    def _do(self, message: bytes) -> None:
        if self.state == NEW:
            self._run(self._enter(message.decode().strip()))
        elif self.state == CONNECTED:
            self._run(self._say(message))

    def _run(self, work: Any) -> None:
        self._is_busy = True
        eager.start(work, self._done, self._failed)

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

    def _done(self, _: None) -> None:
        self._is_busy = False
        if self._is_going_on:  # the loop below is what did this message
            return
        self._is_going_on = True
        try:
            while self._waiting and not self._is_busy and self.state != CLOSED:
                self._do_next(self._waiting)
        finally:
            self._is_going_on = False

    def _do_next(self, waiting: deque[bytes]) -> None:
        message = waiting.popleft()
        if not waiting:
            self._waiting = None
            self.peer.resume()
        self._do(message)

    def _failed(self, error: Exception) -> None:
        self.peer.end(_why(self, error))

    def unsubscribed(self, channel: str, ending: Ending) -> None:  # noqa: ARG002  it has one
        """Without its channel it has nothing to do here."""
        expired = ending == UNSUBSCRIBED_EXPIRED
        self.peer.end(SUBSCRIPTION_EXPIRED if expired else FORCE_DISCONNECT)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It has one channel, and hears of no other."""

    def insufficient(self, channel: str) -> None:  # noqa: ARG002  it has one
        """It has missed something: it is told so by the code."""
        self.peer.end(INSUFFICIENT_STATE)


class EventsSession(Client):
    """A reader of server-sent events. `id` is `offset:epoch`, which comes back as Last-Event-ID."""

    takes_channels = False

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

    def unsubscribed(self, channel: str, ending: Ending) -> None:  # noqa: ARG002  it has one
        """Without its channel it has nothing to do here."""
        expired = ending == UNSUBSCRIBED_EXPIRED
        self.peer.end(SUBSCRIPTION_EXPIRED if expired else FORCE_DISCONNECT)

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It has one channel, and hears of no other."""

    def insufficient(self, channel: str) -> None:  # noqa: ARG002  it has one
        """It has missed something: it comes again, and is told by its first event."""
        self.peer.end(INSUFFICIENT_STATE)


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
