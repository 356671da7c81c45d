"""What carries publications between nodes and keeps their history: one Protocol, one file a backend.

A broker's methods are awaited by connections that have no task (see `eager`), so they wait for futures only.
"""

from typing import Protocol

import msgspec

from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication

# Seconds for which the epoch of a channel is kept to which nobody has published: anybody who may subscribe
# can make up names. While somebody is subscribed, it is asked for more often than that.
UNUSED_TTL = 3600.0


class HistoryOptions(msgspec.Struct, frozen=True):
    """How a publication is kept: so many, so long after the last one; the offset and epoch longer."""

    size: int
    ttl: float
    meta_ttl: float


class Query(msgspec.Struct, frozen=True):
    """A stretch of history: after `since` (or before it, if reversed), at most `limit`; -1 for all."""

    since: Position | None = None
    limit: int = 0
    reverse: bool = False


class BrokerUnavailable(Exception):  # noqa: N818  a state of the broker; the caller may try again
    """The broker cannot be reached at the moment."""


class BrokerEvents(Protocol):
    """What a broker tells its node. Called from the node's loop."""

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        """Somebody has published."""

    def on_join_leave(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
        """A client has come or gone."""

    def on_control(self, message: bytes) -> None:
        """A node has said something to all nodes, maybe this one."""

    def on_reconnected(self) -> None:
        """The broker was away and is back: something may have been missed."""


class Broker(Protocol):
    """One backend. All may raise BrokerUnavailable."""

    async def start(self, events: BrokerEvents) -> None:
        """Connect. Raises StoppedError."""

    async def close(self) -> None:
        """Let go of everything."""

    async def subscribe(self, channel: str) -> None:
        """From when this returns on, `events` hears of the channel."""

    async def unsubscribe(self, channel: str) -> None:
        """Hear no more of it."""

    async def publish(
        self, channel: str, publication: Publication, keep: HistoryOptions | None, idempotency_key: str = ""
    ) -> Position:
        """Send to all nodes; with `keep` into the history, too. A key used before gives its position."""

    async def history(self, channel: str, query: Query, meta_ttl: float) -> History:
        """Read history. A channel that never had any gets its epoch now."""

    async def remove_history(self, channel: str) -> None:
        """Forget what was published; offsets go on."""

    async def publish_join_leave(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
        """Tell all nodes that a client has come or gone."""

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """A client is there, for so long."""

    async def remove_presence(self, channel: str, client: str) -> None:
        """A client is gone."""

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is there, by client."""

    async def publish_control(self, message: bytes) -> None:
        """Say something to all nodes, this one too."""
