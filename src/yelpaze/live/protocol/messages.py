"""The messages of Centrifugo's client protocol, as their types (centrifugal/protocol, client.proto)."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Self

import msgspec

from yelpaze.live.protocol.values import ClientInfo, History, Limit, Offset, Position, Publication

_NO_DATA = msgspec.Raw(b"")


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


class SubscribeRequest(Recovering, frozen=True):
    """`subscribe`."""

    channel: str = ""
    flag: int = 0
    token: str = ""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class ChannelRequest(msgspec.Struct, frozen=True):
    """Methods that take a channel alone."""

    channel: str = ""


class PublishRequest(msgspec.Struct, frozen=True):
    """`publish`."""

    channel: str = ""
    data: msgspec.Raw = _NO_DATA


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


class Nothing(msgspec.Struct, frozen=True):
    """No fields, or none that we read."""


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
    """The answer to `history` of the server API."""

    publications: tuple[Publication, ...] = ()
    epoch: str = ""
    offset: int = 0

    @classmethod
    def of(cls, history: History) -> Self:
        """From what the broker found."""
        return cls(history.publications, history.position.epoch, history.position.offset)


class HistoryReply(HistoryResult, frozen=True, omit_defaults=True):
    """The answer to a client's `history`."""


class PresenceResult(msgspec.Struct, frozen=True):
    """The answer to `presence` of the server API."""

    presence: dict[str, ClientInfo] = {}


class PresenceReply(PresenceResult, frozen=True, omit_defaults=True):
    """The answer to a client's `presence`."""


class PresenceStatsResult(msgspec.Struct, frozen=True):
    """The answer to `presence_stats` of the server API."""

    num_clients: int = 0
    num_users: int = 0

    @classmethod
    def of(cls, presence: Mapping[str, ClientInfo]) -> Self:
        """Count clients and users."""
        return cls(len(presence), len({info.user for info in presence.values()}))


class PresenceStatsReply(PresenceStatsResult, frozen=True, omit_defaults=True):
    """The answer to a client's `presence_stats`."""
