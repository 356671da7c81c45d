"""Hooks in tests: a store of its own, a receiver on loopback, and a clock that a test can put forward."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from yelpaze.hooks.context import Access
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, attempts, endpoints, messages
from yelpaze.hooks.log.attempts import AttemptFilter
from yelpaze.hooks.log.paging import PageRequest

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
LOOPBACK = {"allow": ["127.0.0.0/8"]}
START = 1_800_000_000.0  # UNIX seconds


@contextlib.asynccontextmanager
async def opened(
    store: str, *, report: Callable[[Any], None] = lambda _: None, **settings: Any
) -> AsyncIterator[Hooks]:
    """Hooks by the clock of the running loop, which may be adjustable; endpoints may be on loopback."""
    loop = asyncio.get_running_loop()
    deliver = settings.pop("deliver", True)
    async with Hooks(
        store,
        deliver=deliver,
        encryption_key=KEY,
        settings={**LOOPBACK, "jitter": 0, **settings},
        report=report,
        wall=lambda: START + loop.time(),
        monotonic=loop.time,
    ) as hooks:
        yield hooks


async def attempts_of(hooks: Hooks, app: str, **which: Any) -> list[Any]:
    """All attempts of an application, the first one first."""

    def listed(session):
        owner = applications.find_application(session, Access(), app)
        return attempts.list_attempts(session, owner, PageRequest(limit=250), AttemptFilter(**which))

    return [row[0] for row in (await hooks.read(listed)).rows]


async def states_of(hooks: Hooks, app: str, endpoint: str) -> dict[str, int]:
    """The states of an endpoint's deliveries by message."""

    def found(session):
        owner = applications.find_application(session, Access(), app)
        one = endpoints.find_endpoint(session, hooks.context, owner, endpoint)
        return session.rows("SELECT message_id, state FROM delivery WHERE endpoint_id = ?", one.id)

    return dict(await hooks.read(found))


async def endpoint_of(hooks: Hooks, app: str, endpoint: str) -> Any:
    """An endpoint as the store has it."""

    def found(session):
        owner = applications.find_application(session, Access(), app)
        return endpoints.find_endpoint(session, hooks.context, owner, endpoint)

    return await hooks.read(found)


async def message_ids(hooks: Hooks, app: str) -> list[str]:
    """The ids of an application's messages, the first one first."""

    def listed(session):
        owner = applications.find_application(session, Access(), app)
        page = messages.list_messages(session, owner, PageRequest(limit=250), messages.MessageFilter())
        return [row[0] for row in page.rows]

    return await hooks.read(listed)
