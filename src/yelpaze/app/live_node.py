"""A gateway's node, with the broker and the keys that its settings ask for."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator

from yelpaze.http.engine import Engine
from yelpaze.live.brokers.broker import Broker
from yelpaze.live.brokers.memory import MemoryBroker
from yelpaze.live.config import Config
from yelpaze.live.core.node import Fetch, Node
from yelpaze.model.extras import require
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.model.request import get


@contextlib.asynccontextmanager
async def opened_node(config: Config, report: Report) -> AsyncIterator[Node]:
    """A node with what its settings ask for. It is not started."""
    async with contextlib.AsyncExitStack() as stack:
        urls = config.client.token.jwks_public_endpoint, config.client.subscription_token.jwks_public_endpoint
        fetch = fetching(await stack.enter_async_context(Engine()), report) if any(urls) else None
        yield Node(config, broker_of(config, report), fetch=fetch, report=report)


def broker_of(config: Config, report: Report) -> Broker:
    """What connects the nodes. Raises InputError, MisuseError."""
    if config.broker.type == "memory":
        return MemoryBroker(time.monotonic, new_epoch)
    require("redis", "Redis between nodes")
    from yelpaze.live.brokers.redis import RedisBroker  # noqa: PLC0415  an extra of its own

    return RedisBroker(config.broker.redis, new_epoch, report)


def new_epoch() -> str:
    """A name that no other stream had."""
    return uuid.uuid4().hex[:8]


def fetching(engine: Engine, report: Report) -> Fetch:
    """Get a document with an engine; an empty one if that fails, which is told."""

    async def fetch(url: str) -> bytes:
        # An engine needs a task; the connection that asks has none.
        outcome = await asyncio.ensure_future(engine.send(get(url)))
        if not outcome.ok:
            text = f"no keys for tokens from {url}: {outcome.error}"
            report(Notice("keys.away", text, Level.WARNING))
        return outcome.body if outcome.ok else b""

    return fetch
