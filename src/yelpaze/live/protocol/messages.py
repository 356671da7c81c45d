"""The messages of Centrifugo's client protocol, as their types (centrifugal/protocol, client.proto).

Zero values are left out of replies, but not of presence, presence statistics and history: SDKs read those
fields without a default (centrifugal/protocol, generate.sh removes `omitempty` from them).

A field that is not built and would change the meaning of its command makes the command refused, by the code
of a Centrifugo without that feature (`unsupported`). Fields that change nothing are passed over.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Self

import msgspec

from yelpaze.live.protocol.codes import BAD_REQUEST, NOT_AVAILABLE, PERMISSION_DENIED, Failure
from yelpaze.live.protocol.values import ClientInfo, History, Limit, Offset, Position, Publication

_NO_DATA = msgspec.Raw(b"")
# Types of subscriptions and publications (centrifugal/centrifuge, options.go, SubscriptionType).
_STREAM, _MAP, _MAP_USERS, _SHARED_POLL = 0, 1, 3, 4


# ── what a client sends ─────────────────────────────────────────────────────────


class Recovering(msgspec.Struct, frozen=True):
    """What a client says of the place that it had."""

    recover: bool = False
    epoch: str = ""
    offset: Offset = 0

    @property
    def since(self) -> Position | None:
        """The place, if it asks for what it missed."""
        return Position(self.offset, self.epoch) if self.recover else None


class ConnectRequest(msgspec.Struct, frozen=True):
    """`connect`."""

    token: str = ""
    subs: dict[str, Recovering] = {}


class Nothing(msgspec.Struct, frozen=True):
    """No fields, or none that we read."""


class SubscribeRequest(Recovering, frozen=True):
    """`subscribe`."""

    channel: str = ""
    flag: int = 0
    token: str = ""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    type: int = _STREAM
    tf: Nothing | None = None  # a filter by tags

    @property
    def unsupported(self) -> Failure | None:
        """Why it is refused, whatever the channel."""
        if self.type == _SHARED_POLL:
            return NOT_AVAILABLE
        if _MAP <= self.type <= _MAP_USERS:  # no namespace here has such a `subscription_type`
            return PERMISSION_DENIED
        return BAD_REQUEST if self.type != _STREAM or self.tf is not None else None


class ChannelRequest(msgspec.Struct, frozen=True):
    """Methods that take a channel alone."""

    channel: str = ""


class PublishRequest(msgspec.Struct, frozen=True):
    """`publish`."""

    channel: str = ""
    data: msgspec.Raw = _NO_DATA
    type: int = _STREAM
    key: str = ""
    removed: bool = False

    @property
    def unsupported(self) -> Failure | None:
        """Why it is refused, whatever the channel. As an ordinary publication it would go without its key."""
        if self.type == _MAP:
            return PERMISSION_DENIED
        return BAD_REQUEST if self.type != _STREAM or self.key or self.removed else None


class HistoryRequest(msgspec.Struct, frozen=True):
    """`history`."""

    channel: str = ""
    limit: Limit = 0
    since: Position | None = None
    reverse: bool = False


class RefreshRequest(msgspec.Struct, frozen=True):
    """`refresh`."""

    token: str = ""


class SubRefreshRequest(msgspec.Struct, frozen=True):
    """`sub_refresh`."""

    channel: str = ""
    token: str = ""
    type: int = 0

    @property
    def unsupported(self) -> Failure | None:
        """Why it is refused: other types track the keys of shared polls."""
        return BAD_REQUEST if self.type else None


class Command(msgspec.Struct, frozen=True):
    """One command; exactly one of its methods is there."""

    id: int = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None
    ping: Nothing | None = None
    rpc: Nothing | None = None
    send: Nothing | None = None

    def requests(self) -> list[tuple[str, Any]]:
        """The methods that it names, with their requests."""
        found = zip(_METHODS, _requests(self), strict=True)
        return [(name, request) for name, request in found if request is not None]


_METHODS = Command.__struct_fields__[1:]
_requests = attrgetter(*_METHODS)
decode = msgspec.json.Decoder(Command).decode


# ── what it is sent ─────────────────────────────────────────────────────────────


class ConnectResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to `connect`."""

    client: str
    version: str
    subs: dict[str, "SubscribeResult"] = {}
    expires: bool = False
    ttl: int = 0
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class SubscribeResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to `subscribe`, and a push of it."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: tuple[Publication, ...] = ()
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False


class RefreshResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to `refresh` and `sub_refresh`."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class HistoryResult(msgspec.Struct, frozen=True):
    """The answer to `history`."""

    publications: tuple[Publication, ...] = ()
    epoch: str = ""
    offset: int = 0

    @classmethod
    def of(cls, history: History) -> Self:
        """From what the broker found."""
        return cls(history.publications, history.position.epoch, history.position.offset)


class PresenceResult(msgspec.Struct, frozen=True):
    """The answer to `presence`."""

    presence: dict[str, ClientInfo] = {}


class PresenceStatsResult(msgspec.Struct, frozen=True):
    """The answer to `presence_stats`."""

    num_clients: int = 0
    num_users: int = 0

    @classmethod
    def of(cls, presence: Mapping[str, ClientInfo]) -> Self:
        """Count clients and users."""
        return cls(len(presence), len({info.user for info in presence.values()}))
