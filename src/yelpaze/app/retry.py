"""`yelpaze retry`: the rows that failed, and of each only the failed branches, into the same output."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from yelpaze.app.identity import identity_of, is_same_input
from yelpaze.app.options import RunOptions, Summary
from yelpaze.app.run import Job
from yelpaze.app.runs import Runs
from yelpaze.flow.flow import Flow
from yelpaze.flow.letters import answers_to
from yelpaze.io.protocol import BadRow, Block, DeadLetter, Row, Source, Standing
from yelpaze.io.reading import in_thread
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


class RetryJob(Job):
    """Runs dead letters again. What succeeds joins the results, what fails has a new dead letter."""

    def __init__(
        self,
        flow: Flow,
        options: RunOptions,
        selection: Selection,
        *,
        all_steps: bool = False,
        runs: Runs | None = None,
    ) -> None:
        super().__init__(flow, options, runs=runs)
        self._selection = selection
        self._all_steps = all_steps
        self._letters: dict[int, DeadLetter] = {}
        self._standing: Standing | None = None
        self._is_input_same = True
        self._unread = 0

    @property
    def counted(self) -> int:
        return self.ended

    @property
    def progress(self) -> tuple[float, float | None]:
        return self.ended, self._standing.failed if self._standing is not None else None

    @property
    def state(self) -> str:
        return "finished" if self._standing is not None and self._standing.is_finished else "interrupted"

    def _prepare(self) -> bool:
        sink = self.sink
        standing = sink.standing()
        if standing is None:
            raise InputError(f"{sink.name}: no run wrote it, so there is nothing to retry")
        damage = sink.damage()
        if damage and "output" not in self.options.accept:
            raise InputError(f"{damage}; --accept-changed output goes on all the same")
        sink.resume()
        self._standing = standing
        self.run_id = standing.run
        self.succeeded, self.failed = standing.succeeded, standing.failed
        self.kinds = Counter(standing.kinds)
        try:
            now = identity_of(self.flow, self.source, sample=self.options.sample)
            self._is_input_same = is_same_input(standing.identity, now)
        except InputError:
            self._is_input_same = False
        return True

    def standing(self, is_finished: bool = False) -> Standing:  # noqa: ARG002  a retry finishes no run
        assert self._standing is not None
        return msgspec.structs.replace(
            self._standing, succeeded=self.succeeded, failed=self.failed, kinds=dict(+self.kinds)
        )

    def _open_source(self) -> Source:
        try:
            return super()._open_source()
        except InputError as error:
            return _Gone(error, is_lax=self.options.inputs[0].endswith(_DELIMITED))

    async def _work(self) -> Summary:
        try:
            summary = await super()._work()
        finally:
            with contextlib.suppress(OSError):  # then the next command does it
                await in_thread(self.sink.tidy)
        if not self.ended and not self._unread:
            self.notes("there is no failed row of that kind: nothing was run again")
        if self._unread:
            self.notes(
                f"{self._unread:,} failed rows could not be run again: their dead letters are without their "
                "secrets, and the input, which has them, is not the same any more"
            )
        return summary

    # ── rows ────────────────────────────────────────────────────────────────────

    async def _blocks(self) -> AsyncIterator[list[Row]]:
        letters = await in_thread(self.sink.dead_letters)
        while page := await in_thread(lambda: list(islice(letters, _PAGE))):
            block = [row for row in [await self._row_of(letter) for letter in page] if row is not None]
            if block:
                yield block

    async def _row_of(self, letter: DeadLetter) -> Row | None:
        if not self._selection.has(letter):
            return None
        row = _recorded(letter, is_lax=self.source.lax)
        if row is None and self._is_input_same:
            row = await self._read_again(letter)
        if row is None:
            self._unread += 1
            return None
        self._letters[letter.row] = letter
        return row

    async def _read_again(self, letter: DeadLetter) -> Row | None:
        async for _, rows in self.source.blocks(letter.mark):
            for row in rows:
                if row[0] == letter.row:
                    return row
            if rows and rows[-1][0] > letter.row:
                break
        return None

    def _answers_of(self, number: int) -> Mapping[int, Any] | None:
        letter = self._letters[number]
        return (
            None
            if self._all_steps
            else answers_to(self.flow.graph(), letter.answers, trace_id=letter.trace_id)
        )

    def _started(self, number: int) -> None:
        self.started += 1
        if self._order is not None:
            self._order.append(number)

    def _mark_of(self, number: int) -> Any:
        return self._letters[number].mark

    def _done(self, number: int, *, is_failed: bool) -> None:
        letter = self._letters.pop(number)
        self.sink.resolve(number)
        self.recorder.resolved(letter)
        self.kinds[letter.kind] -= 1
        if not is_failed:
            self.failed -= 1
            self.succeeded += 1


class _Gone:
    """Stands for an input that can't be read any more; most dead letters have all that is needed."""

    size = None
    position = 0

    def __init__(self, error: InputError, *, is_lax: bool) -> None:
        self._error = error
        self.lax = is_lax

    def close(self) -> None:
        pass

    def identity(self) -> list[dict[str, Any]] | None:
        raise self._error

    def blocks(self, mark: Any = None) -> AsyncIterator[Block]:  # noqa: ARG002  as in every source
        raise self._error


def _recorded(letter: DeadLetter, *, is_lax: bool) -> Row | None:
    """The row as its dead letter has it, unless that is not all."""
    if letter.is_partial:
        return None
    if letter.is_text:
        return letter.row, None, BadRow(str(letter.error["message"]), letter.input)
    if is_lax:
        return letter.row, None, letter.input
    return letter.row, msgspec.json.encode(letter.input), None
