"""An event loop whose time jumps to the next timer, and a network of functions.

With both, minutes of retries, pauses and parking pass in milliseconds, the same way each time.
The engine under test is the real one; only libcurl is replaced.
"""

import asyncio
import random
import selectors
from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import pycurl

from yelpaze import Engine


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never sleeps while a timer is set: it moves the loop's clock instead."""

    loop: "SimulatedLoop"

    def select(self, timeout=None):
        if timeout is None:
            return super().select(None)
        events = super().select(0)
        if not events and timeout > 0:
            self.loop.now += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now


class Answer(msgspec.Struct, frozen=True):
    """What the simulated server does: an answer after `seconds`, or a libcurl error `code`."""

    status: int = 200
    seconds: float = 0.01
    headers: str = ""
    body: bytes = b"{}"
    code: int = 0


Server = Callable[[str, float], Answer]


class _Handle:
    def __init__(self) -> None:
        self.head, self.body = bytearray(), bytearray()
        self.write_error = None
        self.resolve_set = False
        self.shard = None
        self.url = ""
        self.timer: asyncio.TimerHandle | None = None
        self.status = 0
        self.easy = SimpleNamespace(getinfo=self._info)

    def _info(self, what: int) -> object:
        if what == pycurl.RESPONSE_CODE:
            return self.status
        return "" if what == pycurl.PRIMARY_IP else 0

    def limit_connect(self, seconds: float) -> None: ...

    def paused_for(self, now: float) -> float:
        return 0.0

    def prepare(self, url: str, headers: list, body: bytes | None, resolve: str | None) -> None:
        self.url = url
        self.sent = [line if isinstance(line, str) else line.decode() for line in headers]


class SimulatedTransport:
    """Takes the place of libcurl; `log` has the time and URL of every attempt."""

    def __init__(self, server: Server, loop: SimulatedLoop) -> None:
        self._server = server
        self._loop = loop
        self.log: list[tuple[float, str]] = []
        self.under_way: dict[_Handle, None] = {}
        self.most = 0

    def handle(self, _shape: object) -> _Handle:
        return _Handle()

    def shard(self, _number: int) -> object:
        return SimpleNamespace(known_addresses={})

    def start(self, handle: _Handle, _shard: object, done: Callable) -> None:
        self.log.append((self._loop.now, handle.url))
        self.under_way[handle] = None
        self.most = max(self.most, len(self.under_way))
        answer = self._server(handle.url, self._loop.now)

        def end() -> None:
            del self.under_way[handle]
            handle.status = answer.status
            if not answer.code:
                handle.head += f"HTTP/1.1 {answer.status} X\r\n{answer.headers}\r\n".encode()
                handle.body += answer.body
            done(handle, answer.code, "simulated")

        handle.timer = self._loop.call_later(answer.seconds, end)

    def cancel(self, handle: _Handle) -> None:
        if handle.timer is not None:
            handle.timer.cancel()
        self.under_way.pop(handle, None)

    def release(self, handle: _Handle) -> None: ...

    def hold(self, order: int, size: int) -> None: ...

    is_full = False

    def close(self) -> None:
        for handle in list(self.under_way):
            self.cancel(handle)


class Simulation:
    """One simulated run: `Simulation(server).run(main)`, with `main(engine)` a coroutine function."""

    def __init__(self, server: Server, **options: object) -> None:
        self.loop = SimulatedLoop()
        self.transport = SimulatedTransport(server, self.loop)
        self.events: list = []
        self.options = {
            "resolver": "system",
            "rng": random.Random(1),
            "clock": self.loop.time,
            "transport": lambda *_, **__: self.transport,
            "on_event": self.events.append,
            **options,
        }

    @property
    def attempts(self) -> int:
        return len(self.transport.log)

    @property
    def times(self) -> list[float]:
        """Of all attempts, from the start."""
        return [when - 1000.0 for when, _ in self.transport.log]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def run(self, main: Callable):
        async def inside():
            async with Engine(**self.options) as engine:
                self.engine = engine
                return await main(engine)

        try:
            return self.loop.run_until_complete(inside())
        finally:
            self.loop.close()
