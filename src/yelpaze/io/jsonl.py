"""JSON Lines: one JSON value a line, UTF-8 (jsonlines.org)."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.io.lines import Extent, LineFile
from yelpaze.io.protocol import BadRow, Block, Row
from yelpaze.io.reading import MAX_LINE, LineSource
from yelpaze.model.closing import closing


class JsonlSource(LineSource):
    """Files, or standard input for `-`. A row's number is its line, over all files; blank lines count."""

    coerce = False

    async def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        async with closing(self._lines.chunks(cursor)) as opened:
            async for chunk in opened:
                rows: list[Row]
                if chunk.too_long:
                    rows = [(chunk.number, None, too_long(chunk.lines[0]))]
                else:
                    rows = [
                        (number, line, None)
                        for number, line in enumerate(chunk.lines, chunk.number)
                        if line and not line.isspace()
                    ]
                yield Block((chunk.file, chunk.at, chunk.number), rows)


def too_long(start: bytes) -> BadRow:
    """A line that is not read, for its length."""
    message = f"the line is longer than {MAX_LINE >> 20} MiB"
    return BadRow(message, start.decode("utf-8", "replace"))


class JsonlLayout:
    """Lines `{"row": number, "result": …}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LineFile(path)

    @property
    def waiting(self) -> int:
        return self._file.waiting

    def add(self, row: int, result: bytes) -> None:
        self._file.add(result_line(row, result))

    def take(self, *, is_last: bool) -> Callable[[], Extent]:  # noqa: ARG002  every commit is whole
        return self._file.take()

    def settled(self) -> None:
        pass

    def damage(self, state: Any) -> str | None:
        return self._file.damage(msgspec.convert(state, Extent))

    def cut(self, state: Any) -> None:
        if state is None:
            self._file.opened()  # there is a file of results, be it empty
        self._file.cut(msgspec.convert(state or {}, Extent))

    def close(self) -> None:
        self._file.close()


def result_line(row: int, result: bytes) -> bytes:
    """A result as a line of JSON."""
    return b'{"row":%d,"result":%b}\n' % (row, result)
