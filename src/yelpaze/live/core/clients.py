"""Who is connected to a node: connections, connected clients, users, and the limits on their numbers."""

from collections import Counter
from collections.abc import Callable, Container
from typing import Any, Protocol

from yelpaze.live.config import ChannelOptions
from yelpaze.live.config import Client as Limits
from yelpaze.live.core.statistics import Statistics
from yelpaze.live.core.stream import Joined, Membership
from yelpaze.live.protocol.codes import Ending
from yelpaze.live.protocol.values import ClientInfo, MaybeRaw, Position
from yelpaze.policy.rate import Gcra, Rate


class ConnectedClient(Protocol):
    """A client that has connected, as its node sees it."""

    user: str
    info: MaybeRaw
    channels: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its UUID."""

    @property
    def seen(self) -> ClientInfo:
        """What others see of it."""

    @property
    def takes_channels(self) -> bool:
        """Whether the gateway can subscribe it to channels."""

    def is_called(self, names: Container[bytes]) -> bool:
        """Whether its UUID, as bytes, is among these."""

    async def join(
        self, channel: str, options: ChannelOptions, how: Membership, since: Position | None
    ) -> tuple[Joined, Membership]:
        """Subscribe it, whatever its rights. Raises Refused."""

    def subscribed(self, channel: str, joined: Joined, how: Membership) -> None:
        """Notify it that the gateway has subscribed it."""

    def unsubscribed(self, channel: str, ending: Ending) -> None:
        """Unsubscribe it, and notify it."""

    def end(self, ending: Ending) -> None:
        """Close its connection."""


class Clients:
    """The connections and clients of a node. `clock` gives monotonic seconds."""

    def __init__(self, limits: Limits, statistics: Statistics, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._statistics = statistics
        self._clock = clock
        self.connections: dict[Any, None] = {}  # oldest first
        self.handshaking: dict[Any, None] = {}  # HTTP connections that may become one of those
        self.connected = 0
        self.users: dict[str, ConnectedClient | dict[ConnectedClient, None]] = {}
        self.is_draining = False
        self._addresses: Counter[str] = Counter()
        self._handshakes: Gcra | None = None

    # ── connections ─────────────────────────────────────────────────────────────

    def accepts(self, ip: str) -> bool:
        """Whether one more connection from that address is accepted."""
        limits = self._limits
        if self.is_draining:
            return False
        if limits.connection_limit and len(self.connections) >= limits.connection_limit:
            return False
        return not (limits.ip_connection_limit and self._addresses[ip] >= limits.ip_connection_limit)

    def is_too_fast(self) -> bool:
        """Count a handshake. True if there were more than the limit allows in a second."""
        limit = self._limits.connection_rate_limit
        if not limit:
            return False
        if self._handshakes is None:
            self._handshakes = Gcra(Rate(limit, 1.0), burst=limit)
        if self._handshakes.next > self._clock():
            return True
        self._handshakes.take(self._clock())
        return False

    def opened(self, connection: Any, kind: str, ip: str) -> None:
        """A connection was made."""
        self.connections[connection] = None
        self._statistics.open[kind] += 1
        self._statistics.accepted[kind] += 1
        if self._limits.ip_connection_limit:
            self._addresses[ip] += 1

    def closed(self, connection: Any, kind: str, ip: str, code: int) -> None:
        """A connection is gone."""
        if self.connections.pop(connection, self) is self:
            return
        self._statistics.open[kind] -= 1
        self._statistics.closed[code] += 1
        if self._limits.ip_connection_limit:
            self._addresses[ip] -= 1
            if not self._addresses[ip]:
                del self._addresses[ip]

    # ── clients ─────────────────────────────────────────────────────────────────

    def admits(self, user: str) -> bool:
        """Whether one more connection of that user is accepted."""
        limit = self._limits.user_connection_limit
        return not (limit and user) or len(self.of_user(user)) < limit

    def add(self, client: ConnectedClient) -> None:
        """A client has connected."""
        self.connected += 1
        there = self.users.get(client.user)
        if there is None:
            self.users[client.user] = client  # most users have one: no dict for these
        elif isinstance(there, dict):
            there[client] = None
        else:
            self.users[client.user] = {there: None, client: None}

    def remove(self, client: ConnectedClient) -> None:
        """A connected client is gone."""
        self.connected -= 1
        there = self.users.get(client.user)
        if isinstance(there, dict):
            there.pop(client, None)
            if not there:
                del self.users[client.user]
        elif there is client:
            del self.users[client.user]

    def of_user(self, user: str) -> list[ConnectedClient]:
        """A user's clients on this node."""
        there = self.users.get(user)
        if there is None:
            return []
        return list(there) if isinstance(there, dict) else [there]

    def all(self) -> list[ConnectedClient]:
        """All clients that have connected."""
        return [client for user in self.users for client in self.of_user(user)]
