"""Makes single checks of every kind, and judges their answers. When, and for whom, is not its business."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiodns
import msgspec

from yelpaze.http.engine import Engine
from yelpaze.http.resolver import Answer as Addresses
from yelpaze.http.resolver import AsyncResolver
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer, ConditionResult, check_all
from yelpaze.monitor.probe.dns import check_dns
from yelpaze.monitor.probe.http import HttpChecks, new_engine
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.schedule import Entry
from yelpaze.monitor.probe.sockets import CheckError, check_socket
from yelpaze.policy.address_guard import AddressGuard

_OTHERS_AT_ONCE = 500
_NOT_TRIED = frozenset({"blocked_address", "permission", "unsupported", "internal", "request"})


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a check came to: its reply, the result of each condition, and whether all is well."""

    reply: Reply
    conditions: list[ConditionResult]
    success: bool


OnVerdict = Callable[[Verdict], None]


class Checker:
    """Use it as an async context manager.

    Args:
        checks: Those that it will make; name servers of their own are taken from them.
        concurrency: HTTP checks at once.
        allow: Networks that may be checked although they are private; None guards nothing.
        report: Is called with defects.
        wall: UNIX seconds.

    """

    def __init__(
        self,
        checks: Iterable[Check],
        concurrency: int,
        allow: Iterable[str] | None,
        report: Report,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._servers = {one.options.resolver for one in checks if one.options.resolver}
        self._concurrency = concurrency
        self._guard = None if allow is None else AddressGuard(allow)
        self._report = report
        self._wall = wall
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._others = asyncio.Semaphore(_OTHERS_AT_ONCE)
        self._channels: dict[tuple[str, float], aiodns.DNSResolver] = {}
        self._resolvers: dict[str, AsyncResolver] = {}
        self._engines: dict[str, Engine] = {}
        self._http: HttpChecks

    async def __aenter__(self) -> Self:
        engine = new_engine(self._concurrency, guard=self._guard)
        await self._stack.enter_async_context(engine)
        await self._prepare(self._servers)
        self._http = HttpChecks(engine, self._engines, self._wall)
        self._stack.push_async_callback(self._end)
        return self

    async def prepare(self, checks: Iterable[Check]) -> None:
        """Make ready for other checks."""
        await self._prepare({one.options.resolver for one in checks if one.options.resolver})

    async def _prepare(self, servers: set[str]) -> None:
        for server in servers - self._engines.keys():
            engine = new_engine(_OTHERS_AT_ONCE, server, self._guard)
            self._engines[server] = await self._stack.enter_async_context(engine)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        for resolver in self._resolvers.values():
            await resolver.close()

    def start(self, entry: Entry, done: OnVerdict) -> None:
        """Begin; `done` is called later, once."""
        if entry.check.options.kind == "http":
            judge = partial(self._judge, entry, done)
            try:
                self._http.start(entry, judge)
            except MisuseError as error:  # files of the client's certificate may change on disk
                kind = "tls" if entry.check.options.certificate or entry.check.options.ca_file else "request"
                asyncio.get_running_loop().call_soon(judge, Reply(Answer(), kind, str(error)))
            return
        task = asyncio.ensure_future(self._other(entry, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _judge(self, entry: Entry, done: OnVerdict, reply: Reply) -> None:
        options = entry.check.options
        conditions = check_all(options.conditions, reply.answer)
        success = all(one.success for one in conditions)
        is_asked = "[CONNECTED]" in options.names and not reply.answer.connected
        if reply.error and (not is_asked or reply.error in _NOT_TRIED):
            success = False  # whatever conditions make of no answer, unless they ask for it
        if not success and "[CERTIFICATE_EXPIRATION]" in options.names:
            entry.looked_at = 0.0  # it may be renewed any time
        done(Verdict(reply, conditions, success))

    async def _other(self, entry: Entry, done: OnVerdict) -> None:
        check = entry.check
        async with self._others:
            try:
                reply = await self._checked(check)
            except CheckError as error:
                reply = Reply(Answer(), error.kind, str(error))
            except MisuseError as error:  # an extra is missing
                reply = Reply(Answer(), "unsupported", str(error))
            except Exception as error:  # noqa: BLE001  one check's defect must not end the others
                self._report(Notice("check.broken", f"{check.title}: {error!r}", Level.ERROR))
                reply = Reply(Answer(), "internal", repr(error))
        self._judge(entry, done, reply)

    def _checked(self, check: Check) -> Coroutine[Any, Any, Reply]:
        resolve = partial(self._resolve, check)
        match check.options.kind:
            case "dns":
                return check_dns(check, self._channels, self._guarded)
            case "icmp":
                from yelpaze.monitor.probe.icmp import check_icmp  # noqa: PLC0415  rarely used

                return check_icmp(check, resolve)
            case "grpc":
                from yelpaze.monitor.probe.health import check_grpc  # noqa: PLC0415  an extra

                return check_grpc(check, resolve)
            case _:
                return check_socket(check, resolve)

    async def _resolve(self, check: Check, host: str) -> tuple[str, ...]:
        """The addresses of a host that may be connected to. Raises CheckError."""
        if ":" in host or host.replace(".", "").isdecimal():
            return self._guarded((host,))
        options = check.options
        resolver = self._resolvers.get(options.resolver)
        if resolver is None:
            servers = [options.resolver] if options.resolver else None
            resolver = self._resolvers[options.resolver] = AsyncResolver(servers)
        known = resolver.cached(host)
        if known is None:
            future: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
            resolver.look_up(host, partial(_settle, future), options.timeout)
            known = await future
        if known.error:
            raise CheckError("dns", f"{known.error} ({known.code})" if known.code else known.error)
        addresses = known.addresses
        if options.ip_family is not None:
            is_6 = options.ip_family == 6  # noqa: PLR2004
            addresses = tuple(one for one in addresses if (":" in one) is is_6)
            if not addresses:
                raise CheckError("dns", f"cannot resolve {host!r}: it has no IPv{options.ip_family} address")
        return self._guarded(addresses)

    def _guarded(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if self._guard is None:
            return addresses
        refusals = [self._guard.refusal(one) for one in addresses]
        permitted = tuple(one for one, why in zip(addresses, refusals, strict=True) if why is None)
        if not permitted:
            raise CheckError("blocked_address", str(refusals[0]))
        return permitted


def _settle(future: "asyncio.Future[Any]", found: Any) -> None:
    if not future.done():  # else nobody waits any more
        future.set_result(found)


async def check_once(
    checks: list[Check], concurrency: int, allow: Iterable[str] | None, report: Report
) -> list[Verdict]:
    """Make each check once; the verdicts in their order."""
    loop = asyncio.get_running_loop()
    async with Checker(checks, concurrency, allow, report) as checker:
        pending: list[asyncio.Future[Verdict]] = []
        for check in checks:
            future: asyncio.Future[Verdict] = loop.create_future()
            checker.start(Entry(check), partial(_settle, future))
            pending.append(future)
        return list(await asyncio.gather(*pending))
