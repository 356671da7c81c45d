"""One process of the gateway: its connections, its hub, its broker, and what they share.

Clock, random source and loop come in; nothing here knows of sockets but `listening`, which accepts them.
"""

import asyncio
import contextlib
import os
import random as random_module
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from yelpaze.live.brokers.broker import Broker, BrokerUnavailable, HistoryOptions, Query
from yelpaze.live.config import ChannelOptions, Config, Token
from yelpaze.live.core import eager
from yelpaze.live.core.channels import ChannelRules
from yelpaze.live.core.clients import Clients
from yelpaze.live.core.cluster import Cluster
from yelpaze.live.core.hub import Hub
from yelpaze.live.core.statistics import NodeTotals, Statistics
from yelpaze.live.core.tokens import Jwks, Verifier
from yelpaze.live.core.wheel import Wheel
from yelpaze.live.protocol.codes import SHUTDOWN, UNRECOVERABLE_POSITION, Ended, Refused
from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.policy.rate import Gcra, Rate

_TICK = 1.0
_SELDOM = 10.0
_GREETING = 3.0  # seconds between two words of a node that it is there
_DRAIN_EACH = 0.1
_GOODBYE = 1.0
_DRAIN_RATE = 5_000  # clients a second, as fast as Phoenix sends them away


Fetch = Callable[[str], Awaitable[bytes]]


class Node:
    """A gateway's process.

    Args:
        config: All settings.
        broker: What connects it to other nodes.
        fetch: Gets the keys of an identity provider; None if none are to be fetched.
        now: Unix time in seconds; `clock` is monotonic.
        random: Numbers in [0, 1).

    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        *,
        name: str = "",
        fetch: Fetch | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
        report: Report | None = None,
    ) -> None:
        self.config = config
        self.broker = broker
        self._random = random
        self.uid = str(uuid.uuid4())
        self.now = now
        self.clock = clock
        self.rules = ChannelRules(config.channel)
        self.tokens = self._verifier(config.client.token, "client.token", fetch)
        own = config.client.subscription_token
        self.subscription_tokens = (
            self._verifier(own, "client.subscription_token", fetch) if own.enabled else self.tokens
        )
        self.statistics = Statistics()
        self.clients = Clients(config.client, self.statistics, clock)
        self.wheel = Wheel(_TICK, random)
        self.hub = Hub(
            broker,
            soon=self.soon,
            background=self.background,
            clock=clock,
            recovery_limit=config.client.recovery_max_publication_limit,
        )
        self.cluster = Cluster(
            self.uid,
            name or f"{os.uname().nodename}_{os.getpid()}",
            broker=broker,
            clients=self.clients,
            hub=self.hub,
            rules=self.rules,
            clock=clock,
            background=self.background,
        )
        self._reported_at, self._unreported = float("-inf"), 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._report = report or (lambda notice: print(notice, file=sys.stderr))  # noqa: T201

    def _verifier(self, config: Token, where: str, fetch: Fetch | None) -> Verifier:
        url = config.jwks_public_endpoint
        jwks = Jwks(url, fetch, self.clock) if url and fetch is not None else None
        return Verifier(config, where, clock=self.now, jwks=jwks)

    @property
    def can_verify(self) -> bool:
        """Whether there is any key for tokens."""
        return self.tokens.has_keys

    # ── its life ────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Connect to the broker and begin to tick. Raises StoppedError."""
        await self.broker.start(self)
        for work in (self._ticking(), self._greeting(), self._present()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ticking(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        delay = self.config.client.channel_position_check_delay
        while True:
            due = max(due + _TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            self._tick()
            if delay:  # some at each tick, so that all have had their turn after that delay
                self.hub.compare_old(delay, 1 + int(2 * len(self.hub.streams) / delay))

    def _tick(self) -> None:
        try:
            self.wheel.tick()
        except Exception as error:  # noqa: BLE001  pings go on, whatever one connection does
            self.defect(error)

    async def _greeting(self) -> None:
        while True:
            self.background(self.cluster.greet())
            await asyncio.sleep(_GREETING)

    async def _present(self) -> None:
        """Say again who is there, spread over the interval, before the broker forgets it."""
        interval = self.config.client.presence_update_interval
        while True:
            await asyncio.sleep(interval)
            for stream in [one for one in self.hub.streams.values() if one.options.presence]:
                for member, how in list(stream.members.items()):
                    if how.has_presence:
                        info = how.info or member.seen
                        self.background(self.broker.add_presence(stream.name, info, self.presence_ttl))
                await asyncio.sleep(0)

    @property
    def presence_ttl(self) -> float:
        """Seconds after which a client that nobody renews is gone; Centrifugo's 60 for an interval of 27."""
        return self.config.client.presence_update_interval * 60 / 27

    async def drain(self, seconds: float) -> None:
        """Disconnect all clients, in batches spread over the time; faster if there are few."""
        self.clients.is_draining = True
        connections = list(self.clients.connections)
        spread = min(seconds, len(connections) / _DRAIN_RATE)
        steps = max(1, round(spread / _DRAIN_EACH))
        size = -(-len(connections) // steps)
        for start in range(0, len(connections), max(1, size)):
            self.hub.flush()  # what was published before comes before
            for connection in connections[start : start + size]:
                connection.end(SHUTDOWN)
            await asyncio.sleep(_DRAIN_EACH)

    async def close(self) -> None:
        """Close all remaining connections, and the broker."""
        self.clients.is_draining = True
        self.hub.flush()
        for connection in list(self.clients.connections):
            connection.end(SHUTDOWN)
        for _ in range(round(_GOODBYE / _DRAIN_EACH)):  # they close their side
            if not self.clients.connections:
                break
            await asyncio.sleep(_DRAIN_EACH)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(BrokerUnavailable):
            await self.cluster.leave()
        for connection in list(self.clients.connections):
            connection.abort()
        await asyncio.sleep(0)
        await self.broker.close()

    # ── work that nobody waits for ──────────────────────────────────────────────

    def soon(self, call: Callable[[], Any]) -> None:
        """Call it at the end of this turn of the loop."""
        asyncio.get_running_loop().call_soon(call)

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it; that the broker is away is not told here."""
        eager.start(work, lambda _: None, self._unheard)

    def _unheard(self, error: Exception) -> None:
        if not isinstance(error, BrokerUnavailable | Refused | Ended):
            self.defect(error)

    def defect(self, error: BaseException) -> None:
        """Something of ours went wrong: it is told in full, and the rest goes on."""
        text = "a defect:\n" + "".join(traceback.format_exception(error))
        self._report(Notice("defect", text, Level.ERROR))

    def report_refused(self, why: str) -> None:
        """Say why a token was refused, at most now and then: clients choose how often that is."""
        self._unreported += 1
        if self.clock() - self._reported_at < _SELDOM:
            return
        more = (
            f", and {self._unreported - 1} more since the last word of this" if self._unreported > 1 else ""
        )
        self._report(Notice("token.refused", f"a token was refused: {why}{more}"))
        self._reported_at, self._unreported = self.clock(), 0

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def gate(self, gates: dict[int, Gcra], kind: int, rate: int) -> float:
        """Take one of a rate a second; seconds to wait first."""
        gate = gates.get(kind)
        if gate is None:
            gate = gates[kind] = Gcra(Rate(rate, 1.0), burst=rate)
        now = self.clock()
        wait = max(0.0, gate.next - now)
        gate.take(now)
        return wait

    def between(self, least: int, most: int) -> int:
        """A number from a range, so that not all come back at once."""
        return least + int(self._random() * (most - least))

    @staticmethod
    def new_id() -> bytes:
        """A name for a client: a UUID."""
        return uuid.uuid4().bytes

    # ── publications ────────────────────────────────────────────────────────────

    async def publish(
        self,
        channel: str,
        publication: Publication,
        options: ChannelOptions,
        *,
        skip_history: bool = False,
        idempotency_key: str = "",
    ) -> Position:
        """Publish to all nodes."""
        keep = None
        if options.has_history and not skip_history:
            keep = HistoryOptions(options.history_size, options.history_ttl, self.rules.meta_ttl(options))
        self.statistics.published += 1
        return await self.broker.publish(channel, publication, keep, idempotency_key)

    async def history(self, channel: str, query: Query, options: ChannelOptions) -> History:
        """Read history, at most as much as is given out at once.

        Raises Refused for a place of another epoch.
        """
        most = self.config.client.history_max_publication_limit
        limit = query.limit
        if most and (limit < 0 or limit > most):
            limit = most
        query = Query(query.since, limit, query.reverse)
        found = await self.broker.history(channel, query, self.rules.meta_ttl(options))
        if query.since is not None and query.since.epoch not in ("", found.position.epoch):
            raise Refused(UNRECOVERABLE_POSITION)
        return found

    # ── events of the broker ────────────────────────────────────────────────────

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        """A publication has arrived from the broker."""
        self.hub.on_publication(channel, publication, epoch)

    def on_join_leave(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
        """A client has joined or left a channel."""
        self.hub.on_join_leave(channel, info, is_join=is_join)

    def on_reconnected(self) -> None:
        """The broker was away: compare all positions."""
        self.statistics.outages += 1
        self.hub.compare_all()

    def on_control(self, message: bytes) -> None:
        """A node has sent a control message."""
        self.cluster.on_control(message)

    def totals(self) -> NodeTotals:
        """Its counts as they stand."""
        counts = self.statistics
        return NodeTotals(
            connections=dict(counts.open),
            users=len(self.clients.users),
            channels=len(self.hub.streams),
            subscriptions=self.hub.subscriptions,
            accepted=dict(counts.accepted),
            closed=dict(counts.closed),
            commands=dict(counts.commands),
            refused=dict(counts.refused),
            rejected=dict(counts.rejected),
            published=counts.published,
            delivered=self.hub.delivered,
            missed=self.hub.missed,
            outages=counts.outages,
        )
