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
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Literal, Self

import certifi
import msgspec

from yelpaze.http.call import Call, Defaults, OnDone
from yelpaze.http.core import Core
from yelpaze.http.handle import HttpVersion, Wire
from yelpaze.http.resolver import AsyncResolver, Resolver
from yelpaze.http.spool import Spool, Target
from yelpaze.http.stream import stream
from yelpaze.http.transport import SHARD, Transport
from yelpaze.model.errors import FanOutError, MisuseError
from yelpaze.model.outcome import Outcome
from yelpaze.model.request import Request, Timeout
from yelpaze.policy.retry import Retry
from yelpaze.policy.slots import Slots
from yelpaze.version import __version__

_MAX_BODY = 64 * 1024 * 1024


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the engine was opened, and what is under way now."""

    requests: int
    attempts: int
    retries: int
    in_flight: int


class Engine:
    """Calls HTTP servers in bulk, within limits. Use it as an async context manager.

    - `concurrency`: calls under way in all; `per_host`: to one origin; `connections`: kept
      connections in all (default: `concurrency`; 64 are always kept), 0 for a new one each call.
    - `timeout`, `retry`: the policies; `retry=None` makes one attempt each.
    - `ca_file`: PEM bundle instead of the system's; `client_cert`: a PEM file, or
      (certificate, key); `verify=False` checks no certificate.
    - `http_version`: "auto" uses HTTP/2 over TLS where the server offers it; "2" uses only
      that, from the first call with many streams on one connection.
    - `proxy`: URL of a proxy for all calls; the environment's is not read.
    - `max_body`: bytes of a decoded body at most. `max_redirects`: 0 follows none.
    - `resolver`: "auto" (c-ares), "system" (libcurl's own threads), or what makes a Resolver.
    - `secret_headers`: names dropped when a redirect leaves the origin, beside Authorization,
      Cookie and X-API-Key.
    - `rng`: the source of jitter and ids, for tests.

    Raises MisuseError for options that make no sense.
    """

    def __init__(
        self,
        *,
        concurrency: int = 256,
        per_host: int = 64,
        connections: int | None = None,
        timeout: Timeout | float | None = None,
        retry: Retry | None = Retry(),  # noqa: B008  frozen
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: str | tuple[str, str] | None = None,
        verify: bool = True,
        http_version: HttpVersion = "auto",
        proxy: str | None = None,
        max_body: int = _MAX_BODY,
        max_redirects: int = 10,
        resolver: Literal["auto", "system"] | Callable[[], Resolver] = "auto",
        secret_headers: Iterable[str] = (),
        user_agent: str = f"yelpaze/{__version__}",
        rng: random.Random | None = None,
    ) -> None:
        _at_least_one(concurrency=concurrency, per_host=per_host, max_body=max_body)
        if http_version not in ("auto", "1.1", "2"):
            raise MisuseError(f'http_version takes "auto", "1.1" or "2": {http_version!r}')
        if isinstance(timeout, int | float):
            timeout = Timeout(attempt=timeout)
        if not isinstance(timeout, Timeout | None) or not isinstance(retry, Retry | None):
            raise MisuseError("timeout takes seconds or a Timeout, retry a Retry or None")
        self._timeout = timeout or Timeout()
        self._retry = retry or Retry(attempts=1)
        self._concurrency = concurrency
        self._per_host = min(per_host, concurrency)
        self._connections = concurrency if connections is None else connections
        self._resolver = resolver
        self._max_redirects = max_redirects
        self._secret = frozenset(name.lower() for name in secret_headers)
        self._rng = rng or random.Random()  # noqa: S311  jitter and ids need no secrecy
        self._wire = Wire(
            connect_timeout=self._timeout.connect,
            ca_file=_ca_file(ca_file),
            client_cert=(client_cert, None) if isinstance(client_cert, str) else client_cert,
            verify=verify,
            http_version=http_version,
            proxy=proxy,
            max_body=max_body,
            keep_alive=self._connections > 0,
            user_agent=user_agent,
        )
        self._core: Core | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._core is not None or self._closed:
            raise MisuseError("an engine is opened once")
        loop = asyncio.get_running_loop()
        shards = -(-self._per_host // SHARD)
        self._core = Core(
            transport=Transport(self._wire, connections=self._connections // shards, loop=loop),
            slots=Slots(total=self._concurrency, per_host=self._per_host),
            resolver=self._new_resolver(),
            retry=self._retry,
            timeout=self._timeout,
            max_redirects=self._max_redirects,
            max_body=self._wire.max_body,
            secret_headers=self._secret,
            rng=self._rng,
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
        if self._wire.proxy or self._resolver == "system":
            return None  # the proxy looks names up, or libcurl does
        return AsyncResolver() if self._resolver == "auto" else self._resolver()

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
    ) -> Call:
        """Start a call without a task or future; `on_done` gets the outcome, on the event loop.

        `trace_id` (32 hex digits) makes the call part of a trace that has begun elsewhere;
        `defaults` holds where the request itself says nothing.
        """
        core = self._open()
        if not isinstance(request, Request):
            raise MisuseError(f"a request is made by get(…), post(…) and so on, not {type(request).__name__}")
        call = Call(core, request, on_done, spool=spool, trace_id=trace_id, defaults=defaults)
        core.calls[call] = None
        try:
            call.begin()
        except BaseException:
            call.cancel()
            raise
        return call

    async def send(self, request: Request, *, to: Target | None = None) -> Outcome:
        """Make one call. With `to`, a good answer's body goes to that file or callable.

        A file is whole or absent. Raises OSError when the file cannot be written, and what
        the callable raises; never for the network.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        spool = None if to is None else Spool(to)

        def on_done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        call = self.submit(request, on_done, spool=spool)
        try:
            outcome = await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        if spool is not None and spool.error is not None:
            raise spool.error
        return outcome

    async def gather(
        self, requests: Mapping[str, Request], *, mode: Literal["settle", "fail_fast"] = "settle"
    ) -> dict[str, Outcome]:
        """Make named calls at once; the dict has the order given.

        `settle` waits for all of them. `fail_fast` cancels the rest at the first failure
        and raises FanOutError with it and what had arrived.
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

        calls = [
            self.submit(request, lambda outcome, name=name: on_done(name, outcome))  # type: ignore[misc]
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
        depend on the input's length. `ordered=True` keeps the input's order; one slow
        answer then holds up at most `concurrency` others.
        """
        self._open()
        size = concurrency or self._concurrency
        _at_least_one(concurrency=size)
        return stream(self.submit, requests, size=size, ordered=ordered)

    def statistics(self) -> Statistics:
        """A snapshot of the counters; after closing, as they were then."""
        core = self._core
        if core is None:
            return Statistics(requests=0, attempts=0, retries=0, in_flight=0)
        return Statistics(
            requests=core.requests,
            attempts=core.attempts,
            retries=core.retries,
            in_flight=len(core.calls),
        )

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
        self._closed = True
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


def _ca_file(given: str | os.PathLike[str] | None) -> str | None:
    """The bundle to trust: the one given, SSL_CERT_FILE, the system's, or certifi's."""
    if given is not None:
        if not os.access(given, os.R_OK):
            raise MisuseError(f"ca_file {os.fspath(given)!r} cannot be read")
        return os.fspath(given)
    return ssl.get_default_verify_paths().cafile or certifi.where()
