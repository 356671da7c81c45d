"""What a source and a sink promise.

The sink owns progress. What `commit(checkpoint)` gives back makes everything taken so far
durable, together with that checkpoint; `checkpoint()` tells of the last commit, and `resume()`
undoes all that came after it. So after a crash each row is either wholly there and in the
progress, or neither.

A source's rows come in blocks, each with a *cursor*: a JSON value from which the source can
read that block again, without reading what lies before it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from yelpaze.policy.acks import AckState

# (number, raw JSON or None, value where there is no raw JSON); numbers count from 1 and
# are places in the whole input, so they are the same in every run over it.
Row = tuple[int, bytes | None, Any]


class BadRow(msgspec.Struct, frozen=True):
    """Stands for a row that the source could not make: why, and what there was instead."""

    message: str
    text: Any


class Block(NamedTuple):
    """Rows in order, some at a time; `cursor` is where reading them again begins, or a little before."""

    cursor: Any
    rows: list[Row]


class Source(Protocol):
    """Where rows come from."""

    @property
    def coerce(self) -> bool:
        """Whether values are texts, to be read as the types that a flow asks for (CSV)."""

    @property
    def size(self) -> int | None:
        """How much there is, in the unit of `position`, or None if that is unknown."""

    @property
    def position(self) -> int:
        """How much has been read."""

    def identity(self) -> list[dict[str, Any]] | None:
        """What it is recognised by when a run goes on; None if it can't be read twice."""

    def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:
        """The rows from that cursor on. Raises InputError if it can't be read on."""

    def close(self) -> None:
        """Let go of files and connections."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run stands: what it is recognised by, and how far it has come."""

    run: str
    identity: dict[str, Any]
    acks: AckState = AckState()
    is_finished: bool = False
    limit: int | None = None
    succeeded: int = 0
    failed: int = 0
    kinds: dict[str, int] = {}


class SchemaMismatch(ValueError):  # noqa: N818  a value's fault, not an error of the sink
    """A result has no place in the sink: the message names the field."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A row that failed: all that is needed to understand it, and to run it again.

    `answers` holds what the steps that succeeded had got, by name. `cursor` is where the source
    finds the row again, if `input` is not all of it (`is_partial`: secrets or types are lost).
    `is_text`: `input` is the text of what is no row at all.
    """

    row: int
    input: Any
    step: str | None
    error: dict[str, Any]
    attempts: list[dict[str, Any]] = []
    trace_id: str = ""
    at: str = ""
    answers: dict[str, Any] = {}
    cursor: Any = None
    is_partial: bool = False
    is_text: bool = False

    @property
    def kind(self) -> str:
        """The kind of the error."""
        return str(self.error["kind"])

    @property
    def status(self) -> int | None:
        """The status of the answer that failed it, if there was one."""
        status: int | None = self.error.get("status")
        return status


class Sink(Protocol):
    """Where results and dead letters go.

    What may take long is called in a thread: `checkpoint`, `resume`, `restart`, `dead_letters`
    and what `commit` gives back. There, OSError means that the run can't go on.
    """

    @property
    def name(self) -> str:
        """The output, as the user knows it; without secrets."""

    @property
    def failures(self) -> str:
        """Where the dead letters are."""

    @property
    def waiting(self) -> int:
        """Bytes that were taken and are not yet durable."""

    def checkpoint(self) -> Checkpoint | None:
        """Lock the output and tell of its last commit; None where there is none.

        Raises InputError if another run holds the lock, or if something is there that no
        run of ours wrote.
        """

    def damage(self) -> str | None:
        """How the output differs from what was committed, or None."""

    def resume(self) -> None:
        """Undo all that came after the last commit."""

    def restart(self) -> list[str]:
        """Begin anew: put an earlier output aside, and tell under which names."""

    def write(self, row: int, result: bytes, *, cursor: Any = None, trace_id: str = "") -> None:
        """Take a row's result, encoded as JSON. Raises SchemaMismatch.

        `cursor` (where the source finds the row) and `trace_id` are for the dead letter, should the
        result be refused later.
        """

    def fail(self, letter: DeadLetter) -> None:
        """Take a dead letter."""

    def resolve(self, row: int) -> None:
        """The dead letter of that row, of before, is no more."""

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Those that were committed."""

    def commit(self, checkpoint: Checkpoint, *, is_last: bool = True) -> Callable[[], None]:
        """What makes durable all that was taken until now, and the checkpoint with it.

        `is_last`: nothing more is written for now. If it raises, what was taken is lost: so each
        later one raises the same, and only a sink that is opened anew goes on.
        """

    def rejected(self) -> list[tuple[int, str]]:
        """Results that the last commit turned into dead letters: the row, and why."""

    def tidy(self) -> None:
        """Take away what is left of resolved dead letters."""

    def close(self) -> None:
        """Give lock and files back. What was not committed is undone later."""


class FirstError:
    """Runs work one by one, until one fails; all later ones fail with the same error."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Do it, or raise."""
        if self._error is not None:
            raise self._error
        try:
            work()
        except Exception as error:
            self._error = error
            raise
