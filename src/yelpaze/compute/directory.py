"""Which workers there are behind the targets, and which of them can be used."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from yelpaze.compute import worker_pb2 as pb
from yelpaze.compute.protocol import Unit
from yelpaze.compute.service import PROTOCOL, SERVICE
from yelpaze.compute.workers import Workers
from yelpaze.grpc.peers import Peer, Peers
from yelpaze.model.errors import InputError
from yelpaze.version import __version__

_BLIND = 256  # calls at a worker that does not tell what it takes
_BATCH_SHARE = 0.4  # of what a worker takes at once
_LEAST_MESSAGE = 4 << 20  # gRPC's own bound
_PAUSE_BASE, _PAUSE_CAP = 0.1, 2.0
_DESCRIBE_SECONDS = 10.0


class RemoteWorker:
    """A process that serves, as this client sees it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.batches = 0  # under way
        self.processes = 1
        self.max_message = _LEAST_MESSAGE
        self.fingerprint = ""
        self.refusal: InputError | None = None
        self.is_usable = False
        self._pause = 0.0
        self._paused_until = 0.0
        channel = peer.channel
        self.call = channel.unary_stream(
            f"/{SERVICE}/Call", pb.CallRequest.SerializeToString, pb.CallReply.FromString
        )
        self.describe = channel.unary_unary(
            f"/{SERVICE}/Describe", pb.DescribeRequest.SerializeToString, pb.Description.FromString
        )

    def takes(self, now: float) -> bool:
        """Whether it may be given calls now."""
        # Few batches at once: what comes in between travels together.
        return self.batches <= 2 * self.processes and self.room > 0 and self._paused_until <= now

    @property
    def room(self) -> int:
        """How many more calls it takes."""
        peer = self.peer
        return peer.room if peer.limit else _BLIND - peer.under_way

    @property
    def share(self) -> float:
        """How busy it is, by what it can do."""
        return self.peer.load / (self.peer.limit or _BLIND)

    @property
    def batch(self) -> int:
        """How many calls are best sent to it at once."""
        return max(1, min(self.room, int((self.peer.limit or _BLIND) * _BATCH_SHARE)))

    def succeeded(self) -> None:
        """It has answered."""
        self._pause = 0.0

    def failed(self, now: float) -> float:
        """It has not, and is left alone for a while; until when."""
        self._pause = min(_PAUSE_CAP, self._pause * 2 or _PAUSE_BASE)
        self._paused_until = now + self._pause
        return self._paused_until


class WorkerDirectory:
    """All workers behind the targets, asked what they serve. `changed` is called when it may have changed."""

    def __init__(self, workers: Workers, unit: Unit, changed: Callable[[], None]) -> None:
        self._targets = workers.targets
        self._unit = unit
        self._changed = changed
        self._workers: dict[Peer, RemoteWorker] = {}
        self._asking: dict[Peer, asyncio.Task[None]] = {}
        # Answers are bounded by the worker, which tells why one is too large.
        arguments = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._peers = Peers(
            workers.targets, security=workers.security, arguments=arguments, on_change=self._follow
        )

    async def open(self) -> None:
        """Begin to look for them."""
        await self._peers.open()

    async def close(self) -> None:
        """Close all connections."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._peers.close()

    def usable(self) -> list[RemoteWorker]:
        """Those that are there and have the same source."""
        workers = (self._workers.get(peer) for peer in self._peers.ready())
        return [worker for worker in workers if worker is not None and worker.is_usable]

    @property
    def is_settled(self) -> bool:
        """Whether all that are known have said what they serve."""
        return not self._asking and not self._peers.is_meeting

    @property
    def refusal(self) -> InputError | None:
        """Why nobody who is there can be used; None if there is nobody, or someone has still to tell."""
        workers = [self._workers.get(peer) for peer in self._peers.ready()]
        refusals = [worker.refusal for worker in workers if worker is not None and worker.refusal is not None]
        return refusals[0] if refusals and len(refusals) == len(workers) else None

    @property
    def refusals(self) -> list[str]:
        """Why workers that are there can't be used."""
        return [str(worker.refusal) for worker in self._workers.values() if worker.refusal is not None]

    @property
    def why_away(self) -> str:
        """What is known of those that don't answer."""
        return self._peers.trouble or ", ".join(self._targets)

    def ask(self, worker: RemoteWorker) -> None:
        """Ask it what it serves; it is not used until it has answered."""
        peer = worker.peer
        worker.is_usable = False
        if peer not in self._asking:
            task = asyncio.get_running_loop().create_task(self._ask(worker))
            self._asking[peer] = task
            task.add_done_callback(lambda _: self._asked(peer))

    def refuse(self, worker: RemoteWorker, why: str) -> None:
        """It does not want us."""
        worker.is_usable = False
        worker.refusal = InputError(f"{worker.peer.shared.text}: {why}")

    def _asked(self, peer: Peer) -> None:
        self._asking.pop(peer, None)
        self._changed()

    def _follow(self) -> None:
        """Who is there has changed, or how busy they are."""
        ready = self._peers.ready()
        for peer in ready:
            if peer not in self._workers:
                worker = self._workers[peer] = RemoteWorker(peer)
                self.ask(worker)
        if len(self._workers) > len(ready):
            for peer in [peer for peer in self._workers if not peer.under_way and peer not in ready]:
                del self._workers[peer]
        self._changed()

    async def _ask(self, worker: RemoteWorker) -> None:
        pause = _PAUSE_BASE
        while worker.peer in self._workers:
            await self._ask_once(worker)
            self._changed()
            if worker.is_usable or (worker.refusal is not None and not worker.peer.is_shared):
                return  # a process keeps to what it serves; at a shared address another one may answer
            await asyncio.sleep(pause)
            pause = min(_PAUSE_CAP, pause * 2)

    async def _ask_once(self, worker: RemoteWorker) -> None:
        where = worker.peer.shared.text
        try:
            description = await worker.describe(pb.DescribeRequest(), timeout=_DESCRIBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                worker.refusal = InputError(f"{where}: is no worker: start one with `yelpaze worker`")
            elif error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                worker.refusal = InputError(f"{where}: {error.details()}")
            return
        worker.refusal = _refusal_of(where, description, self._unit)
        worker.processes = max(1, description.processes)
        worker.max_message = description.max_message or _LEAST_MESSAGE
        worker.fingerprint = description.fingerprint
        worker.is_usable = worker.refusal is None


def _refusal_of(where: str, description: Any, unit: Unit) -> InputError | None:
    """Why a worker can't be used for what we want to call."""
    if description.protocol != PROTOCOL:
        return InputError(
            f"{where}: the worker is Yelpaze {description.version} and speaks "
            f"protocol {description.protocol}; "
            f"this is {__version__}, protocol {PROTOCOL}: install the same version on both sides"
        )
    known = {
        found.name: Unit(found.name, tuple(found.functions), dict(found.files)) for found in description.units
    }
    if unit.name not in known:
        return InputError(
            f"{where}: serves {', '.join(known) or 'nothing'}, not {unit.name}: "
            "start a `yelpaze worker` with that"
        )
    if missing := known[unit.name].missing_in(unit):
        return InputError(
            f"{where}: the worker's {unit.name} is not the same as here ({', '.join(missing)}): "
            "give both the same source, and have the worker begin anew with SIGHUP"
        )
    return None
