"""What the nodes of a gateway tell each other: that they are there, what all shall do, what each has.

All goes over the broker's control channel, and a node hears itself like any other, so nothing is done twice
or differently for one node alone.
"""

import asyncio
import contextlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from yelpaze.live.core.stream import Membership
from yelpaze.live.protocol.codes import FORCE_DISCONNECT, UNSUBSCRIBED_BY_SERVER, Ending
from yelpaze.live.protocol.values import ClientInfo, MaybeRaw, Position
from yelpaze.live.sessions.client import CONNECTED, Client
from yelpaze.version import __version__

if TYPE_CHECKING:
    from yelpaze.live.core.node import Node

_LOST = 10.0  # seconds without a word after which a node is gone
_SURVEY = 2.0


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself, in `info`."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What nodes tell each other."""

    node: NodeInfo | None = None
    gone: str = ""  # a node that has ended
    do: str = ""  # subscribe, unsubscribe, disconnect
    user: str = ""
    client: str = ""
    everyone: bool = False
    channel: str = ""
    ending: Ending | None = None
    whitelist: tuple[str, ...] = ()
    info: MaybeRaw = msgspec.UNSET
    expire_at: int = 0
    since: Position | None = None
    survey: str = ""
    pattern: str = ""
    answer_to: str = ""
    from_node: str = ""
    channels: dict[str, int] | None = None


class Cluster:
    """The nodes, as one of them sees them."""

    def __init__(self, node: "Node", name: str) -> None:
        self._node = node
        self._name = name
        self._nodes: dict[str, tuple[NodeInfo, float]] = {}
        self._surveys: dict[str, _Survey] = {}
        self._started = node.clock()

    def told(self, message: bytes) -> None:
        """A node has said something."""
        command = msgspec.json.decode(message, type=Command)
        if command.node is not None:
            self._nodes[command.node.uid] = command.node, self._node.clock()
        elif command.gone:
            self._nodes.pop(command.gone, None)
        elif command.survey:
            self._node.background(self._answer(command))
        elif command.answer_to:
            survey = self._surveys.get(command.answer_to)
            if survey is not None:
                survey.take(command)
        elif command.do:
            self._node.hub.flush()  # what was published before comes before
            for client in self._meant(command):
                self._do(client, command)

    def _meant(self, command: Command) -> list[Client]:
        there: list[Client] = []
        if command.user:
            there = self._node.clients_of(command.user)
        elif command.everyone or command.client:
            there = [peer.client for peer in self._node.peers]
        wanted, spared = _names([command.client]), _names(command.whitelist)
        return [
            client
            for client in there
            if client.state == CONNECTED
            and (not command.client or client.is_called(wanted))
            and not client.is_called(spared)
        ]

    def _do(self, client: Client, command: Command) -> None:
        if command.do == "disconnect":
            client.peer.end(command.ending or FORCE_DISCONNECT)
        elif command.do == "unsubscribe" and command.channel in client.channels:
            client.unsubscribed(command.channel, UNSUBSCRIBED_BY_SERVER)
        elif command.do == "subscribe" and client.takes_channels and command.channel not in client.channels:
            self._node.background(self._subscribe(client, command))

    async def _subscribe(self, client: Client, command: Command) -> None:
        channel, options = command.channel, self._node.rules.options(command.channel)
        info = ClientInfo(client.id, client.user, client.info, command.info) if command.info else None
        how = Membership(
            is_positioned=options.force_recovery or options.force_positioning,
            is_recoverable=options.force_recovery,
            has_presence=options.presence,
            tells_joins=options.join_leave,
            hears_joins=options.join_leave and options.force_push_join_leave,
            is_server_side=True,
            expire_at=command.expire_at,
            info=info,
        )
        client.subscribed(channel, *await client.join(channel, options, how, command.since))

    async def tell(self, command: Command) -> None:
        """Tell all nodes."""
        await self._node.broker.tell(msgspec.json.encode(command))

    async def greet(self) -> None:
        """Tell all that this one is there."""
        await self.tell(Command(node=self.info()))

    async def leave(self) -> None:
        """Tell all that this one ends."""
        await self.tell(Command(gone=self._node.uid))

    # ── asking all nodes ────────────────────────────────────────────────────────

    def info(self) -> NodeInfo:
        """What this node says of itself."""
        return NodeInfo(
            uid=self._node.uid,
            name=self._name,
            version=__version__,
            num_clients=self._node.connected,
            num_users=len(self._node.users),
            num_channels=len(self._node.hub.streams),
            num_subs=self._node.hub.subscriptions,
            uptime=int(self._node.clock() - self._started),
        )

    def nodes(self) -> list[NodeInfo]:
        """All nodes that have been heard of lately, this one first."""
        since = self._node.clock() - _LOST
        self._nodes = {uid: known for uid, known in self._nodes.items() if known[1] >= since}
        return [self.info(), *(info for uid, (info, _) in self._nodes.items() if uid != self._node.uid)]

    async def channels(self, pattern: str) -> dict[str, int]:
        """Channels that have subscribers on any node, and how many."""
        survey = _Survey({node.uid for node in self.nodes()})
        name = str(uuid.uuid4())
        self._surveys[name] = survey
        timer = asyncio.get_running_loop().call_later(_SURVEY, survey.end)
        try:
            await self.tell(Command(survey=name, pattern=pattern))
            await survey.done
        finally:
            timer.cancel()
            del self._surveys[name]
        return dict(survey.channels)

    async def _answer(self, asked: Command) -> None:
        pattern = re.compile(_glob(asked.pattern)) if asked.pattern else None
        found = {
            name: len(stream.members)
            for name, stream in self._node.hub.streams.items()
            if stream.members and (pattern is None or pattern.fullmatch(name))
        }
        await self.tell(Command(answer_to=asked.survey, from_node=self._node.uid, channels=found))


class _Survey:
    """A question to all nodes, and their answers so far."""

    def __init__(self, asked: set[str]) -> None:
        self._asked = asked
        self.channels: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, answer: Command) -> None:
        self._asked.discard(answer.from_node)
        self.channels.update(answer.channels or {})
        if not self._asked:
            self.end()

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _names(clients: Iterable[str]) -> set[bytes]:
    """Names of clients as bytes; what is no UUID names nobody."""
    found = set()
    for client in clients:
        with contextlib.suppress(ValueError):
            found.add(uuid.UUID(client).bytes)
    return found


def _glob(pattern: str) -> str:
    """`chat:*`: a star stands for any text, {a,b} for either.

    What is between two stars is looked for once, from the left: a pattern of many stars costs no more.
    """
    segments = [""]
    for part in re.split(r"(\*|\?|\{[^{}]*\})", pattern):
        if part == "*":
            segments.append("")
        elif part == "?":
            segments[-1] += "."
        elif part.startswith("{") and part.endswith("}"):
            segments[-1] += "(?:" + "|".join(map(re.escape, part[1:-1].split(","))) + ")"
        else:
            segments[-1] += re.escape(part)
    first, *rest = segments
    if not rest:
        return first
    *between, last = rest
    # One of several texts may be the beginning of another, so the first that fits is not always the best; it
    # is taken nevertheless: to try them all takes time in a power of the stars.
    found = [f"(?>.*?{one})" for one in between if one]
    return f"{first}{''.join(found)}.*{last}"
