"""Closes asynchronous generators that are not read to their end.

An `async for` that is left early leaves its generator to the garbage collector, and whatever that has open
with it (PEP 525). Generators that read from generators hold them with `closing`, from the outermost down.
"""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.asynccontextmanager
async def closing(items: AsyncIterable[T]) -> AsyncIterator[AsyncIterable[T]]:
    """Close `items` at the end, if it is something that can be closed.

    >>> async def example(lines):
    ...     async with closing(lines) as opened:
    ...         async for line in opened:
    ...             return line
    """
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
