"""What a run's rows come from: the input, or the dead letters of an earlier session."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from yelpaze.io.protocol import Checkpoint, DeadLetter, Row, Sink, Source
from yelpaze.jobs.tally import Tally

Note = Callable[[str], None]


class RowFeed(Protocol):
    """Hands out rows, takes their acknowledgements, and makes checkpoints of them.

    It counts in the tally what has succeeded and failed; the job counts what has started and ended.
    """

    source: Source
    run_id: str  # once it has begun

    def begin(self, sink: Sink, tally: Tally, note: Note) -> bool:
        """Lock the output and find where to continue; False if nothing is left to do.

        Sets the counts of earlier sessions. Blocks: called in a thread. Raises InputError.
        """

    def blocks(self) -> AsyncIterator[list[Row]]:
        """The rows. Raises InputError, StoppedError if they cannot be read on."""

    def start(self, number: int) -> Mapping[int, Any] | None:
        """A row starts. Returns the answers of its steps that are known from before, by step number."""

    def cursor_of(self, number: int) -> Any:
        """The cursor from which the source reads a row that is under way."""

    def done(self, number: int, *, is_failed: bool) -> DeadLetter | None:
        """The sink has taken the row's result or dead letter. Returns its earlier dead letter, if any."""

    def checkpoint(self, *, is_finished: bool) -> Checkpoint:
        """The current checkpoint."""

    @property
    def counted(self) -> int:
        """The number of rows that the progress display shows as done."""

    @property
    def progress(self) -> tuple[float, float | None]:
        """Position and total, in one unit; the total is None if unknown."""

    def state(self, *, interrupted: bool) -> str:
        """The state of the run after a session that ended in order."""

    async def close(self, *, in_order: bool) -> None:
        """The session has ended; not `in_order` if by an error."""
