"""The rows of an input, from where the output's checkpoint says."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from yelpaze.flow.plan import Plan
from yelpaze.io.backends import open_source
from yelpaze.io.protocol import Checkpoint, DeadLetter, Row, Sink, Source
from yelpaze.io.sampled import Sampled
from yelpaze.jobs.feed import Note
from yelpaze.jobs.identity import identity_of
from yelpaze.jobs.options import RunOptions
from yelpaze.jobs.resume import resume
from yelpaze.jobs.runs import new_id
from yelpaze.jobs.tally import Tally
from yelpaze.model.closing import closing
from yelpaze.policy.acks import AckState, AckTracker


def source_of(options: RunOptions, source: Source | None = None) -> Source:
    """The input: `source`, or what is named; or the sample of it that is asked for. Raises InputError."""
    source = source or open_source(options.inputs)
    return source if options.sample is None else Sampled(source, options.sample)


class InputFeed:
    """See RowFeed. Rows that were done before are passed over. Raises InputError."""

    def __init__(self, plan: Plan, options: RunOptions, source: Source | None = None) -> None:
        self._plan = plan
        self._options = options
        self.source = source_of(options, source)
        self.run_id = ""
        self._identity: dict[str, Any] = {}
        self._tally = Tally()
        self._done_before = 0
        self._rows_read = 0
        self._start = AckState()
        self._acks = AckTracker()

    def begin(self, sink: Sink, tally: Tally, note: Note) -> bool:
        self._tally = tally
        self._identity = identity_of(self._plan, self.source, sample=self._options.sample)
        checkpoint, has_more = resume(sink, self._identity, self._options, note)
        if checkpoint is None:
            self.run_id = new_id(self._plan.name, datetime.now(UTC))
            return True
        self.run_id = checkpoint.run
        tally.resume(checkpoint.succeeded, checkpoint.failed, checkpoint.kinds)
        self._done_before = tally.rows
        self._start = checkpoint.acks
        self._acks = AckTracker(checkpoint.acks)
        if has_more:
            note(f"going on after {self._done_before:,} rows")
        return has_more

    async def blocks(self) -> AsyncIterator[list[Row]]:
        """The rows that are not done, at most `limit` of the whole input."""
        start, limit = self._start, self._options.limit
        again = frozenset(start.open)
        left = float("inf") if limit is None else limit - self._done_before - len(again)
        if left <= 0 and not again:
            return
        async with closing(self.source.blocks(start.cursor)) as opened:
            async for cursor, rows in opened:
                block = rows
                if rows and rows[0][0] <= start.through:
                    block = [row for row in rows if row[0] > start.through or row[0] in again]
                fresh = sum(row[0] > start.through for row in block)
                if fresh > left:
                    block = block[: len(block) - (fresh - int(left))]
                left -= fresh
                self._rows_read += len(block)
                if block:
                    self._acks.block(cursor, first=block[0][0])
                    yield block
                if left <= 0 and not any(number > (rows[-1][0] if rows else 0) for number in again):
                    return

    def start(self, number: int) -> Mapping[int, Any] | None:
        self._acks.start(number)
        return None

    def cursor_of(self, number: int) -> Any:
        return self._acks.cursor_of(number)

    def done(self, number: int, *, is_failed: bool) -> DeadLetter | None:
        self._tally.failed += is_failed
        self._tally.succeeded += not is_failed
        self._acks.done(number)
        return None

    def checkpoint(self, *, is_finished: bool) -> Checkpoint:
        return Checkpoint(
            run=self.run_id,
            identity=self._identity,
            acks=self._acks.state(),
            is_finished=is_finished,
            limit=self._options.limit,
            succeeded=self._tally.succeeded,
            failed=self._tally.failed,
            kinds=dict(self._tally.kinds),
        )

    @property
    def counted(self) -> int:
        return self._tally.rows

    @property
    def progress(self) -> tuple[float, float | None]:
        """See RowFeed. In rows if their number is given, else in the source's unit."""
        options = self._options
        if options.limit is not None or options.sample is not None:
            return self._tally.rows, options.limit if options.sample is None else options.sample
        # Of what was read, in this session and before, the share of the rows that have ended.
        read = self._done_before + self._rows_read
        return self.source.position * self._tally.rows / max(read, 1), self.source.size

    def state(self, *, interrupted: bool) -> str:
        return "interrupted" if interrupted else "finished"

    async def close(self, *, in_order: bool) -> None:
        """See RowFeed."""
