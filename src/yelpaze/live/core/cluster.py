"""Control messages between the nodes of a gateway: presence of nodes, actions for all, surveys.

Every node, including the sender, receives each control message, so a single node needs no special case.
"""

import asyncio
import contextlib
import re
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from yelpaze.live.brokers.broker import Broker
from yelpaze.live.core.channels import ChannelRules
from yelpaze.live.core.clients import Clients, ConnectedClient
from yelpaze.live.core.hub import Hub
from yelpaze.live.core.stream import server_side
from yelpaze.live.protocol.codes import FORCE_DISCONNECT, UNSUBSCRIBED_BY_SERVER, Ending
from yelpaze.live.protocol.values import ClientInfo, MaybeRaw, Position
from yelpaze.version import __version__

_LOST = 10.0  # seconds without a word after which a node is gone
_SURVEY = 2.0


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A node's description in `info`."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class ControlMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message: an join_leave (`node`, `gone`), an action (`do`), a survey, or an answer to one."""

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
    """The nodes of a gateway, as one of them sees them. `background` runs work that nothing waits for."""

    def __init__(
        self,
        uid: str,
        name: str,
        *,
        broker: Broker,
        clients: Clients,
        hub: Hub,
        rules: ChannelRules,
        clock: Callable[[], float],
        background: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._uid = uid
        self._name = name
        self._broker = broker
        self._clients = clients
        self._hub = hub
        self._rules = rules
        self._clock = clock
        self._background = background
        self._nodes: dict[str, tuple[NodeInfo, float]] = {}
        self._surveys: dict[str, _Survey] = {}
        self._started = clock()
        self._actions: dict[str, Callable[[ConnectedClient, ControlMessage], None]] = {
            "disconnect": self._disconnect,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def on_control(self, data: bytes) -> None:
        """A node has sent a control message."""
        message = msgspec.json.decode(data, type=ControlMessage)
        if message.node is not None:
            self._nodes[message.node.uid] = message.node, self._clock()
        elif message.gone:
            self._nodes.pop(message.gone, None)
        elif message.survey:
            self._background(self._answer(message))
        elif message.answer_to:
            survey = self._surveys.get(message.answer_to)
            if survey is not None:
                survey.take(message)
        elif (action := self._actions.get(message.do)) is not None:
            self._hub.flush()  # what was published before comes before
            for client in self._addressed(message):
                action(client, message)

    def _addressed(self, message: ControlMessage) -> list[ConnectedClient]:
        """The clients of this node that a message is for."""
        found: list[ConnectedClient] = []
        if message.user:
            found = self._clients.of_user(message.user)
        elif message.everyone or message.client:
            found = self._clients.all()
        wanted, spared = _names([message.client]), _names(message.whitelist)
        return [
            client
            for client in found
            if (not message.client or client.is_called(wanted)) and not client.is_called(spared)
        ]

    def _disconnect(self, client: ConnectedClient, message: ControlMessage) -> None:
        client.end(message.ending or FORCE_DISCONNECT)

    def _unsubscribe(self, client: ConnectedClient, message: ControlMessage) -> None:
        if message.channel in client.channels:
            client.unsubscribed(message.channel, UNSUBSCRIBED_BY_SERVER)

    def _subscribe(self, client: ConnectedClient, message: ControlMessage) -> None:
        if client.takes_channels and message.channel not in client.channels:
            self._background(self._join(client, message))

    async def _join(self, client: ConnectedClient, message: ControlMessage) -> None:
        channel, options = message.channel, self._rules.options(message.channel)
        info = ClientInfo(client.id, client.user, client.info, message.info) if message.info else None
        how = server_side(options, expire_at=message.expire_at, info=info)
        client.subscribed(channel, *await client.join(channel, options, how, message.since))

    async def send(self, message: ControlMessage) -> None:
        """Send a control message to all nodes, including this one."""
        await self._broker.publish_control(msgspec.json.encode(message))

    async def greet(self) -> None:
        """Announce this node."""
        await self.send(ControlMessage(node=self.info()))

    async def leave(self) -> None:
        """Announce that this node ends."""
        await self.send(ControlMessage(gone=self._uid))

    # ── asking all nodes ────────────────────────────────────────────────────────

    def info(self) -> NodeInfo:
        """The description of this node."""
        return NodeInfo(
            uid=self._uid,
            name=self._name,
            version=__version__,
            num_clients=self._clients.connected,
            num_users=len(self._clients.users),
            num_channels=len(self._hub.streams),
            num_subs=self._hub.subscriptions,
            uptime=int(self._clock() - self._started),
        )

    def nodes(self) -> list[NodeInfo]:
        """All nodes that announced themselves recently, this one first."""
        since = self._clock() - _LOST
        self._nodes = {uid: known for uid, known in self._nodes.items() if known[1] >= since}
        return [self.info(), *(info for uid, (info, _) in self._nodes.items() if uid != self._uid)]

    async def channels(self, pattern: str) -> dict[str, int]:
        """Channels that have subscribers on any node, and how many."""
        survey = _Survey({node.uid for node in self.nodes()})
        name = str(uuid.uuid4())
        self._surveys[name] = survey
        timer = asyncio.get_running_loop().call_later(_SURVEY, survey.end)
        try:
            await self.send(ControlMessage(survey=name, pattern=pattern))
            await survey.done
        finally:
            timer.cancel()
            del self._surveys[name]
        return dict(survey.channels)

    async def _answer(self, asked: ControlMessage) -> None:
        pattern = re.compile(_glob(asked.pattern)) if asked.pattern else None
        found = {
            name: len(stream.members)
            for name, stream in self._hub.streams.items()
            if stream.members and (pattern is None or pattern.fullmatch(name))
        }
        await self.send(ControlMessage(answer_to=asked.survey, from_node=self._uid, channels=found))


class _Survey:
    """A question to all nodes, and their answers so far."""

    def __init__(self, asked: set[str]) -> None:
        self._asked = asked
        self.channels: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, answer: ControlMessage) -> None:
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
