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

from yelpaze.http.resolver import Answer as Addresses
from yelpaze.http.resolver import AsyncResolver
from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.conditions import Answer, ConditionResult, check_all
from yelpaze.monitor.probe.dns import check_dns
from yelpaze.monitor.probe.http import HttpChecks, new_engine
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.schedule import Entry
from yelpaze.monitor.probe.sockets import CheckError, check_socket
from yelpaze.policy.address_guard import AddressGuard

_OTHERS_AT_ONCE = 500


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
        self._resolver: AsyncResolver
        self._http: HttpChecks

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        engine = await enter(new_engine(self._concurrency, guard=self._guard))
        others = {
            server: await enter(new_engine(_OTHERS_AT_ONCE, server, self._guard)) for server in self._servers
        }
        self._http = HttpChecks(engine, others, self._wall)
        self._resolver = AsyncResolver()
        self._stack.push_async_callback(self._resolver.close)
        self._stack.push_async_callback(self._end)
        return self

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

    def start(self, entry: Entry, done: OnVerdict) -> None:
        """Begin; `done` is called later, once."""
        if entry.check.options.kind == "http":
            self._http.start(entry, partial(self._judge, entry.check, done))
            return
        task = asyncio.ensure_future(self._other(entry.check, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _judge(self, check: Check, done: OnVerdict, reply: Reply) -> None:
        options = check.options
        conditions = check_all(options.conditions, reply.answer)
        success = all(one.success for one in conditions)
        if reply.error and "[CONNECTED]" not in options.names:
            success = False  # whatever conditions make of no answer
        done(Verdict(reply, conditions, success))

    async def _other(self, check: Check, done: OnVerdict) -> None:
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
        self._judge(check, done, reply)

    def _checked(self, check: Check) -> Coroutine[Any, Any, Reply]:
        match check.options.kind:
            case "dns":
                return check_dns(check, self._channels)
            case "icmp":
                from yelpaze.monitor.probe.icmp import check_icmp  # noqa: PLC0415  rarely used

                return check_icmp(check, self._resolve)
            case "grpc":
                from yelpaze.monitor.probe.health import check_grpc  # noqa: PLC0415  an extra

                return check_grpc(check)
            case _:
                return check_socket(check, self._resolve)

    async def _resolve(self, host: str, seconds: float) -> tuple[str, ...]:
        if ":" in host or host.replace(".", "").isdecimal():
            return self._guarded((host,))
        known = self._resolver.cached(host)
        if known is None:
            future: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
            self._resolver.look_up(host, partial(_settle, future), seconds)
            known = await future
        if known.error:
            raise CheckError("dns", f"{known.error} ({known.code})" if known.code else known.error)
        return self._guarded(known.addresses)

    def _guarded(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if self._guard is None:
            return addresses
        refusals = [self._guard.refusal(one) for one in addresses]
        permitted = tuple(one for one, why in zip(addresses, refusals, strict=True) if why is None)
        if not permitted:
            raise CheckError("blocked_address", str(refusals[0]))
        return permitted


def _settle(future: "asyncio.Future[Addresses]", found: Addresses) -> None:
    if not future.done():  # else the check has timed out
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
            checker.start(Entry(check), future.set_result)
            pending.append(future)
        return list(await asyncio.gather(*pending))
