"""State that all calls of one engine share: limits, hosts, transport, timers, counters, events."""

import asyncio
import random
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from yelpaze.http.causes import OUT_OF_FILES
from yelpaze.http.host import Host
from yelpaze.http.memory import Memory
from yelpaze.http.options import EngineEvents, QueuedCall, Tracing
from yelpaze.http.resolver import Resolver
from yelpaze.http.timers import Timers
from yelpaze.http.tracer import Tracer
from yelpaze.http.transport import Transport
from yelpaze.model.errors import Error, ErrorKind, YelpazeError
from yelpaze.model.event import EventKind, HostEvent
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request
from yelpaze.model.url import Origin, origin_of
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.breaker import State
from yelpaze.policy.host import Policies
from yelpaze.policy.rate import Gcra
from yelpaze.policy.slots import HostQueue, Slots
from yelpaze.process.descriptors import is_shortage

_MAX_HOSTS = 10_000
_MAX_PREFIXES = 20_000
_EVENTS: dict[State, EventKind] = {
    State.CLOSED: "breaker.closed",
    State.OPEN: "breaker.open",
    State.HALF_OPEN: "breaker.half_open",
}


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's options as its calls need them."""

    policies: Policies
    concurrency: int
    rate: Gcra | None
    park: float
    max_redirects: int
    guard: AddressGuard | None
    max_body: int
    secret_headers: frozenset[str]
    events: EngineEvents
    tracing: Tracing | None


class Core:
    """The shared state of one engine; made inside a running event loop."""

    def __init__(
        self,
        rules: EngineOptions,
        *,
        transport: Transport,
        memory: Memory,
        resolver: Resolver | None,
        tracer: Tracer,
        rng: random.Random,
        clock: Callable[[], float],
        wall: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.rules = rules
        self.transport = transport
        self.memory = memory
        self.resolver = resolver
        self.tracer = tracer
        self.random = rng
        self.max_redirects = rules.max_redirects
        self.guard = rules.guard
        self.max_body = rules.max_body
        self.slots: Slots[QueuedCall] = Slots(
            total=rules.concurrency, rate=rules.rate, on_blocked=self._on_blocked
        )
        self.calls: dict[QueuedCall, None] = {}
        self.next_order = count().__next__
        self.requests = self.attempts = self.retries = self.hedges = self.shared = 0
        self._loop = loop
        self.now = clock
        self.wall = wall
        self.timers = Timers(loop, self.now)
        self.soon: Callable[..., Any] = loop.call_soon
        self._by_prefix: dict[str, Host] = {}
        self._hosts: dict[Origin, Host] = {}
        self._most_hosts = _MAX_HOSTS
        self._by_queue: dict[HostQueue[QueuedCall], Host] = {}
        self._granting: list[QueuedCall] | None = None
        self.closing = False
        self.on_attempt, self.on_outcome = rules.events.on_attempt, rules.events.on_outcome
        self.tracing = rules.tracing

    # ── hosts ───────────────────────────────────────────────────────────────────

    def host_of(self, url: str) -> Host:
        """The record of the URL's origin; the least recently used idle ones are forgotten."""
        end = url.find("/", 8)
        prefix = url if end < 0 else url[:end]
        host = self._by_prefix.get(prefix)
        if host is None:
            host = self._found(prefix, url)
        while host.share_of is not None and self.random.random() < host.share_of[0]:
            host = host.share_of[1]
        return host

    def _found(self, prefix: str, url: str) -> Host:
        origin = origin_of(url)
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = self._new_host(origin)
        if len(self._hosts) > self._most_hosts:
            self._forget_idle()
        if len(self._by_prefix) >= _MAX_PREFIXES:
            self._by_prefix.clear()
        self._by_prefix[prefix] = host
        return host

    def _new_host(self, origin: Origin) -> Host:
        needs_look_up = self.resolver is not None and not origin.is_address
        inner: Host | None = None
        for policy in self.rules.policies.of(origin):
            host = Host(
                origin,
                policy,
                most=self.rules.concurrency,
                needs_look_up=needs_look_up,
                wall=self.wall,
            )
            self._by_queue[host.queue] = host
            if inner is None:
                inner = host
            else:
                host.share_of = (inner.policy.share, inner)
                inner = host
        assert inner is not None
        chain = _chain(inner)
        for host in chain:
            host.siblings = tuple(other for other in chain if other is not host)
        return inner

    def _forget_idle(self) -> None:
        now = self.now()
        chains = ((origin, _chain(first)) for origin, first in self._hosts.items())
        idle = [(origin, chain) for origin, chain in chains if not any(host.is_in_use(now) for host in chain)]
        idle.sort(key=lambda item: max(host.used for host in item[1]))
        for origin, chain in idle[: _MAX_HOSTS // 4]:
            del self._hosts[origin]
            for host in chain:
                del self._by_queue[host.queue]
        self._by_prefix.clear()
        # Where most are in use, it is not looked through again for each new one.
        self._most_hosts = max(_MAX_HOSTS, len(self._hosts) + _MAX_HOSTS // 8)

    def all_hosts(self) -> list[Host]:
        """Every record, those for shares of requests too."""
        return list(self._by_queue.values())

    # ── limits ──────────────────────────────────────────────────────────────────

    def grant(self, call: QueuedCall) -> None:
        """Start calls that the limiter has let in, one after the other, not nested."""
        if self._granting is not None:
            self._granting.append(call)
            return
        self._granting = [call]
        try:
            for number in count():
                if number >= len(self._granting):
                    break
                try:
                    self._granting[number].granted()
                except Exception as error:  # noqa: BLE001  the next in line still get their turn
                    self.report("a call could not start", error)
        finally:
            self._granting = None

    def give_slot(self, host: Host, now: float) -> None:
        """An attempt is over: the next in line may start."""
        call = self.slots.give(host.queue, now)
        if call is not None and not self.closing:
            self.grant(call)

    def grant_all(self, now: float) -> None:
        """Start whatever may start."""
        while not self.closing and (call := self.slots.next_ticket(now)) is not None:
            self.grant(call)

    def _on_blocked(self, queue: HostQueue[QueuedCall]) -> None:
        """Calls wait in a blocked queue: wake it when it opens, or when its host is given up."""
        when = queue.blocked_until
        host = self._by_queue.get(queue)
        if host is not None and not host.given_up:
            when = min(when, host.give_up_at(self.rules.park))
        self.timers.at(when, lambda: self._wake(queue))

    def _wake(self, queue: HostQueue[QueuedCall]) -> None:
        now = self.now()
        host = self._by_queue.get(queue)
        if host is not None:
            if now >= host.give_up_at(self.rules.park):
                self.give_up(host)
            if host.breaker is not None and host.breaker.cool(now):
                self.reconsider(host, now)
        self.slots.open(queue, now)
        self.grant_all(now)

    def reconsider(self, host: Host, now: float) -> None:
        """The host's breaker, pause or limit has changed: emit events, and start or refuse waiting calls."""
        host.refit(now)
        breaker = host.breaker
        if breaker is not None and breaker.generation != host.notified_generation:
            host.notified_generation = breaker.generation
            self.notify(_EVENTS[breaker.state], host, max(0.0, breaker.until - now))
            if breaker.state is State.OPEN:
                _refuse(host, ErrorKind.BREAKER_OPEN, host.breaker_message(now), parked=False)
        if host.paused_until > now >= host.notified_pause:
            host.notified_pause = host.paused_until
            for sibling in host.siblings:
                sibling.pause(host.paused_until)
                sibling.refit(now)
            self.notify("host.paused", host, host.paused_until - now)
        if host.notified_given_up and not host.given_up:
            host.notified_given_up = False
            self.notify("host.up", host, 0.0)
        self.slots.open(host.queue, now)
        self.grant_all(now)

    def give_up(self, host: Host) -> None:
        """The host has been away for too long: end what waits for it."""
        host.given_up = True
        if not host.notified_given_up:
            host.notified_given_up = True
            self.notify("host.down", host, 0.0)
        _refuse(host, ErrorKind.HOST_DOWN, self.given_up_message(host), parked=True)

    def given_up_message(self, host: Host) -> str:
        """Why a host was given up."""
        return f"{host.label} has had no success for {self.rules.park:g} s"

    # ── events ───────────────────────────────────────────────────────────────────

    def notify(self, kind: EventKind, host: Host, seconds: float) -> None:
        """Report a change of a host."""
        if self.rules.events.on_event is not None:
            self._notify(self.rules.events.on_event, HostEvent(kind, host.label, seconds))

    def notify_attempt(self, request: Request, attempt: Attempt, trace_id: str) -> None:
        """Report the end of an attempt."""
        if self.on_attempt is not None:
            self._notify(self.on_attempt, request, attempt, trace_id)

    def notify_outcome(self, outcome: Outcome) -> None:
        """Report the end of a call."""
        if self.on_outcome is not None:
            self._notify(self.on_outcome, outcome)

    def not_sent(self, error: Exception) -> Error:
        """Why a transfer could not even be started; a defect is reported, too."""
        if is_shortage(error):
            return OUT_OF_FILES
        self.report("a call could not be sent", error)
        kind = "" if isinstance(error, YelpazeError) else f"{type(error).__name__}: "
        return Error(ErrorKind.PROTOCOL, f"could not be sent: {kind}{error}")

    def report(self, message: str, error: Exception) -> None:
        """Tell of an exception in somebody's callback."""
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _notify(self, listener: Callable[..., object], *arguments: object) -> None:
        try:
            listener(*arguments)
        except Exception as error:  # noqa: BLE001  a listener watches, it does not decide
            self.report("a listener raised", error)


def _chain(host: Host) -> list[Host]:
    chain = [host]
    while chain[-1].share_of is not None:
        chain.append(chain[-1].share_of[1])
    return chain


def _refuse(host: Host, kind: ErrorKind, message: str, *, parked: bool) -> None:
    """End the waiting calls that park (or those that don't)."""
    for call in list(host.queue.waiting):
        if call.parks is parked and not call.abandoned:
            call.refused(kind, message)
