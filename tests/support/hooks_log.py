"""Waiting for the log of attempts: an attempt is in the store a moment after the receiver has seen it."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from support.hooks import attempts_of
from support.waiting import SECONDS
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks

APP = "acme"
_PAUSE = 0.01


async def endpoint_for(hooks: Hooks, url: str = "", **fields: Any) -> Any:
    """An endpoint of the application `acme`, which is made if it is not there."""
    await hooks.create_application("Acme", uid=APP)
    return await hooks.create_endpoint(APP, url, **fields)


async def logged(hooks: Hooks, count: int = 1, **which: Any) -> list[Any]:
    """The attempts of `acme`, as soon as there are so many."""
    async with asyncio.timeout(SECONDS):
        while len(found := await attempts_of(hooks, APP, **which)) < count:
            await asyncio.sleep(_PAUSE)
    return found


async def tried(work: Awaitable[Any]) -> tuple[Any, str]:
    """What comes of it, or the field because of which it is refused; the other is empty."""
    try:
        return await work, ""
    except HooksError as error:
        return None, ".".join(error.field)
