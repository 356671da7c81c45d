"""What a client knows of the processes behind its targets: where they are, and how busy.

A target's shared address tells who serves there; each process then tells at its own address how busy
it is. Where processes can't be reached by themselves (a proxy stands before them), or tell
nothing (another server), calls go to the shared address.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc

from yelpaze.grpc.address import Address
from yelpaze.grpc.options import check_pair, read_pem
from yelpaze.grpc.processes_pb2 import ProcessState, WatchRequest
from yelpaze.grpc.target import Security, Target
from yelpaze.model.errors import MisuseError

_WATCH = "/yelpaze.grpc.v1.Processes/Watch"
_RESOLVE_SECONDS = 5.0  # how soon new machines behind a name are found
_PAUSE_BASE, _PAUSE_CAP = 0.05, 1.0
_MOMENT = 0.5  # that processes are given when they are first heard of: else what waits would all go to one
_NO_BOUND = 1 << 30
_TELLS_NOTHING = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


class Peer:
    """One process, or a shared address."""

    __slots__ = (
        "_reported",
        "_since",
        "address",
        "channel",
        "id",
        "is_draining",
        "is_ready",
        "is_shared",
        "limit",
        "shared",
        "under_way",
        "watch",
    )

    def __init__(self, id_: str, shared: Address, address: Address, channel: grpc.aio.Channel) -> None:
        self.id = id_
        self.shared = shared
        self.address = address
        self.channel = channel
        self.is_shared = not id_
        self.is_ready = self.is_draining = False
        self.limit = 0
        self.under_way = 0  # what this client has there
        self._reported = 0  # what it said that it had, of all clients
        self._since = 0  # what this client began there since then, less what ended
        self.watch: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """How much it has to do, as far as can be known."""
        return max(self._reported + self._since, self.under_way)

    @property
    def room(self) -> int:
        """How much more it takes."""
        return (self.limit or _NO_BOUND) - self.load

    def begin(self, count: int = 1) -> None:
        """So many calls are sent there."""
        self.under_way += count
        self._since += count

    def end(self, count: int = 1) -> None:
        """So many have ended."""
        self.under_way -= count
        self._since -= count

    def update(self, state: ProcessState) -> None:
        """Take in its own report."""
        self.is_ready = True
        self.is_draining = state.is_draining
        self.limit = state.limit
        self._reported, self._since = state.running + state.waiting, 0


class Peers:
    """All processes behind the targets, kept up to date while it is open. Raises InputError.

    `arguments` are gRPC channel arguments; they win.
    """

    def __init__(
        self,
        targets: Iterable[str],
        *,
        security: Security | None = None,
        arguments: Sequence[tuple[str, Any]] = (),
        max_message: int = 64 << 20,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._targets = [Target.parse(target) for target in targets]
        if not self._targets:
            raise MisuseError("give at least one server")
        self._arguments = {
            "grpc.max_send_message_length": max_message,
            "grpc.max_receive_message_length": max_message,
            "grpc.keepalive_time_ms": 30_000,
            "grpc.keepalive_timeout_ms": 10_000,
            "grpc.http2.max_pings_without_data": 0,
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 1_000,
        } | dict(arguments)
        self._credentials = _credentials(security or Security())
        self._on_change = on_change
        self._peers: dict[tuple[Address, str], Peer] = {}
        self._members: dict[Address, set[str]] = {}  # of each shared address, the processes' ids
        self._meeting: set[Address] = set()  # whose processes have just been heard of
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.trouble = ""

    async def open(self) -> None:
        """Begin to look for processes."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(target)) for target in self._targets]

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        for peer in list(self._peers.values()):
            self._drop(peer, at_once=True)
        await asyncio.gather(*self._tasks, *self._closing, return_exceptions=True)

    @property
    def is_meeting(self) -> bool:
        """Whether processes have just been heard of, and not all of them have answered."""
        return bool(self._meeting)

    # ── who gets a call ─────────────────────────────────────────────────────────

    def ready(self) -> list[Peer]:
        """Those that take calls: processes by themselves where there are any, else shared addresses."""
        found = [
            peer
            for (shared, _), peer in self._peers.items()
            if peer.is_ready and not peer.is_draining and not (self._meeting and shared in self._meeting)
        ]
        return [peer for peer in found if not peer.is_shared] or found

    def pick(self, avoid: Peer | None = None) -> Peer | None:
        """The one with the least to do, another one than `avoid` if there is one; None if there is none."""
        best: Peer | None = None
        least, ties = (True, _NO_BOUND), 0
        for peer in self.ready():
            load = (peer is avoid, peer.load)
            if load < least:
                best, least, ties = peer, load, 1
            elif load == least:
                ties += 1
                if random.random() * ties < 1:  # noqa: S311  no secret
                    best = peer
        return best

    def has(self, id_: str | bytes) -> bool:
        """Whether a process with that id is behind the targets."""
        return any(id_ in ids for ids in self._members.values())

    async def wait(self) -> None:
        """Until something changes."""
        self._changed.clear()
        await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()
        self._on_change()

    # ── who is there ────────────────────────────────────────────────────────────

    async def _follow(self, target: Target) -> None:
        """Keep up with the machines behind a name."""
        known: set[Address] = set()
        loop = asyncio.get_running_loop()
        while True:
            found = {target.address}
            if not target.address.path:
                try:
                    infos = await loop.getaddrinfo(
                        target.address.host, target.address.port, type=socket.SOCK_STREAM
                    )
                    found = {Address(str(info[4][0]), target.address.port) for info in infos}
                except OSError as error:
                    found = known
                    self._is_troubled(f"{target.address.text}: {error.strerror or error}")
            for address in found - known:
                self._add(target, address, "", address)
            for address in known - found:
                for peer in [peer for (shared, _), peer in self._peers.items() if shared == address]:
                    self._drop(peer)
            known = found
            await asyncio.sleep(_RESOLVE_SECONDS if known else _PAUSE_CAP)

    def _add(self, target: Target, shared: Address, id_: str, address: Address) -> None:
        peer = Peer(id_, shared, address, self._channel(target, address))
        self._peers[shared, id_] = peer
        peer.watch = asyncio.get_running_loop().create_task(self._watch(target, shared, peer))

    def _drop(self, peer: Peer, *, at_once: bool = False) -> None:
        for key, other in list(self._peers.items()):
            if other is peer:
                del self._peers[key]
        if peer.watch is not None:
            peer.watch.cancel()
        # Calls under way there go on to their end, unless all is to end.
        task = asyncio.get_running_loop().create_task(_closed(peer, at_once=at_once))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _watch(self, target: Target, shared: Address, peer: Peer) -> None:
        """Listen to how a process stands; if it can't be reached, try again as long as it is said to be."""
        watch = peer.channel.unary_stream(_WATCH, WatchRequest.SerializeToString, ProcessState.FromString)
        pause = _PAUSE_BASE
        while True:
            try:
                async for state in watch(WatchRequest()):
                    pause = _PAUSE_BASE
                    peer.update(state)
                    self._members_are(target, shared, state)
                    if shared in self._meeting and self._are_all_ready(shared):
                        self._meeting.discard(shared)
                    self._note()
                    if peer.is_shared and peer.is_draining:
                        break  # another one answers there
            except grpc.aio.AioRpcError as error:
                if peer.is_shared and error.code() in _TELLS_NOTHING:
                    peer.is_ready = True
                    self._note()
                    return
                self._is_troubled(f"{shared.text}: {error.details()}")
            peer.is_ready = False  # calls wait until someone answers there again
            self._note()
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  no secret
            pause = min(_PAUSE_CAP, pause * 2)

    def _is_troubled(self, what: str) -> None:
        self.trouble = what
        self._note()

    def _are_all_ready(self, shared: Address) -> bool:
        ids = self._members.get(shared, ())
        return all((peer := self._peers.get((shared, id_))) and peer.is_ready for id_ in ids)

    def _met(self, shared: Address) -> None:
        self._meeting.discard(shared)
        self._note()

    def _members_are(self, target: Target, shared: Address, state: ProcessState) -> None:
        """All processes of that machine, as one of them says."""
        said = {peer.id: peer for peer in state.members}
        if not said or said.keys() == self._members.get(shared):
            return
        if shared not in self._members:
            self._meeting.add(shared)
            asyncio.get_running_loop().call_later(_MOMENT, self._met, shared)
        self._members[shared] = set(said)
        for (address, id_), peer in list(self._peers.items()):
            if address == shared and id_ and id_ not in said:
                self._drop(peer)
        for id_, member in said.items():
            if (shared, id_) not in self._peers:
                address = shared.at(member.port)
                if shared.path:
                    address = Address(path=member.path)
                    if member.path != shared.path and not member.path.startswith(f"{shared.path}."):
                        continue  # a server must not lead us to other sockets
                self._add(target, shared, id_, address)

    def _channel(self, target: Target, address: Address) -> grpc.aio.Channel:
        arguments = dict(self._arguments)
        if not target.is_secure:
            return grpc.aio.insecure_channel(address.text, options=list(arguments.items()))
        # Addresses stand for the host that was asked for, and its certificate names that.
        arguments.setdefault("grpc.ssl_target_name_override", target.address.host)
        return grpc.aio.secure_channel(address.text, self._credentials, options=list(arguments.items()))


async def _closed(peer: Peer, *, at_once: bool) -> None:
    while peer.under_way > 0 and not at_once:  # noqa: ASYNC110  nobody is in a hurry
        await asyncio.sleep(_PAUSE_CAP)
    with contextlib.suppress(Exception):
        await peer.channel.close()


def _credentials(security: Security) -> grpc.ChannelCredentials:
    chain, key = security.client_cert or (None, None)
    if chain is not None and key is not None:
        check_pair(chain, key)
    return grpc.ssl_channel_credentials(
        *(read_pem(path) if path is not None else None for path in (security.ca_file, key, chain))
    )
