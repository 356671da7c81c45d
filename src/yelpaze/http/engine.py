"""The engine's public face: an outcome for every request, never an exception for the network.

async with Engine(concurrency=200) as engine:
    outcome = await engine.send(get("https://example.com/"))
    page = await engine.gather({"user": get(...), "orders": get(...)})
    async for outcome in engine.stream(requests):
        ...
"""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Literal, Self

import msgspec

from yelpaze.http.call import Call
from yelpaze.http.core import Core, EngineOptions
from yelpaze.http.curl_transport import CurlTransport
from yelpaze.http.decoding import offered
from yelpaze.http.handle import HttpVersion, TransportConfig, default_authorities
from yelpaze.http.memory import Memory
from yelpaze.http.options import Defaults, EngineEvents, OnDone, ParkListener, Pending, Tracing
from yelpaze.http.resolver import AsyncResolver, Resolver
from yelpaze.http.shard import SHARD
from yelpaze.http.shared_call import SharedCall
from yelpaze.http.simulated_time import SimulatedLoop
from yelpaze.http.spool import Destination, Spool
from yelpaze.http.stream import stream
from yelpaze.http.timers import Timer
from yelpaze.http.tracer import Tracer
from yelpaze.http.transport import Transport
from yelpaze.model.errors import MisuseError
from yelpaze.model.event import HostEvent
from yelpaze.model.outcome import Attempt, FanOutError, Outcome
from yelpaze.model.request import Request, Timeout, check_headers
from yelpaze.model.statistics import HostStatistics, Statistics
from yelpaze.model.tls import Tls
from yelpaze.model.url import shown
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.breaker import Breaker
from yelpaze.policy.budget import Budget
from yelpaze.policy.hedge import Hedge
from yelpaze.policy.host import HostPolicy, Policies, Policy
from yelpaze.policy.limit import Limit
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.policy.retry import Retry
from yelpaze.process.descriptors import room_for_calls
from yelpaze.version import __version__

_PROXY = re.compile(r"(?:(?:https?|socks4a?|socks5h?)://)?[^/\s]+/?\Z", re.IGNORECASE)
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_MAX_BODY = 64 * 1024 * 1024


class Engine:
    """Calls HTTP servers in bulk, within limits. Use it as an async context manager.

    Limits and policies:

    - `concurrency`, `rate`: calls under way, and starts in time ("500/s"), over all hosts. Fewer calls are
      under way where the process may not open so many files.
      `connections`: kept connections in all (default: `concurrency`; 64 are always kept), 0
      for a new one each call.
    - `limit`: the same for each host; `per_host=20` is short for `limit=Limit(concurrency=20)`.
    - `timeout`: of each attempt; `deadline`: seconds for a whole call, with its retries and
      waiting, None for no limit.
    - `retry`, `budget`, `breaker`, `hedge`: the policies, each for one host; None turns it off.
    - `hosts`: what differs for some hosts, by name or wildcard.
    - `park`: seconds that calls made in bulk (`stream`, flows) wait for a host that is away.
    - `dedupe`: identical GETs under way share one call.

    Transport:

    - `ca_file`: PEM bundle instead of the system's; `client_cert`: a PEM file, or
      (certificate, key[, password]); `verify=False` checks no certificate.
      `tls_groups`: key exchange groups (see `Tls`); `tls_sessions=False` resumes none.
    - `http_version`: "auto" uses HTTP/2 over TLS where the server offers it; "2" uses only
      that, from the first call with many streams on one connection.
    - `proxy`: URL of a proxy for all calls; the environment's is not read.
    - `max_body`: bytes of a decoded body at most; with `truncate`, which takes `compressed=False`, no
      more is read of a longer one, and the answer counts as whole. `max_redirects`: 0 follows none.
    - `memory`: bytes of answers that are being received, or held by rows under way; beyond that
      younger transfers wait, and flows start no rows. The oldest always goes on.
    - `compressed=False`: asks for bodies as they are, and decodes none.
    - `resolver`: "auto" (c-ares), "system" (libcurl's own threads), or what makes a Resolver.
    - `address_guard`: refuses private, local and reserved addresses when they are connected to, for URLs
      that come from other people. It excludes `proxy`. `guard_at="look_up"` checks the addresses that the
      engine's resolver has found, before the call, which costs less; it excludes `resolver="system"`.
    - `secret_headers`: names dropped when a redirect leaves the origin, beside Authorization,
      Cookie and X-API-Key. `correlation_header`: a second one to carry the trace id, such as
      X-Request-ID. `omit_headers`: those that are sent by default and shall not be, such as
      User-Agent, Accept or traceparent.
    - `on_attempt`, `on_outcome`, `on_event`: plain callables that watch (`log_events()`);
      `tracing`: spans (`open_telemetry()`).
    - `rng`, `clock`, `wall_clock`, `transport`: the source of jitter and ids, monotonic seconds (by
      default a `SimulatedLoop`'s, if it runs in one), UNIX seconds, and what carries attempts, such as
      `yelpaze.testing.MockTransport`.

    Raises MisuseError for options that make no sense.
    """

    def __init__(
        self,
        *,
        concurrency: int = 256,
        rate: str | None = None,
        connections: int | None = None,
        per_host: int | Literal["auto"] | None = None,
        limit: Limit | None = None,
        timeout: Timeout | float | None = None,
        deadline: float | None = None,
        retry: Retry | None = Retry(),  # noqa: B008  frozen, as those below
        budget: Budget | None = Budget(),  # noqa: B008
        breaker: Breaker | None = Breaker(),  # noqa: B008
        hedge: Hedge | None = None,
        hosts: Mapping[str, HostPolicy] | None = None,
        park: float = 600.0,
        dedupe: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: str | tuple[str | None, ...] | None = None,
        verify: bool = True,
        http_version: HttpVersion = "auto",
        proxy: str | None = None,
        max_body: int = _MAX_BODY,
        truncate: bool = False,
        max_redirects: int = 10,
        tls_groups: str | None = None,
        tls_sessions: bool = True,
        memory: int = 256 << 20,
        compressed: bool = True,
        resolver: Literal["auto", "system"] | Callable[[], Resolver] = "auto",
        address_guard: AddressGuard | None = None,
        guard_at: Literal["connect", "look_up"] = "connect",
        secret_headers: Iterable[str] = (),
        correlation_header: str | None = None,
        user_agent: str = f"yelpaze/{__version__}",
        omit_headers: Iterable[str] = (),
        on_attempt: Callable[[Request, Attempt, str], object] | None = None,
        on_outcome: Callable[[Outcome], object] | None = None,
        on_event: Callable[[HostEvent], object] | None = None,
        tracing: Tracing | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
        transport: Transport | None = None,
    ) -> None:
        _at_least_one(concurrency=concurrency, max_body=max_body)
        _check_truncate(truncate=truncate, compressed=compressed)
        omit_headers = tuple(omit_headers)
        check_headers([(name, "x") for name in omit_headers])
        if proxy is not None and not (isinstance(proxy, str) and _PROXY.match(proxy)):
            raise MisuseError(
                f"proxy takes a URL such as http://proxy.test:3128 or socks5h://…: {shown(str(proxy))!r}"
            )
        _check_guard(address_guard, guard_at, resolver, proxy, transport)
        if http_version not in ("auto", "1.1", "2"):
            raise MisuseError(f'http_version takes "auto", "1.1" or "2": {http_version!r}')
        if per_host is not None and limit is not None:
            raise MisuseError("per_host is short for limit=Limit(concurrency=…): give one of them")
        if not (isinstance(memory, int) and memory > 0):
            raise MisuseError(f"memory takes a number of bytes, more than 0: {memory!r}")
        if not park > 0:
            raise MisuseError(f"park takes seconds, more than 0: {park!r}")
        if correlation_header is not None:
            check_headers([(correlation_header, "x")])
        if isinstance(timeout, int | float):
            timeout = Timeout(attempt=timeout)
        default = Policy(
            retry=retry,
            timeout=timeout or Timeout(),
            deadline=deadline,
            limit=limit or Limit(concurrency=64 if per_host is None else per_host),
            breaker=breaker,
            budget=budget,
            hedge=hedge,
        )
        HostPolicy(**{name: getattr(default, name) for name in HostPolicy.__struct_fields__})  # checks types
        self.policies = Policies(default, hosts or {})
        self._connections = concurrency if connections is None else connections
        self._resolver = resolver
        self._rng = rng or random.Random()  # noqa: S311  jitter and ids need no secrecy
        self.clock = time.monotonic if clock is None else clock
        self._has_clock = clock is not None
        self._guard = address_guard if guard_at == "connect" else None
        self._wall_clock = wall_clock
        self.secret_headers = frozenset(name.lower() for name in secret_headers)
        self._transport = transport
        self._memory = memory
        self._correlation_header = correlation_header
        self._dedupe = dedupe
        self._rules = EngineOptions(
            policies=self.policies,
            concurrency=concurrency,
            rate=None if rate is None else Gcra(Rate.parse(rate)),
            park=park,
            max_redirects=max_redirects,
            guard=address_guard if guard_at == "look_up" else None,
            max_body=max_body,
            secret_headers=self.secret_headers,
            tracing=tracing,
            events=EngineEvents(on_attempt=on_attempt, on_outcome=on_outcome, on_event=on_event),
        )
        self._config = TransportConfig(
            connect_timeout=default.timeout.connect,
            tls=Tls(_path(ca_file), client_cert, verify, tls_groups),
            authorities=default_authorities(),
            http_version=http_version,
            proxy=proxy,
            max_body=max_body,
            truncate=truncate,
            keep_alive=self._connections > 0,
            accept_encoding=offered() if compressed else "",
            user_agent=user_agent,
            tls_sessions=tls_sessions,
            omit=tuple(name for name in omit_headers if name.lower() != "traceparent"),
        )
        self._traced = not any(name.lower() == "traceparent" for name in omit_headers)
        self._shared_calls: dict[Hashable, SharedCall] = {}
        self._core: Core | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._core is not None or self._closed:
            raise MisuseError("an engine is opened once")
        loop = asyncio.get_running_loop()
        room = room_for_calls(self._rules.concurrency)
        self._rules = msgspec.structs.replace(self._rules, concurrency=room)
        at_once = self.policies.default.limit.concurrency
        widest = room if at_once == "auto" else min(at_once, room)
        memory = Memory(self._memory)
        if not self._has_clock and isinstance(loop, SimulatedLoop):
            self.clock = loop.time
        self._core = Core(
            self._rules,
            transport=self._transport
            or CurlTransport(
                self._config,
                connections=room_for_calls(self._connections) if self._connections else 0,
                shards=-(-widest // SHARD),
                memory=memory,
                loop=loop,
                guard=self._guard,
            ),
            memory=memory,
            resolver=self._new_resolver(),
            tracer=Tracer(self._rng, self._correlation_header, sends=self._traced),
            rng=self._rng,
            clock=self.clock,
            wall=self._wall_clock,
            loop=loop,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _new_resolver(self) -> Resolver | None:
        if self._config.proxy or self._transport is not None or self._resolver == "system":
            return None  # the proxy looks names up, the transport or libcurl does
        return AsyncResolver() if self._resolver == "auto" else self._resolver()

    @property
    def concurrency(self) -> int:
        """Calls under way at most."""
        return self._rules.concurrency

    def _deadline_at(self, seconds: float | None) -> float:
        if seconds is None:
            return float("inf")
        if not (isinstance(seconds, int | float) and seconds > 0):
            raise MisuseError(f"deadline takes a positive number of seconds: {seconds!r}")
        return self.clock() + seconds

    def _open(self) -> Core:
        if self._core is None or self._closed:
            raise MisuseError("the engine is not open: use `async with Engine(...) as engine:`")
        return self._core

    # ── calls ───────────────────────────────────────────────────────────────────

    def submit(
        self,
        request: Request,
        on_done: OnDone,
        *,
        trace_id: str | None = None,
        spool: Spool | None = None,
        defaults: Defaults = Defaults(),  # noqa: B008  frozen
        park_listener: ParkListener | None = None,
        deadline_at: float = float("inf"),
        order: int | None = None,
    ) -> Pending:
        """Start a call without a task or future; `on_done` gets the outcome, on the event loop.

        `trace_id` (32 random hex digits) makes the call part of a trace that has begun elsewhere;
        `defaults` holds where the request itself says nothing. With `park_listener` the call is one
        of many: it parks while its host is away, and `park_listener` hears when it waits.
        `deadline_at` is a time of the engine's `clock`. `order` (`next_order()`) is the age of
        what the call belongs to: while memory is short, the oldest goes on.
        """
        core = self._open()
        if not isinstance(request, Request):
            raise MisuseError(f"a request is made by get(…), post(…) and so on, not {type(request).__name__}")
        shared = self._dedupe if request.dedupe is None else request.dedupe
        if shared and spool is None and request.method in ("GET", "HEAD") and request.body is None:
            return self._join(core, request, on_done, trace_id, defaults, park_listener, deadline_at)
        call = Call(
            core,
            request,
            on_done,
            spool=spool,
            trace_id=trace_id,
            defaults=defaults,
            park_listener=park_listener,
            deadline_at=deadline_at,
            order=order,
        )
        core.calls[call] = None
        try:
            call.start()
        except BaseException:
            call.cancel()
            raise
        return call

    def next_order(self) -> int:
        """For `submit`: younger than all that came before."""
        return self._open().next_order()

    def hold(self, order: int, size: int) -> None:
        """Who has that order keeps so many bytes of answers from now on: they count as memory in use."""
        if self._core is not None:
            self._core.memory.hold(order, size)

    @property
    def is_full(self) -> bool:
        """Whether callers hold as many bytes as `memory` allows."""
        return self._open().memory.is_full

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` after that long, unless the timer is cancelled or the engine closed."""
        core = self._open()
        return core.timers.at(core.now() + seconds, callback)

    def _join(
        self,
        core: Core,
        request: Request,
        on_done: OnDone,
        trace_id: str | None,
        defaults: Defaults,
        park_listener: ParkListener | None,
        deadline_at: float,
    ) -> Pending:
        """Share the answer of an identical call under way, or be the first of them."""
        parks = park_listener is not None
        options = (
            request.timeout,
            request.deadline,
            request.retry,
            request.tls,
            request.redirects,
            request.connect,
            defaults,
            parks,
        )
        key = (request.method, request.url, request.headers, options)
        shared_call = self._shared_calls.get(key)
        if shared_call is not None:
            core.shared += 1
            return shared_call.join(request, on_done, park_listener, deadline_at)
        trace_id = trace_id or core.tracer.trace_id_of(request)
        shared_call = self._shared_calls[key] = SharedCall(
            core, trace_id, lambda: self._shared_calls.pop(key, None)
        )
        first = shared_call.join(request, on_done, park_listener, deadline_at)
        alone = msgspec.structs.replace(request, dedupe=False)
        try:
            shared_call.call = self.submit(
                alone,
                shared_call.completed,
                trace_id=trace_id,
                defaults=defaults,
                park_listener=shared_call if parks else None,
            )
        except BaseException:
            del self._shared_calls[key]
            raise
        return first

    async def send(
        self,
        request: Request,
        *,
        to: Destination | None = None,
        deadline: float | None = None,
        trace_id: str | None = None,
    ) -> Outcome:
        """Make one call. With `to`, a good answer's body goes to that file or callable.

        `deadline` in seconds bounds the whole call. `trace_id`: 32 hex digits that the call carries in
        traceparent and the correlation header; by default its own. A file is whole or absent. Raises
        OSError when the file cannot be written, and what the callable raises; never for the network.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        spool = None if to is None else Spool(to)

        def on_done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        until = self._deadline_at(deadline)
        call = self.submit(request, on_done, spool=spool, trace_id=_trace_id(trace_id), deadline_at=until)
        try:
            outcome = await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        if spool is not None and spool.error is not None:
            raise spool.error
        return outcome

    async def gather(
        self,
        requests: Mapping[str, Request],
        *,
        mode: Literal["settle", "fail_fast"] = "settle",
        deadline: float | None = None,
        trace_id: str | None = None,
    ) -> dict[str, Outcome]:
        """Make named calls at once; the dict has the order given.

        After `deadline` seconds, what has not come ends with an error of kind
        `timeout.deadline`, so the rest can still be used.
        `settle` waits for all of them. `fail_fast` cancels the rest at the first failure
        and raises FanOutError with it and what had arrived. `trace_id` (32 hex digits) is that of all of
        them: one id for a page that is made of many calls.
        """
        if mode not in ("settle", "fail_fast"):
            raise MisuseError(f'mode takes "settle" or "fail_fast": {mode!r}')
        if not isinstance(requests, Mapping):
            raise MisuseError(f"gather takes a dict of names and requests, not {type(requests).__name__}")
        outcomes: dict[str, Outcome] = {}
        finished: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def on_done(name: str, outcome: Outcome) -> None:
            outcomes[name] = outcome
            if finished.done():
                return
            if mode == "fail_fast" and not outcome.ok:
                finished.set_result(name)
            elif len(outcomes) == len(requests):
                finished.set_result(None)

        until = self._deadline_at(deadline)
        trace_id = _trace_id(trace_id)
        calls = [
            self.submit(
                request,
                lambda outcome, name=name: on_done(name, outcome),  # type: ignore[misc]
                trace_id=trace_id,
                deadline_at=until,
            )
            for name, request in requests.items()
        ]
        if not calls:
            return {}
        try:
            failed = await finished
        finally:
            for call in calls:
                call.cancel()
        if failed is not None:
            arrived = {name: outcomes[name] for name in requests if name in outcomes and outcomes[name].ok}
            raise FanOutError(failed, outcomes[failed], arrived)
        return {name: outcomes[name] for name in requests}

    def stream(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Call each request, taken lazily; outcomes come as they complete.

        `concurrency` bounds calls under way and outcomes not yet taken, so memory does not
        depend on the input's length. Calls that wait for a host (its limit, a pause, an open
        breaker) are parked, up to eight times as many, so that other hosts go on.
        `ordered=True` keeps the input's order and parks none.
        """
        self._open()
        if isinstance(requests, Request):
            raise MisuseError("stream takes requests, many of them; send makes one call")
        size = concurrency or self._rules.concurrency
        _at_least_one(concurrency=size)
        return stream(self.submit, requests, size=size, ordered=ordered)

    def statistics(self, *, by_host: bool = True) -> Statistics:
        """A snapshot of the counters; after closing, as they were then."""
        core = self._core
        if core is None:
            return Statistics(requests=0, attempts=0, retries=0, hedges=0, shared=0, in_flight=0, hosts={})
        now = core.now()
        return Statistics(
            requests=core.requests,
            attempts=core.attempts,
            retries=core.retries,
            hedges=core.hedges,
            shared=core.shared,
            in_flight=len(core.calls),
            hosts={host.label: host.statistics(now) for host in core.all_hosts()} if by_host else {},
            unmatched=tuple(sorted(self.policies.unmatched)),
        )

    def troubles(self) -> dict[str, HostStatistics]:
        """The hosts to which calls can't go now: away, given up, or paused."""
        core = self._core
        if core is None:
            return {}
        now = core.now()
        ill = (
            host for host in core.all_hosts() if host.breaker_open or host.given_up or host.paused_until > now
        )
        return {host.label: host.statistics(now) for host in ill}

    async def close(self, *, drain: float = 0.0) -> None:
        """Close every socket. Calls under way get `drain` seconds to end, then are aborted.

        An aborted call's outcome is an error of kind `cancelled`.
        """
        if self._closed or self._core is None:
            self._closed = True
            return
        core = self._core
        give_up = core.now() + drain
        while core.calls and core.now() < give_up:  # noqa: ASYNC110  no cost to any call for this
            await asyncio.sleep(min(0.01, drain))
        self._closed = core.closing = True
        for call in list(core.calls):
            call.abort("the engine was closed")
        core.timers.close()
        core.transport.close()
        if core.resolver is not None:
            await core.resolver.close()


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise MisuseError(f"{name} takes a whole number of at least 1: {value!r}")


def _check_truncate(*, truncate: bool, compressed: bool) -> None:
    if truncate and compressed:
        raise MisuseError("truncate takes compressed=False: a part of a coded body cannot be decoded")


def _trace_id(given: str | None) -> str | None:
    """The id, checked (W3C Trace Context §3.2.2.3); a UUID with its dashes is taken as well."""
    if given is None:
        return None
    text = given.replace("-", "").lower() if isinstance(given, str) else ""
    if not _TRACE_ID.fullmatch(text) or not text.strip("0"):
        raise MisuseError(f"trace_id takes 32 hex digits, not all of them 0, or a UUID: {given!r}")
    return text


def _path(given: str | os.PathLike[str] | None) -> str | None:
    """Text for a path; what is none is refused by who takes it."""
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _check_guard(
    guard: object, guard_at: str, resolver: object, proxy: str | None, transport: Transport | None
) -> None:
    if guard is not None and not isinstance(guard, AddressGuard):
        raise MisuseError(f"address_guard takes AddressGuard(…), not {type(guard).__name__}")
    if guard is not None and (proxy is not None or transport is not None):
        other = "proxy" if proxy is not None else "transport"
        raise MisuseError(f"address_guard cannot see where a {other} connects to: give one of them")
    if guard_at not in ("connect", "look_up"):
        raise MisuseError(f'guard_at takes "connect" or "look_up": {guard_at!r}')
    if guard_at == "look_up" and (resolver == "system" or guard is None):
        raise MisuseError('guard_at="look_up" takes an address_guard and the engine\'s own resolver')
