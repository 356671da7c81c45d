"""The broker of many nodes: Redis, with Pub/Sub for the fan-out and streams for history.

    {prefix}:{db}:channel:<name>   Pub/Sub: publications, joins, leaves
    {prefix}:stream:<name>     the last publications; an entry's id is its offset
    {prefix}:meta:<name>       o: the last offset, e: the epoch
    {prefix}:result:<length>:<name>:<key>   positions of idempotent publications
    {prefix}:presence:<name>   clients; {prefix}:expiry:<name>: until when
    {prefix}:{db}:control      Pub/Sub: what nodes tell each other

Pub/Sub knows no databases, so its names carry the number: gateways on /0 and /1 of one Redis are apart.

A publication is added to its stream and published by one script, so offsets come in order and none is
without the other. When Redis was away, all positions are compared once it has confirmed our subscriptions.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from yelpaze.live.brokers.broker import UNUSED_TTL, BrokerEvents, HistoryOptions, Query
from yelpaze.live.brokers.redis_pipeline import Pipeline
from yelpaze.live.brokers.redis_pubsub import Listener
from yelpaze.live.brokers.redis_refusals import Refusals, explained
from yelpaze.live.config import Redis as Settings
from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.model.notice import Report

_KEY_TTL = 300

_PUBLISH = """
if KEYS[4] then
  local known = redis.call('HMGET', KEYS[4], 'o', 'e')
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
if KEYS[4] then
  redis.call('HSET', KEYS[4], 'o', o, 'e', e)
  redis.call('EXPIRE', KEYS[4], ARGV[6])
end
redis.call('PUBLISH', KEYS[3], head .. ARGV[1])
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
redis.call('EXPIRE', KEYS[2], o == '0' and ARGV[7] or ARGV[4])
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
_REMOVE_PRESENCE = """
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_PRESENCE = """
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', redis.call('TIME')[1])
for _, client in ipairs(gone) do
  redis.call('HDEL', KEYS[1], client)
  redis.call('ZREM', KEYS[2], client)
end
return redis.call('HVALS', KEYS[1])
"""
_SCRIPTS = (_PUBLISH, _HISTORY, _ADD_PRESENCE, _REMOVE_PRESENCE, _PRESENCE)


class RedisBroker:
    """For many processes and machines. `epochs` gives a new name for each stream. Raises InputError."""

    def __init__(
        self,
        settings: Settings,
        epochs: Callable[[], str],
        report: Report | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._epochs = epochs
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
        self._events: BrokerEvents
        self._pubsub = f"{self._prefix}:{_database(settings.address, self._redis)}"
        report = report or (lambda notice: print(notice, file=sys.stderr))  # noqa: T201
        refusals = Refusals(report, clock)
        self._pipeline = Pipeline(self._redis, _SCRIPTS, refusals.report)
        self._do, self._script = self._pipeline.do, self._pipeline.run
        self._listener = Listener(
            self._redis,
            [self._control],
            before=self._pipeline.load,
            on_message=self._message,
            on_reconnected=self._reconnected,
            on_error=refusals.report,
            report=report,
        )

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _name(self, channel: str) -> str:
        return f"{self._pubsub}:channel:{channel}"

    @property
    def _control(self) -> str:
        return f"{self._pubsub}:control"

    def _reconnected(self) -> None:
        self._events.on_reconnected()

    async def start(self, events: BrokerEvents) -> None:
        """Connect. Raises StoppedError if Redis is not there."""
        self._events = events
        try:
            await self._pipeline.load()
            await self._listener.start()
        except (RedisError, OSError) as error:
            await self.close()
            raise StoppedError(f"Redis at {_shown(self._settings.address)}: {explained(error)}") from None

    async def close(self) -> None:
        """Let go of the connections."""
        await self._listener.close()
        await self._pipeline.close()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def _message(self, name: str, data: bytes) -> None:
        if name == self._control:
            self._events.on_control(data)
            return
        channel = name.removeprefix(self._name(""))
        kind = data[:1]
        if kind == b"p":
            offset, epoch, payload = data[1:].split(b":", 2)
            found = msgspec.json.decode(payload, type=Publication)
            publication = Publication(found.data, found.info, int(offset or 0))
            self._events.on_publication(channel, publication, epoch.decode())
        else:
            info = msgspec.json.decode(data[1:], type=ClientInfo)
            self._events.on_join_leave(channel, info, is_join=kind == b"j")

    async def subscribe(self, channel: str) -> None:
        """Hear of a channel, from when Redis has confirmed it."""
        await self._listener.subscribe(self._name(channel))

    async def unsubscribe(self, channel: str) -> None:
        """Hear no more of it."""
        self._listener.unsubscribe(self._name(channel))

    async def publish(
        self, channel: str, publication: Publication, keep: HistoryOptions | None, idempotency_key: str = ""
    ) -> Position:
        """Add it to the stream, if it is kept, and publish it."""
        keys = [self._key("stream", channel), self._key("meta", channel), self._name(channel)]
        if idempotency_key:  # else it is left out: an empty name is no key that an ACL could allow
            keys.append(self._key("result", str(len(channel)), channel, idempotency_key))
        payload = msgspec.json.encode(publication)
        size, ttl, meta_ttl = (keep.size, _whole(keep.ttl), _whole(keep.meta_ttl)) if keep else (0, 0, 0)
        if keep is None and not idempotency_key:
            await self._do("PUBLISH", self._name(channel), b"p::" + payload)
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
        kept, unused = _whole(meta_ttl), _whole(min(meta_ttl, UNUSED_TTL))
        offset, epoch, entries = await self._script(
            _HISTORY, keys, first, last, limit, kept, self._epochs(), int(query.reverse), unused
        )
        found = [_publication(entry) for entry in entries]
        return History(tuple(found), Position(int(offset), epoch.decode()))

    async def remove_history(self, channel: str) -> None:
        """Forget the publications."""
        await self._do("DEL", self._key("stream", channel))

    async def publish_join_leave(self, channel: str, info: ClientInfo, *, is_join: bool) -> None:
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
        keys = self._key("presence", channel), self._key("expiry", channel)
        await self._script(_REMOVE_PRESENCE, keys, client)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is there."""
        keys = self._key("presence", channel), self._key("expiry", channel)
        found = [msgspec.json.decode(one, type=ClientInfo) for one in await self._script(_PRESENCE, keys)]
        return {info.client: info for info in found}

    async def publish_control(self, message: bytes) -> None:
        """Say something to all nodes."""
        await self._do("PUBLISH", self._control, message)


def _publication(entry: Any) -> Publication:
    id_, fields = entry
    found = msgspec.json.decode(fields[1], type=Publication)
    return Publication(found.data, found.info, int(id_.split(b"-")[0]))


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


def _database(address: str, redis: Redis) -> int:
    """The number of the database. The library passes over a path that is no number, and takes 0."""
    place = urlsplit(address)
    if place.scheme != "unix" and place.path.strip("/") and not place.path.strip("/").isdecimal():
        raise InputError(f"broker.redis.address: {place.path} is no database: they are numbers, such as /1")
    return int(redis.connection_pool.connection_kwargs.get("db") or 0)


def _shown(address: str) -> str:
    """An address without its password."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
