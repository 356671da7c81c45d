"""Commands to Redis, those of one turn of the loop in one pipeline.

However many clients ask, one pipeline is under way at a time: what comes meanwhile makes the next one larger.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from yelpaze.live.brokers.broker import BrokerUnavailable
from yelpaze.live.brokers.redis_refusals import explained

_BATCH = 1000


class Pipeline:
    """Sends commands and scripts. All may raise BrokerUnavailable. Redis's errors go to `on_error`, too."""

    def __init__(self, redis: Redis, scripts: Iterable[str], on_error: Callable[[Exception], None]) -> None:
        self._redis = redis
        self._on_error = on_error
        self._scripts = tuple(scripts)
        self._hashes: dict[str, str] = {}
        self._calls: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._pump: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Give Redis the scripts. Raises RedisError, OSError."""
        for script in self._scripts:
            self._hashes[script] = str(await self._redis.script_load(script))

    async def close(self) -> None:
        """Send no more; who waits is told."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._fail_all()

    async def do(self, *arguments: Any) -> Any:
        """Send a command with the next pipeline."""
        done = asyncio.get_running_loop().create_future()
        self._calls.append((arguments, done))
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._pumped())
        return await done

    async def run(self, script: str, keys: Iterable[str], *arguments: Any) -> Any:
        """Run a script."""
        found = tuple(keys)
        try:
            return await self.do("EVALSHA", self._hashes[script], len(found), *found, *arguments)
        except NoScriptError:  # Redis was emptied
            return await self.do("EVAL", script, len(found), *found, *arguments)

    async def _pumped(self) -> None:
        try:
            while self._calls:
                calls, self._calls = self._calls[:_BATCH], self._calls[_BATCH:]
                await self._execute(calls)
        finally:
            self._pump = None
            if sys.exc_info()[0] is not None:
                self._fail_all()

    async def _execute(self, calls: list[tuple[tuple[Any, ...], "asyncio.Future[Any]"]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for arguments, _ in calls:
            pipeline.execute_command(*arguments)
        results: list[Any] = [BrokerUnavailable()] * len(calls)
        try:
            results = [self._translated(result) for result in await pipeline.execute(raise_on_error=False)]
        except (RedisError, OSError) as error:  # each is told that Redis is away
            self._on_error(error)
        finally:
            for (_, done), result in zip(calls, results, strict=True):
                settle(done, result)

    def _translated(self, result: Any) -> Any:
        """A result, or an error as those who ask know it: Redis may be there and refuse (OOM, READONLY)."""
        if not isinstance(result, RedisError) or isinstance(result, NoScriptError):
            return result
        self._on_error(result)
        return BrokerUnavailable(explained(result))

    def _fail_all(self) -> None:
        calls, self._calls = self._calls, []
        for _, done in calls:
            settle(done, BrokerUnavailable())


def settle(future: "asyncio.Future[Any]", result: Any) -> None:
    """Give a future its result or error, unless nobody waits any more."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
