"""The broker of many nodes: Redis, with Pub/Sub for the fan-out and streams for history.

    {prefix}:channel:<name>    Pub/Sub: publications, joins, leaves
    {prefix}:stream:<name>     the last publications; an entry's id is its offset
    {prefix}:meta:<name>       o: the last offset, e: the epoch
    {prefix}:result:<name>:…   positions of idempotent publications
    {prefix}:presence:<name>   clients; {prefix}:expiry:<name>: until when
    {prefix}:control           what nodes tell each other

A publication is added to its stream and published by one script, so offsets come in order and none is
without the other. Commands of one turn of the loop go out as one pipeline, however many clients asked; one
pipeline is under way at a time, so what comes meanwhile makes the next one larger.

Pub/Sub has a connection of its own. When it is lost, nobody can say what was missed: it is made again, all
channels are subscribed again, and once Redis has confirmed that, `returned` has all positions compared.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from yelpaze.live.broker import BrokerAwayError, Events, Keep, Query
from yelpaze.live.config import Redis as Settings
from yelpaze.live.values import ClientInfo, History, Position, Publication
from yelpaze.model.errors import InputError, StoppedError

_KEY_TTL = 300
_BATCH = 1000
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_QUIET = 3.0  # seconds of silence on Pub/Sub after which we ask whether it is there

_PUBLISH = """
if KEYS[3] ~= '' then
  local known = redis.call('HMGET', KEYS[3], 'o', 'e')
  if known[1] then return known end
end
local o, e, head = '0', '', 'p::'
if ARGV[2] ~= '0' then
  e = redis.call('HGET', KEYS[2], 'e')
  if not e then
    e = ARGV[5]
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[2], 'e', e)
  end
  o = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 'o', 1))
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], o .. '-0', 'd', ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  head = 'p' .. o .. ':' .. e .. ':'
end
if KEYS[3] ~= '' then
  redis.call('HSET', KEYS[3], 'o', o, 'e', e)
  redis.call('EXPIRE', KEYS[3], ARGV[6])
end
redis.call('PUBLISH', KEYS[4], head .. ARGV[1])
return {o, e}
"""
_HISTORY = """
local e = redis.call('HGET', KEYS[2], 'e')
if not e then
  e = ARGV[5]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'e', e)
end
local o = redis.call('HGET', KEYS[2], 'o') or '0'
redis.call('EXPIRE', KEYS[2], ARGV[4])
if ARGV[3] == '0' then return {o, e, {}} end
local name = ARGV[6] == '1' and 'XREVRANGE' or 'XRANGE'
if ARGV[3] == '-1' then return {o, e, redis.call(name, KEYS[1], ARGV[1], ARGV[2])} end
return {o, e, redis.call(name, KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])}
"""
_ADD_PRESENCE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
_PRESENCE = """
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', redis.call('TIME')[1])
for _, client in ipairs(gone) do
  redis.call('HDEL', KEYS[1], client)
  redis.call('ZREM', KEYS[2], client)
end
return redis.call('HVALS', KEYS[1])
"""
_SCRIPTS = (_PUBLISH, _HISTORY, _ADD_PRESENCE, _PRESENCE)


class _Call:
    __slots__ = ("arguments", "done")

    def __init__(self, arguments: tuple[Any, ...], done: "asyncio.Future[Any]") -> None:
        self.arguments = arguments
        self.done = done


class RedisBroker:
    """For many processes and machines. `epochs` gives a new name for each stream."""

    def __init__(
        self,
        settings: Settings,
        epochs: Callable[[], str],
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._epochs = epochs
        self._report = report or (lambda text: print(text, file=sys.stderr))  # noqa: T201
        self._prefix = settings.prefix
        try:
            self._redis = Redis.from_url(
                settings.address,
                socket_connect_timeout=settings.connect_timeout,
                socket_timeout=settings.io_timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise InputError(f"broker.redis.address: {error}") from None
        self._events: Events
        self._hashes: dict[str, str] = {}
        self._calls: list[_Call] = []
        self._pump: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pubsub: PubSub | None = None  # while it is up
        self._channels: dict[str, asyncio.Future[None] | None] = {}  # wanted; the future until confirmed
        self._unsent: list[tuple[str, str]] = []
        self._is_away = False

    # ── its life ────────────────────────────────────────────────────────────────

    async def start(self, events: Events) -> None:
        """Connect. Raises StoppedError if Redis is not there."""
        self._events = events
        try:
            await self._load()
            pubsub = await self._subscribed_anew()
        except (RedisError, OSError) as error:
            await self.close()
            raise StoppedError(f"Redis at {_shown(self._settings.address)}: {error}") from None
        self._keep(self._listen(pubsub))

    async def _load(self) -> None:
        for script in _SCRIPTS:
            self._hashes[script] = str(await self._redis.script_load(script))

    def _keep(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Let go of the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all()
        if self._pubsub is not None:
            await cast(Awaitable[None], self._pubsub.aclose())  # type: ignore[no-untyped-call]
            self._pubsub = None
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    # ── Pub/Sub ─────────────────────────────────────────────────────────────────

    async def _subscribed_anew(self) -> PubSub:
        """A connection that hears of all that is wanted; what is confirmed comes in `_listen`."""
        pubsub: PubSub = self._redis.pubsub()
        names = [self._key("control"), *map(self._name, self._channels)]
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
            with contextlib.suppress(RedisError, OSError):
                await self._load()
                return await self._subscribed_anew()
        raise AssertionError

    async def _hear(self, pubsub: PubSub, *, is_first: bool) -> None:
        missing = 1 + len(self._channels)  # confirmations of what was subscribed at once
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
                self._message(message["channel"], message["data"])
            elif kind == "subscribe":
                self._confirmed(message["channel"])
                missing -= 1
                if missing == 0 and not is_first:
                    self._returned()

    def _lost(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._report(
                f"warning: Redis is away ({error}); clients stay, what they ask for fails until then"
            )

    def _returned(self) -> None:
        self._is_away = False
        self._report("Redis is back; all positions are compared")
        self._events.returned()

    def _confirmed(self, name: bytes) -> None:
        channel = name.decode().removeprefix(self._name(""))
        waiting = self._channels.get(channel)
        if waiting is not None:
            self._channels[channel] = None
            if not waiting.done():
                waiting.set_result(None)

    def _message(self, name: bytes, data: bytes) -> None:
        text = name.decode()
        if text == self._key("control"):
            self._events.told(data)
            return
        channel = text.removeprefix(self._name(""))
        kind = data[:1]
        if kind == b"p":
            offset, epoch, payload = data[1:].split(b":", 2)
            found = msgspec.json.decode(payload, type=Publication)
            publication = Publication(found.data, found.info, int(offset or 0))
            self._events.published(channel, publication, epoch.decode())
        else:
            info = msgspec.json.decode(data[1:], type=ClientInfo)
            self._events.announced(channel, info, is_join=kind == b"j")

    async def subscribe(self, channel: str) -> None:
        """Hear of a channel, from when Redis has confirmed it."""
        if channel in self._channels and self._channels[channel] is None:
            return
        if self._pubsub is None:
            raise BrokerAwayError
        waiting = self._channels.get(channel)
        if waiting is None:
            waiting = self._channels[channel] = asyncio.get_running_loop().create_future()
            self._wanted("subscribe", channel)
        try:
            await waiting
        except BaseException:
            if self._channels.get(channel) is waiting:
                del self._channels[channel]
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Hear no more of it."""
        if channel in self._channels:
            waiting = self._channels.pop(channel)
            if waiting is not None and not waiting.done():
                waiting.set_exception(BrokerAwayError())
            self._wanted("unsubscribe", channel)

    def _wanted(self, what: str, channel: str) -> None:
        self._unsent.append((what, channel))
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
                await send(*map(self._name, names))
        except (RedisError, OSError):
            pass  # the connection is lost: who listens notices, and asks for all that is wanted then

    # ── commands ────────────────────────────────────────────────────────────────

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _name(self, channel: str) -> str:
        return self._key("channel", channel)

    async def _do(self, *arguments: Any) -> Any:
        """Send a command with the next pipeline."""
        done = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(arguments, done))
        if self._pump is None:
            self._pump = self._keep(self._pumped())
        return await done

    async def _script(self, script: str, keys: Iterable[str], *arguments: Any) -> Any:
        found = tuple(keys)
        try:
            return await self._do("EVALSHA", self._hashes[script], len(found), *found, *arguments)
        except NoScriptError:  # Redis was emptied
            return await self._do("EVAL", script, len(found), *found, *arguments)

    async def _pumped(self) -> None:
        try:
            while self._calls:
                calls, self._calls = self._calls[:_BATCH], self._calls[_BATCH:]
                await self._execute(calls)
        finally:
            self._pump = None
            if sys.exc_info()[0] is not None:
                self._fail_all()

    async def _execute(self, calls: list[_Call]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.arguments)
        try:
            results = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._lost(error) if self._pubsub is None else None
            results = [BrokerAwayError()] * len(calls)
        except asyncio.CancelledError:
            results = [BrokerAwayError()] * len(calls)
            raise
        finally:
            for call, result in zip(calls, results, strict=True):
                _settle(call.done, result)

    def _fail_all(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            _settle(call.done, BrokerAwayError())
        for waiting in self._channels.values():
            if waiting is not None:
                _settle(waiting, BrokerAwayError())

    # ── what a broker does ──────────────────────────────────────────────────────

    async def publish(
        self, channel: str, publication: Publication, keep: Keep | None, idempotency_key: str = ""
    ) -> Position:
        """Add it to the stream, if it is kept, and publish it."""
        result = self._key("result", channel, idempotency_key) if idempotency_key else ""
        keys = self._key("stream", channel), self._key("meta", channel), result, self._name(channel)
        payload = msgspec.json.encode(publication)
        size, ttl, meta_ttl = (keep.size, _whole(keep.ttl), _whole(keep.meta_ttl)) if keep else (0, 0, 0)
        if keep is None and not idempotency_key:
            await self._do("PUBLISH", keys[3], b"p::" + payload)
            return Position()
        offset, epoch = await self._script(
            _PUBLISH, keys, payload, size, ttl, meta_ttl, self._epochs(), _KEY_TTL
        )
        return Position(int(offset), epoch.decode())

    async def history(self, channel: str, query: Query, meta_ttl: float) -> History:
        """Read a stretch of the stream."""
        first, last = ("+", "-") if query.reverse else ("-", "+")
        if query.since is not None:
            first = f"{query.since.offset + (-1 if query.reverse else 1)}-0"
            if query.reverse and query.since.offset <= 0:
                first = "0-0"
        keys = self._key("stream", channel), self._key("meta", channel)
        limit = max(-1, query.limit)
        offset, epoch, entries = await self._script(
            _HISTORY, keys, first, last, limit, _whole(meta_ttl), self._epochs(), int(query.reverse)
        )
        found = [_publication(entry) for entry in entries]
        return History(tuple(found), Position(int(offset), epoch.decode()))

    async def remove_history(self, channel: str) -> None:
        """Forget the publications."""
        await self._do("DEL", self._key("stream", channel))

    async def announce(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
        """Tell all nodes."""
        await self._do(
            "PUBLISH", self._name(channel), (b"j" if is_join else b"l") + msgspec.json.encode(info)
        )

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Note who is there, for so long."""
        keys = self._key("presence", channel), self._key("expiry", channel)
        await self._script(_ADD_PRESENCE, keys, info.client, msgspec.json.encode(info), _whole(ttl))

    async def remove_presence(self, channel: str, client: str) -> None:
        """Note who is gone."""
        await self._do("HDEL", self._key("presence", channel), client)
        await self._do("ZREM", self._key("expiry", channel), client)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is there."""
        keys = self._key("presence", channel), self._key("expiry", channel)
        found = [msgspec.json.decode(one, type=ClientInfo) for one in await self._script(_PRESENCE, keys)]
        return {info.client: info for info in found}

    async def tell(self, message: bytes) -> None:
        """Say something to all nodes."""
        await self._do("PUBLISH", self._key("control"), message)


def _publication(entry: Any) -> Publication:
    id_, fields = entry
    found = msgspec.json.decode(fields[1], type=Publication)
    return Publication(found.data, found.info, int(id_.split(b"-")[0]))


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


def _runs(wanted: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Neighbours of one kind together, their order kept."""
    runs: list[tuple[str, list[str]]] = []
    for what, channel in wanted:
        if not runs or runs[-1][0] != what:
            runs.append((what, []))
        runs[-1][1].append(channel)
    return runs


def _shown(address: str) -> str:
    """An address without its password."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
