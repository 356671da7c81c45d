"""Names to addresses, outside libcurl: one look-up a name at a time, cached by its TTL.

libcurl's own resolver has about 20 threads, so a hundred dead names hold up a good one
for seconds. This one is c-ares, through aiodns: no threads, each look-up on its own.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiodns
import msgspec

# Bounds for what name servers say, in seconds; a failure is remembered briefly.
_TTL_MIN, _TTL_MAX, _TTL_FAILED = 1.0, 300.0, 2.0
_MAX_NAMES = 10_000
_NO_SEARCH = 1 << 5  # ARES_FLAG_NOSEARCH, which aiodns does not name
_AT_ONCE = 1000
# The name server's answer (RFC 1035, section 4.1.1), and what c-ares adds.
_CODES = {
    aiodns.error.ARES_ENOTFOUND: "NXDOMAIN",
    aiodns.error.ARES_ENODATA: "NODATA",
    aiodns.error.ARES_ESERVFAIL: "SERVFAIL",
    aiodns.error.ARES_EREFUSED: "REFUSED",
    aiodns.error.ARES_ENOTIMP: "NOTIMP",
    aiodns.error.ARES_EFORMERR: "FORMERR",
    aiodns.error.ARES_ETIMEOUT: "TIMEOUT",
    aiodns.error.ARES_ECONNREFUSED: "UNREACHABLE",
}
_NOT_FOUND = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA})


class Answer(msgspec.Struct, frozen=True):
    """The addresses of a name, in the order to try them; or why there are none.

    `code`: why there are none, for programs: NXDOMAIN, NODATA, SERVFAIL, REFUSED, TIMEOUT, …
    """

    addresses: tuple[str, ...]
    error: str
    expires: float
    code: str = ""


class Resolver(Protocol):
    """What the engine asks: a cached answer at once, or a look-up."""

    def cached(self, host: str) -> Answer | None:
        """The answer if it is known and fresh."""

    def look_up(self, host: str, done: Callable[[Answer], None], timeout: float) -> None:
        """Call `done` with the answer, within `timeout` seconds; look-ups of one name are shared."""

    async def close(self) -> None:
        """Give up what is under way."""


class AsyncResolver:
    """c-ares on the running event loop. `nameservers` (host or host:port) default to the system's.

    `names`: how many are remembered. `at_once`: look-ups under way at most; others wait, within their time.
    """

    def __init__(
        self, nameservers: Sequence[str] | None = None, *, names: int = _MAX_NAMES, at_once: int = _AT_ONCE
    ) -> None:
        self._names = names
        self._room = asyncio.Semaphore(at_once)
        self._loop = asyncio.get_running_loop()
        self._nameservers = list(nameservers) if nameservers else None
        self._channels: dict[bool, aiodns.DNSResolver] = {}
        self._cache: OrderedDict[str, Answer] = OrderedDict()
        self._pending: dict[str, list[Callable[[Answer], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def cached(self, host: str) -> Answer | None:
        answer = self._cache.get(host)
        if answer is None or answer.expires <= self._loop.time():
            return None
        return answer

    def look_up(self, host: str, done: Callable[[Answer], None], timeout: float) -> None:
        waiting = self._pending.get(host)
        if waiting is not None:
            waiting.append(done)
            return
        self._pending[host] = [done]
        task = self._loop.create_task(self._resolve(host, timeout))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pending.clear()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _resolve(self, host: str, timeout: float) -> None:  # noqa: ASYNC109
        # A final dot says that the name is whole (RFC 1034 §3.1): no search domain is added, but
        # /etc/hosts, where names have no dot at the end, still applies.
        is_whole = host.endswith(".")
        try:
            async with asyncio.timeout(timeout), self._room:
                channel = self._channel(is_whole=is_whole)
                result = await channel.getaddrinfo(host.removesuffix("."), type=socket.SOCK_STREAM)
        except TimeoutError:
            text = f"no name server answered for {host!r} within {timeout:g} s"
            answer = self._failed(text, "TIMEOUT")
        except aiodns.error.DNSError as error:
            code, text = error.args[0], error.args[1] if len(error.args) > 1 else ""
            reason = "there is no such name" if code in _NOT_FOUND else text
            answer = self._failed(f"cannot resolve {host!r}: {reason}", _CODES.get(code, "ERROR"))
        except Exception as error:  # noqa: BLE001  whatever c-ares refuses: whoever waits must hear of it
            answer = self._failed(f"cannot resolve {host!r}: {error}", "ERROR")
        else:
            answer = self._found(host, result.nodes)
        self._store(host, answer)
        for done in self._pending.pop(host, ()):
            done(answer)

    def _channel(self, *, is_whole: bool) -> aiodns.DNSResolver:
        channel = self._channels.get(is_whole)
        if channel is None:
            options: dict[str, Any] = {"flags": _NO_SEARCH} if is_whole else {}
            channel = self._channels[is_whole] = aiodns.DNSResolver(self._nameservers, **options)
        return channel

    def _found(self, host: str, nodes: "Sequence[object]") -> Answer:
        addresses = tuple(dict.fromkeys(_text(node.addr[0]) for node in nodes))  # type: ignore[attr-defined]
        if not addresses:
            return self._failed(f"cannot resolve {host!r}: it has no address", "NODATA")
        ttl = min((node.ttl for node in nodes), default=0)  # type: ignore[attr-defined]
        return Answer(addresses, "", self._loop.time() + min(max(ttl, _TTL_MIN), _TTL_MAX))

    def _failed(self, why: str, code: str) -> Answer:
        return Answer((), why, self._loop.time() + _TTL_FAILED, code)

    def _store(self, host: str, answer: Answer) -> None:
        self._cache[host] = answer
        self._cache.move_to_end(host)
        if len(self._cache) > self._names:
            self._cache.popitem(last=False)


def _text(address: bytes | str) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address
