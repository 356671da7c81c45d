"""What all calls of one engine share: limits, hosts, transport, timers, counters."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any

from yelpaze.http.call import Call
from yelpaze.http.resolver import Answer, Resolver
from yelpaze.http.timers import Timers
from yelpaze.http.tracer import Tracer
from yelpaze.http.transport import SHARD, Shard, Transport, report
from yelpaze.model.request import Timeout
from yelpaze.model.url import Origin, origin_of
from yelpaze.policy.retry import Retry
from yelpaze.policy.slots import Slots, Ticket

_MAX_HOSTS = 10_000
_MAX_PREFIXES = 20_000
# libcurl keeps an address that it was given for 15 minutes; tell it again well before.
_RETELL = 600.0


class Host:
    """What is remembered of one origin."""

    __slots__ = ("_free", "_key", "_shards", "lane", "name", "needs_look_up", "origin")

    def __init__(self, origin: Origin, slots: Slots, *, needs_look_up: bool) -> None:
        self.origin = origin
        self.name = origin.host
        self.needs_look_up = needs_look_up
        self.lane = slots.lane()
        self._key = f"{origin.host}:{origin.port}"
        self._free: list[int] = []
        self._shards = 0

    def take_shard(self) -> int:
        """The number of the shard for one more transfer; the lowest-numbered are used first."""
        if not self._free:
            self._free = [self._shards] * SHARD
            self._shards += 1
        return self._free.pop()

    def give_shard(self, number: int) -> None:
        """A transfer of that shard is over."""
        self._free.append(number)

    def untell(self, shard: Shard) -> None:
        """Have the shard told again, next time."""
        shard.told.pop(self._key, None)

    def resolve_entry(self, answer: Answer, shard: Shard, now: float) -> str | None:
        """What libcurl must be told of this host's addresses, or None if it knows."""
        addresses = ",".join(f"[{a}]" if ":" in a else a for a in answer.addresses)
        entry = f"+{self._key}:{addresses}"
        told = shard.told.get(self._key)
        if told is not None and told[0] == entry and now - told[1] < _RETELL:
            return None
        if len(shard.told) >= _MAX_HOSTS:
            shard.told.clear()
        shard.told[self._key] = (entry, now)
        return entry


class Core:
    """The shared state of one engine; made inside a running event loop."""

    def __init__(
        self,
        *,
        transport: Transport,
        slots: Slots,
        resolver: Resolver | None,
        retry: Retry,
        timeout: Timeout,
        max_redirects: int,
        max_body: int,
        secret_headers: frozenset[str],
        rng: random.Random,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.transport = transport
        self.slots = slots
        self.resolver = resolver
        self.retry = retry
        self.timeout = timeout
        self.max_redirects = max_redirects
        self.max_body = max_body
        self.secret_headers = secret_headers
        self.random = rng
        self.tracer = Tracer(rng)
        self.calls: dict[Call, None] = {}
        self.requests = self.attempts = self.retries = 0
        self._loop = loop
        self.now: Callable[[], float] = time.monotonic
        self.timers = Timers(loop, self.now)
        self.soon: Callable[..., Any] = loop.call_soon
        self._by_prefix: dict[str, Host] = {}
        self._hosts: OrderedDict[Origin, Host] = OrderedDict()
        self._granting: list[Ticket] | None = None

    def host_of(self, url: str) -> Host:
        """The record of the URL's origin; the least recently used idle ones are forgotten."""
        end = url.find("/", 8)
        prefix = url if end < 0 else url[:end]
        host = self._by_prefix.get(prefix)
        if host is not None:
            return host
        origin = origin_of(url)
        host = self._hosts.get(origin)
        if host is None:
            needs_look_up = self.resolver is not None and not origin.is_address
            host = self._hosts[origin] = Host(origin, self.slots, needs_look_up=needs_look_up)
        self._hosts.move_to_end(origin)
        if len(self._hosts) > _MAX_HOSTS:
            self._forget_idle()
        if len(self._by_prefix) >= _MAX_PREFIXES:
            self._by_prefix.clear()
        self._by_prefix[prefix] = host
        return host

    def _forget_idle(self) -> None:
        for origin, host in list(self._hosts.items())[: _MAX_HOSTS // 4]:
            if host.lane.busy == 0 and not host.lane.waiting:
                del self._hosts[origin]
        self._by_prefix.clear()

    def grant(self, ticket: Ticket) -> None:
        """Start calls that the limiter has let in, one after the other, not nested."""
        if self._granting is not None:
            self._granting.append(ticket)
            return
        self._granting = [ticket]
        try:
            for number in count():
                if number >= len(self._granting):
                    break
                call = self._granting[number]
                if isinstance(call, Call):
                    try:
                        call.granted()
                    except Exception as error:  # noqa: BLE001  the next in line still get their turn
                        report(self._loop, "a call could not start", error)
        finally:
            self._granting = None
