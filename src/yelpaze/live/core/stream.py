"""A channel that has members here: who they are, how they are in, and where it stands."""

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
    """A connection, as its channels see it."""

    kind: int
    transport: Writer
    backlog: Waiting | None  # not None while it reads too slowly

    def insufficient(self, channel: str) -> None:
        """It has missed something that can't be made good."""


class Membership(msgspec.Struct, frozen=True, gc=False):
    """How a member is in a channel; the same value for all that are so."""

    is_positioned: bool = False
    is_recoverable: bool = False
    has_presence: bool = False
    tells_joins: bool = False  # its joins and leaves are told
    hears_joins: bool = False
    is_server_side: bool = False
    expire_at: int = 0
    info: ClientInfo | None = None  # only if it differs from the client's


membership = lru_cache(1024)(Membership)


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
