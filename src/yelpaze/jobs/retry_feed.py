"""The rows that failed, from their dead letters: `yelpaze retry`."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from yelpaze.flow.dead_letters import answers_to
from yelpaze.flow.plan import Plan
from yelpaze.io.protocol import BadRow, Block, Checkpoint, DeadLetter, Row, Sink, Source
from yelpaze.io.threads import in_thread
from yelpaze.jobs.feed import Note
from yelpaze.jobs.identity import identity_of, is_same_input
from yelpaze.jobs.input_feed import source_of
from yelpaze.jobs.options import RunOptions
from yelpaze.jobs.tally import Tally
from yelpaze.model.closing import closing
from yelpaze.model.errors import InputError

_PAGE = 256
_DELIMITED = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zst", ".zstd"))


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters: any of the kinds, of the steps, of the statuses; empty means all."""

    kinds: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()

    def has(self, letter: DeadLetter) -> bool:
        """Whether that letter is meant. A kind stands for those below it: `timeout` for `timeout.attempt`.

        >>> letter = DeadLetter(row=1, input=None, step="base", error={"kind": "status", "status": 503})
        >>> Selection(statuses=frozenset({"5xx"})).has(letter), Selection(steps=frozenset({"x"})).has(letter)
        (True, False)
        """
        kind, status = letter.kind, str(letter.status or "")
        return (
            (not self.kinds or any(kind == one or kind.startswith(f"{one}.") for one in self.kinds))
            and (not self.steps or letter.step in self.steps)
            and (not self.statuses or status in self.statuses or f"{status[:1]}xx" in self.statuses)
        )


class RetryFeed:
    """See RowFeed. Rows that succeed now join the results; those that fail get a new dead letter.

    `all_steps`: run all steps of a row again, not its failed branches only.
    """

    def __init__(self, plan: Plan, options: RunOptions, selection: Selection, *, all_steps: bool) -> None:
        self._plan = plan
        self._options = options
        self._selection = selection
        self._all_steps = all_steps
        self.source = self._open_source()
        self.run_id = ""
        self._tally = Tally()
        self._sink: Sink | None = None
        self._note: Note = lambda _: None
        self._before: Checkpoint | None = None
        self._letters: dict[int, DeadLetter] = {}
        self._is_input_same = True
        self._unread = 0

    def _open_source(self) -> Source:
        try:
            return source_of(self._options)
        except InputError as error:
            names = self._options.inputs
            return _Gone(error, coerce=bool(names) and names[0].endswith(_DELIMITED))

    def begin(self, sink: Sink, tally: Tally, note: Note) -> bool:
        self._sink, self._tally, self._note = sink, tally, note
        checkpoint = sink.checkpoint()
        if checkpoint is None:
            raise InputError(f"{sink.name}: no run wrote it, so there is nothing to retry")
        damage = sink.damage()
        if damage and "output" not in self._options.accept:
            raise InputError(f"{damage}; --accept-changed output goes on all the same")
        sink.resume()
        self._before = checkpoint
        self.run_id = checkpoint.run
        tally.resume(checkpoint.succeeded, checkpoint.failed, checkpoint.kinds)
        try:
            now = identity_of(self._plan, self.source, sample=self._options.sample)
            self._is_input_same = is_same_input(checkpoint.identity, now)
        except InputError:
            self._is_input_same = False
        return True

    async def blocks(self) -> AsyncIterator[list[Row]]:
        """The rows of the selected dead letters."""
        assert self._sink is not None
        letters = await in_thread(self._sink.dead_letters)
        while page := await in_thread(lambda: list(islice(letters, _PAGE))):
            block = [row for row in [await self._row_of(letter) for letter in page] if row is not None]
            if block:
                yield block

    async def _row_of(self, letter: DeadLetter) -> Row | None:
        if not self._selection.has(letter):
            return None
        row = _recorded(letter, coerce=self.source.coerce)
        if row is None and self._is_input_same:
            row = await self._read_again(letter)
        if row is None:
            self._unread += 1
            return None
        self._letters[letter.row] = letter
        return row

    async def _read_again(self, letter: DeadLetter) -> Row | None:
        async with closing(self.source.blocks(letter.cursor)) as opened:
            async for _, rows in opened:
                for row in rows:
                    if row[0] == letter.row:
                        return row
                if rows and rows[-1][0] > letter.row:
                    break
        return None

    def start(self, number: int) -> Mapping[int, Any] | None:
        if self._all_steps:
            return None
        letter = self._letters[number]
        return answers_to(self._plan.graph(), letter.answers, trace_id=letter.trace_id)

    def cursor_of(self, number: int) -> Any:
        return self._letters[number].cursor

    def done(self, number: int, *, is_failed: bool) -> DeadLetter | None:
        assert self._sink is not None
        letter = self._letters.pop(number)
        self._sink.resolve(number)
        self._tally.kinds[letter.kind] -= 1
        if not is_failed:
            self._tally.failed -= 1
            self._tally.succeeded += 1
        return letter

    def checkpoint(self, *, is_finished: bool) -> Checkpoint:  # noqa: ARG002  a retry finishes no run
        assert self._before is not None
        tally = self._tally
        return msgspec.structs.replace(
            self._before, succeeded=tally.succeeded, failed=tally.failed, kinds=dict(+tally.kinds)
        )

    @property
    def counted(self) -> int:
        return self._tally.ended

    @property
    def progress(self) -> tuple[float, float | None]:
        return self._tally.ended, self._before.failed if self._before is not None else None

    def state(self, *, interrupted: bool) -> str:  # noqa: ARG002  the run's state is that of its input
        return "finished" if self._before is not None and self._before.is_finished else "interrupted"

    async def close(self, *, in_order: bool) -> None:
        assert self._sink is not None
        with contextlib.suppress(OSError):  # then the next command does it
            await in_thread(self._sink.tidy)
        if not in_order:
            return
        if not self._tally.ended and not self._unread:
            self._note("there is no failed row of that kind: nothing was run again")
        if self._unread:
            self._note(
                f"{self._unread:,} failed rows could not be run again: their dead letters are without their "
                "secrets, and the input, which has them, is not the same any more"
            )


class _Gone:
    """Stands for an input that can't be read any more; most dead letters have all that is needed."""

    size = None
    position = 0

    def __init__(self, error: InputError, *, coerce: bool) -> None:
        self._error = error
        self.coerce = coerce

    def close(self) -> None:
        pass

    def identity(self) -> list[dict[str, Any]] | None:
        raise self._error

    def blocks(self, cursor: Any = None) -> AsyncIterator[Block]:  # noqa: ARG002  as in every source
        raise self._error


def _recorded(letter: DeadLetter, *, coerce: bool) -> Row | None:
    """The row as its dead letter has it, unless that is not all."""
    if letter.is_partial:
        return None
    if letter.is_text:
        return letter.row, None, BadRow(str(letter.error["message"]), letter.input)
    if coerce:
        return letter.row, None, letter.input
    return letter.row, msgspec.json.encode(letter.input), None
