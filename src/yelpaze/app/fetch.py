"""`yelpaze fetch`: URLs and lines through an engine, built from options."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.fetch.done import Outcomes
from yelpaze.fetch.globs import count
from yelpaze.fetch.items import Item, Shape, blocks_of, from_arguments, line_reader
from yelpaze.fetch.job import FetchJob, Out, TransferOptions
from yelpaze.fetch.record import Tally
from yelpaze.http.engine import Engine
from yelpaze.io.reading import Lines
from yelpaze.model.closing import closing
from yelpaze.model.errors import InputError


class FetchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze fetch` was asked for; `engine` holds Engine options."""

    urls: tuple[str, ...] = ()
    input: str | None = None
    outputs: tuple[str, ...] = ()
    folder: str = ""
    name_all: bool = False
    globbing: bool = True
    shape: Shape = Shape()
    transfer: TransferOptions = TransferOptions()
    outcomes: str | None = None
    engine: dict[str, Any] = {}


class Fetch:
    """One call: the job, what it is fed with, and how much that is. Raises MisuseError, InputError."""

    def __init__(
        self, options: FetchOptions, *, out: Out, verbose: Callable[[list[str]], None] | None = None
    ) -> None:
        self._options = options
        self.source: Lines | None = None
        self.lines_read = 0
        self.seconds = 0.0
        self.total: int | None = None
        transfer = options.transfer
        options.shape.made("http://a.test/")  # flags that no request can have are said once
        if options.input is not None:
            self._read = line_reader(list(options.outputs), options.shape, folder=options.folder)
            self.source = Lines([options.input])
        else:
            self.items()  # what is wrong with a flag or a glob is said before anything is opened
            self.total = sum(count(url, globbing=options.globbing) for url in options.urls)
            transfer = msgspec.structs.replace(transfer, is_single=self.total == 1)
        self.is_single = transfer.is_single
        self.engine = Engine(**options.engine)
        if options.outcomes is not None and _is_same(options.outcomes, options.input):
            raise InputError(f"{options.outcomes}: is the input itself, and would be overwritten")
        kept = options.outcomes and Outcomes(
            options.outcomes, resume=transfer.resume, clobber=transfer.clobber
        )
        self.job = FetchJob(self.engine, transfer, out=out, outcomes=kept or None, verbose=verbose)

    async def run(self) -> Tally:
        """Fetch everything; see FetchJob.run."""
        began = time.monotonic()
        blocks = blocks_of(self.items()) if self.source is None else self._from_lines(self.source)
        try:
            return await self.job.run(blocks)
        finally:
            self.seconds = time.monotonic() - began

    def items(self) -> Iterator[Item]:
        """What the URLs of the command line come to."""
        options = self._options
        return from_arguments(
            options.urls,
            list(options.outputs),
            options.shape,
            folder=options.folder,
            globbing=options.globbing,
            name_all=options.name_all,
        )

    async def _from_lines(self, source: Lines) -> AsyncIterator[list[Item]]:
        async with closing(source.chunks()) as opened:
            async for chunk in opened:
                if chunk.too_long:
                    raise InputError(f"{self._options.input}, line {chunk.number}: the line is too long")
                numbered = enumerate(chunk.lines, chunk.number)
                items = [self._read(number, line) for number, line in numbered if line and not line.isspace()]
                self.lines_read += len(items)
                yield [item for item in items if item is not None]


def _is_same(path: str, other: str | None) -> bool:
    return other is not None and Path(path).exists() and Path(other).exists() and Path(path).samefile(other)
