"""A few rows of a source, drawn at random."""

import random
from collections.abc import AsyncIterator
from typing import Any

from yelpaze.io.protocol import Block, Row, Source
from yelpaze.model.closing import closing


class Sampled:
    """`size` rows drawn from the whole of a source, which is read once for that; the same ones each time.

    Vitter's algorithm R (1985): each row has the same chance, in one pass, in memory for the sample.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self._count = count
        self.coerce = source.coerce

    @property
    def size(self) -> int | None:
        return self._source.size

    @property
    def position(self) -> int:
        return self._source.position

    def close(self) -> None:
        self._source.close()

    def identity(self) -> list[dict[str, Any]] | None:
        return self._source.identity()

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:  # noqa: ARG002  always drawn from all
        draw = random.Random(0).randrange  # noqa: S311  to be the same each time
        kept: list[Row] = []
        seen = 0
        async with closing(self._source.blocks()) as opened:
            async for _, rows in opened:
                for row in rows:
                    seen += 1
                    if len(kept) < self._count:
                        kept.append(row)
                    elif (place := draw(seen)) < self._count:
                        kept[place] = row
        yield Block(None, sorted(kept, key=lambda row: row[0]))
