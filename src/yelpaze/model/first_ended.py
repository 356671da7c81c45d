"""Works that belong together: when one ends, all end."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_ended(*works: Coroutine[Any, Any, None]) -> None:
    """Do all until the first ends, and cancel the others. Raises what that one raises."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
