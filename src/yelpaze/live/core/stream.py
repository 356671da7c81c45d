"""A channel with members on this node: the members, their subscriptions, and the channel's position."""

import asyncio
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from yelpaze.live.config import ChannelOptions
from yelpaze.live.protocol.values import ClientInfo, Position, Publication


class Writer(Protocol):
    """Where frames are written: a transport, or what behaves as one."""

    def write(self, data: Any) -> None:
        """Send it, now or a little later."""


class Waiting(Protocol):
    """What waits for a member that reads too slowly."""

    def add(self, frame: Any, channel: str, policy: str) -> None:
        """Keep it by the channel's policy."""


class Member(Protocol):
    """A connection, as the channels that it is subscribed to see it."""

    kind: int
    transport: Writer

    @property
    def backlog(self) -> Waiting | None:
        """Frames that wait, while it reads too slowly."""

    @property
    def seen(self) -> ClientInfo:
        """What others see of the client."""

    def insufficient(self, channel: str) -> None:
        """It has missed publications that cannot be recovered."""


class Membership(msgspec.Struct, frozen=True, gc=False):
    """How a member is subscribed; members that are subscribed alike share the value."""

    is_positioned: bool = False
    is_recoverable: bool = False
    has_presence: bool = False
    publishes_joins: bool = False  # its joins and leaves are published
    receives_joins: bool = False
    is_server_side: bool = False
    expire_at: int = 0
    info: ClientInfo | None = None  # only if it differs from the client's


membership = lru_cache(1024)(Membership)


class SubscribeOptions(msgspec.Struct, frozen=True):
    """What a subscriber asks for besides the channel.

    `since`: recover what was published after that. `is_plain`: a client that can ask for nothing; it gets
    what the channel has.
    """

    token: str = ""
    since: Position | None = None
    is_positioned: bool = False
    is_recoverable: bool = False
    receives_joins: bool = False
    is_plain: bool = False


NO_OPTIONS = SubscribeOptions()


def membership_of(
    options: ChannelOptions,
    asked: SubscribeOptions,
    *,
    expire_at: int = 0,
    info: ClientInfo | None = None,
    is_server_side: bool = False,
) -> Membership:
    """The membership that a channel's options and a subscriber's options result in."""
    recoverable = options.has_history and (
        asked.is_plain or options.force_recovery or (asked.is_recoverable and options.allow_recovery)
    )
    positioned = options.has_history and (
        recoverable or options.force_positioning or (asked.is_positioned and options.allow_positioning)
    )
    wants_joins = not asked.is_plain and (asked.receives_joins or options.force_push_join_leave)
    make = membership if info is None else Membership  # most members share the value
    return make(
        is_positioned=positioned,
        is_recoverable=recoverable,
        has_presence=options.presence,
        publishes_joins=options.join_leave,
        receives_joins=options.join_leave and wants_joins,
        is_server_side=is_server_side,
        expire_at=expire_at,
        info=info,
    )


def server_side(options: ChannelOptions, *, expire_at: int = 0, info: ClientInfo | None = None) -> Membership:
    """The membership of a client that the gateway subscribes by itself, by the channel's options alone."""
    return membership_of(options, NO_OPTIONS, expire_at=expire_at, info=info, is_server_side=True)


class Joined(msgspec.Struct, frozen=True):
    """Where a new member is, and what it missed; `recovered` is None if it asked for nothing."""

    position: Position = Position()
    publications: tuple[Publication, ...] = ()
    recovered: bool | None = None


class Stream:
    """A channel that has members here."""

    __slots__ = (
        "attaching",
        "catching_up",
        "epoch",
        "held",
        "joining",
        "members",
        "meta_ttl",
        "name",
        "offset",
        "options",
        "touched",
        "unsent",
    )

    def __init__(self, name: str, options: ChannelOptions, meta_ttl: float) -> None:
        self.name = name
        self.options = options
        self.meta_ttl = meta_ttl
        self.members: dict[Member, Membership] = {}
        self.attaching: asyncio.Future[None] | None = None  # done once the broker sends us the channel
        self.offset = 0
        self.epoch = ""  # while the position is not known
        self.unsent: list[Publication] = []
        self.joining: dict[Member, list[Publication]] | None = None
        self.held: list[tuple[Publication, str]] | None = None
        self.catching_up: asyncio.Future[None] | None = None
        self.touched = 0.0  # when its position was last known to be right

    @property
    def position(self) -> Position:
        return Position(self.offset, self.epoch)
