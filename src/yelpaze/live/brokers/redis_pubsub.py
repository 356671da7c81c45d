"""Pub/Sub over a connection of its own, which is made again when it is lost.

Nobody can say what was missed meanwhile. So all channels are subscribed again, and once Redis has confirmed
that, who listens is told (`on_reconnected`).
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from yelpaze.live.brokers.broker import BrokerUnavailable
from yelpaze.live.brokers.redis_pipeline import settle
from yelpaze.model.notice import Level, Notice, Report

_BATCH = 1000
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_QUIET = 3.0  # seconds of silence after which we ask whether it is there


class Listener:
    """Channels by their names in Redis.

    `always` are heard from the start. `before` is done before each new beginning. `on_error` is called with
    each error of Redis.
    """

    def __init__(
        self,
        redis: Redis,
        always: Iterable[str],
        *,
        before: Callable[[], Awaitable[None]],
        on_message: Callable[[str, bytes], None],
        on_reconnected: Callable[[], None],
        on_error: Callable[[Exception], None],
        report: Report,
    ) -> None:
        self._redis = redis
        self._always = tuple(always)
        self._before = before
        self._on_message = on_message
        self._on_reconnected = on_reconnected
        self._on_error = on_error
        self._report = report
        self._names: dict[str, asyncio.Future[None] | None] = {}  # wanted; the future until confirmed
        self._unsent: list[tuple[str, str]] = []
        self._pubsub: PubSub | None = None  # while it is up
        self._is_away = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin. Raises RedisError, OSError."""
        self._keep(self._listen(await self._subscribed_anew()))

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Hear no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lost_waiting()
        if self._pubsub is not None:
            await cast(Awaitable[None], self._pubsub.aclose())  # type: ignore[no-untyped-call]
            self._pubsub = None

    async def _subscribed_anew(self) -> PubSub:
        """A connection that hears of all that is wanted; what is confirmed comes in `_listen`."""
        pubsub: PubSub = self._redis.pubsub()
        names = [*self._always, *self._names]
        for start in range(0, len(names), _BATCH):
            await pubsub.subscribe(*names[start : start + _BATCH])
        self._unsent.clear()
        self._pubsub = pubsub
        return pubsub

    async def _listen(self, pubsub: PubSub) -> None:
        """Hear what comes, and begin anew when the connection is lost."""
        is_first = True
        while True:
            try:
                await self._hear(pubsub, is_first=is_first)
            except (RedisError, OSError) as error:
                self._lost(error)
            self._pubsub = None
            with contextlib.suppress(RedisError, OSError):
                await cast(Awaitable[None], pubsub.aclose())  # type: ignore[no-untyped-call]
            is_first = False
            pubsub = await self._again()

    async def _again(self) -> PubSub:
        for number in range(sys.maxsize):
            await asyncio.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
            try:
                # Connections of commands are as dead, and it would be a command that notices.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._before()
                return await self._subscribed_anew()
            except (RedisError, OSError) as error:
                self._on_error(error)
        raise AssertionError

    async def _hear(self, pubsub: PubSub, *, is_first: bool) -> None:
        missing = len(self._always) + len(self._names)  # confirmations of what was subscribed at once
        is_asked = False
        while True:
            message = await pubsub.get_message(timeout=_QUIET)
            if message is None:
                if is_asked:
                    raise ConnectionError("Redis is silent")
                is_asked = True
                await pubsub.ping()
                continue
            is_asked = False
            kind = message["type"]
            if kind == "message":
                self._heard(message["channel"].decode(errors="replace"), message["data"])
            elif kind == "subscribe":
                self._confirmed(message["channel"])
                missing -= 1
                if missing == 0 and not is_first:
                    self._reconnected()

    def _heard(self, name: str, data: bytes) -> None:
        try:
            self._on_message(name, data)
        except Exception as error:  # noqa: BLE001  whatever one message does, the next ones are heard
            text = f"a message on {name} in Redis was not understood: {error!r}"
            self._report(Notice("message.bad", text, Level.WARNING))

    def _lost(self, error: Exception) -> None:
        self._lost_waiting()
        self._on_error(error)
        if not self._is_away:
            self._is_away = True
            text = f"Redis is away ({error}); clients stay, what they ask for fails until then"
            self._report(Notice("broker.away", text, Level.WARNING))

    def _lost_waiting(self) -> None:
        """Who waits for a confirmation is not kept waiting."""
        for name, waiting in list(self._names.items()):
            if waiting is not None:
                del self._names[name]
                settle(waiting, BrokerUnavailable())

    def _reconnected(self) -> None:
        self._is_away = False
        self._report(Notice("broker.back", "Redis is back; all positions are compared"))
        self._on_reconnected()

    def _confirmed(self, name: bytes) -> None:
        found = name.decode()
        waiting = self._names.get(found)
        if waiting is not None:
            self._names[found] = None
            settle(waiting, None)

    async def subscribe(self, name: str) -> None:
        """Hear of a name, from when Redis has confirmed it."""
        if name in self._names and self._names[name] is None:
            return
        if self._pubsub is None:
            raise BrokerUnavailable
        waiting = self._names.get(name)
        if waiting is None:
            waiting = self._names[name] = asyncio.get_running_loop().create_future()
            self._wanted("subscribe", name)
        try:
            await waiting
        except BaseException:
            if self._names.get(name) is waiting:
                del self._names[name]
            raise

    def unsubscribe(self, name: str) -> None:
        """Hear no more of it."""
        if name in self._names:
            waiting = self._names.pop(name)
            if waiting is not None:
                settle(waiting, BrokerUnavailable())
            self._wanted("unsubscribe", name)

    def _wanted(self, what: str, name: str) -> None:
        self._unsent.append((what, name))
        if len(self._unsent) == 1:
            asyncio.get_running_loop().call_soon(lambda: self._keep(self._send_wanted()))

    async def _send_wanted(self) -> None:
        """Send what is wanted, in order; neighbours of one kind together."""
        pubsub, unsent = self._pubsub, self._unsent
        self._unsent = []
        if pubsub is None:
            return
        try:
            for what, names in _runs(unsent):
                send = pubsub.subscribe if what == "subscribe" else pubsub.unsubscribe
                await send(*names)
        except (RedisError, OSError):
            pass  # the connection is lost: who listens notices, and asks for all that is wanted then


def _runs(wanted: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Neighbours of one kind together, their order kept."""
    runs: list[tuple[str, list[str]]] = []
    for what, channel in wanted:
        if not runs or runs[-1][0] != what:
            runs.append((what, []))
        runs[-1][1].append(channel)
    return runs
