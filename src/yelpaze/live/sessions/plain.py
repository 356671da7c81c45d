"""Clients without a library: one channel each, text in and text out, over WebSocket or server-sent events.

The token is in the query (`?token=…`) or, on a WebSocket, the first message. A bad one closes the
connection with 4001 after it was accepted: a browser tells its page the code of a close, but nothing of a
refused handshake.
"""

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from yelpaze.live.brokers.broker import BrokerUnavailable
from yelpaze.live.core import eager
from yelpaze.live.core.node import Node
from yelpaze.live.core.stream import Joined, Membership, SubscribeOptions
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
from yelpaze.live.sessions.client import CLOSED, CONNECTED, NEW, Client
from yelpaze.live.sessions.command_queue import CommandQueue
from yelpaze.live.sessions.connection import ClientConnection

_DIGITS = 18  # fit into 64 bits
_ENDINGS = {TOKEN_EXPIRED: BAD_TOKEN, PERMISSION_DENIED: DENIED, INTERNAL: SERVER_ERROR}


def ending_of(failure: Failure) -> Ending:
    """How a plain client's connection is closed when its request is refused."""
    return _ENDINGS.get(failure) or Ending(DENIED.code, failure.message)


class OneChannel:
    """The part that all plain sessions have: a client for one channel, which has no other use.

    A token for the channel is good for both: to connect and to subscribe.
    """

    __slots__ = ("channel", "client")

    def __init__(self, client: Client, channel: str) -> None:
        self.client = client
        self.channel = channel

    async def enter(self, token: str, since: Position | None = None) -> Joined:
        """Connect and subscribe. Raises Ended, Refused, BrokerUnavailable."""
        granted = await self._admitted(token)
        joined, _ = await self.client.subscribe(
            self.channel, SubscribeOptions(since=since, is_plain=True), claims=granted
        )
        return joined

    async def check(self, token: str) -> None:
        """Connect, and see whether it may subscribe; nobody notices. Raises Ended, Refused."""
        granted, client = await self._admitted(token), self.client
        options = client.node.rules.options(self.channel)
        if granted is None:
            await client.right_to(self.channel, "", options)

    async def _admitted(self, token: str) -> Claims | None:
        """Connect; the claims of the token if it is one for the channel."""
        client = self.client
        claims = client.admit(await client.claims_of(token, self._read_token))
        return claims if claims.channel is not None else None

    async def _read_token(self, token: str) -> Claims:
        """The claims of a connection or subscription token; each must be signed by the keys of its kind."""
        node, client = self.client.node, self.client
        has_own_keys = node.subscription_tokens is not node.tokens
        try:
            claims = await client.verified(token, node.tokens)
        except Ended:
            if not has_own_keys:
                raise
        else:
            if claims.channel is None:
                return claims
        if has_own_keys:
            claims = await client.verified(token, node.subscription_tokens)
        if claims.channel != self.channel or claims.client:
            node.report_refused("a token for another channel or client")
            raise Ended(INVALID_TOKEN)
        return claims

    def unsubscribed(self, ending: Ending) -> None:
        """Without its channel it is of no use: close it."""
        expired = ending == UNSUBSCRIBED_EXPIRED
        self.client.connection.end(SUBSCRIPTION_EXPIRED if expired else FORCE_DISCONNECT)

    def insufficient(self) -> None:
        """Close it: the code tells a WebSocket what happened, the next first event a stream."""
        self.client.connection.end(INSUFFICIENT_STATE)


class PlainSession:
    """A plain WebSocket."""

    is_bound: ClassVar[bool] = True

    __slots__ = ("_one", "_queue", "client")

    def __init__(self, node: Node, connection: ClientConnection, channel: str) -> None:
        self.client = Client(node, connection, self)
        self._one = OneChannel(self.client, channel)
        self._queue = CommandQueue(self)

    def open(self, token: str) -> None:
        """Begin, with the token of the query, or without one if none is needed."""
        settings = self.client.node.config.client
        if token or settings.insecure or settings.allow_anonymous_connect_without_token:
            self._queue.take(token.encode())

    def receive(self, message: bytes) -> None:
        """Take a message: the token, if it was not given yet, or something to publish."""
        self._queue.take(message)

    def begin(self, message: bytes) -> None:
        """Connect with the token, or publish."""
        client = self.client
        if client.state == CLOSED:
            self._queue.close()
            return
        work = self._publish(message) if client.state == CONNECTED else self._enter(message.decode().strip())
        eager.start(
            work, lambda _: self._queue.done(), lambda error: client.end(_ending_for(client.node, error))
        )

    async def _enter(self, token: str) -> None:
        await self._one.enter(token)
        self.client.connection.greeted()

    async def _publish(self, message: bytes) -> None:
        node = self.client.node
        limit = node.config.client.command_rate_limit
        if limit:
            await self.client.held_to(limit)
        await self.client.publish(self._one.channel, data_of(message))
        node.statistics.commands["publish"] += 1

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It has one channel, and is notified of no other."""

    def unsubscribed(self, channel: str, ending: Ending) -> None:  # noqa: ARG002  it has one
        self._one.unsubscribed(ending)

    def insufficient(self, channel: str) -> None:  # noqa: ARG002  it has one
        self._one.insufficient()


class EventsSession:
    """A reader of server-sent events. Their `id` is `offset:epoch`, which comes back as Last-Event-ID."""

    is_bound: ClassVar[bool] = True

    __slots__ = ("_one", "client")

    def __init__(self, node: Node, connection: ClientConnection, channel: str) -> None:
        self.client = Client(node, connection, self)
        self._one = OneChannel(self.client, channel)

    async def enter(self, token: str, last_event_id: str) -> Joined:
        """Connect and subscribe. Raises Ended, Refused, BrokerUnavailable."""
        with self._token_errors():
            return await self._one.enter(token, position_of(last_event_id))

    async def check(self, token: str) -> None:
        """See whether it would be let in. Raises Ended, Refused."""
        with self._token_errors():
            await self._one.check(token)

    @contextlib.contextmanager
    def _token_errors(self) -> Iterator[None]:
        """What is refused before it is connected is the token's fault, and raised as Ended."""
        try:
            yield
        except Refused as error:
            if self.client.state != NEW:
                raise
            raise Ended(ending_of(error.failure)) from None

    def receive(self, message: bytes) -> None:
        """Nothing comes from a reader."""

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """It has one channel, and is notified of no other."""

    def unsubscribed(self, channel: str, ending: Ending) -> None:  # noqa: ARG002  it has one
        self._one.unsubscribed(ending)

    def insufficient(self, channel: str) -> None:  # noqa: ARG002  it has one
        self._one.insufficient()


def position_of(last_event_id: str) -> Position | None:
    """The place in the stream that an event's id names; None if it is not one of ours."""
    offset, colon, epoch = last_event_id.partition(":")
    if not colon or not offset.isdecimal() or not offset.isascii() or len(offset) > _DIGITS:
        return None
    return Position(int(offset), epoch)


def _ending_for(node: Node, error: Exception) -> Ending:
    """How a plain WebSocket is closed after an error."""
    if isinstance(error, Ended):
        if error.ending in (NO_TOKEN, INVALID_TOKEN):
            return Ending(BAD_TOKEN.code, error.ending.reason) if error.ending == NO_TOKEN else BAD_TOKEN
        return error.ending
    if isinstance(error, Refused):
        return ending_of(error.failure)
    if not isinstance(error, BrokerUnavailable):
        node.defect(error)
    return SERVER_ERROR
