"""Results into a table.

Results, dead letters and checkpoint are written in one transaction, so exactly once needs nothing
else. The checkpoint lies in `yelpaze_runs`, the dead letters in `TABLE_failures`.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from threading import RLock
from typing import Any

import msgspec

from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column, Columns, Table
from yelpaze.io.database import Database, Place, Rows, first_line, qualified, quoted
from yelpaze.io.lines import line_of
from yelpaze.io.protocol import Checkpoint, DeadLetter, FirstError
from yelpaze.io.sql_table import adopted, check_key, creation
from yelpaze.model.errors import InputError
from yelpaze.model.json_text import decode_json, encode_json

RUNS = "yelpaze_runs"


class SqlSink:
    """A table, made if it is not there; with a key, rows that have it are replaced.

    A table that was there before says itself what its columns are. `unknown`: see `Table`.
    """

    def __init__(
        self,
        open_database: Callable[[], Database],
        place: Place,
        annotation: object,
        *,
        unknown: ColumnKind,
    ) -> None:
        if place.query is not None:
            raise InputError(f"{place.shown}: results go into a table: give table=NAME, not query=")
        self._open = open_database
        self._place = place
        self._name = place.table or "results"
        self._table = Table(annotation, unknown=unknown)
        self._annotated = self._table.columns
        self._db: Database | None = None
        self._is_locked = False
        self._mutex = RLock()
        self._is_ours = True
        self._is_made = False
        self._has_row = True
        self._commits = 0
        self._letters: list[DeadLetter] = []
        self._letters_size = 0
        self._resolved: list[int] = []
        self._rejected: list[tuple[int, str]] = []
        self._places: dict[int, tuple[Any, str]] = {}  # for dead letters of what the database refuses
        self._first_error = FirstError()
        self.name = place.shown
        self._failures = f"{self._name}_failures"
        self._quoted, self._quoted_failures = qualified(self._name), qualified(self._failures)
        self.failures = f"table {self._failures}"

    @property
    def waiting(self) -> int:
        return self._table.waiting + self._letters_size

    @property
    def _database(self) -> Database:
        assert self._db is not None
        return self._db

    # ── before a run ────────────────────────────────────────────────────────────

    def checkpoint(self) -> Checkpoint | None:
        self._db = self._db or self._open()
        with self._db.reading():
            return self._read_checkpoint(self._db)

    def _read_checkpoint(self, database: Database) -> Checkpoint | None:
        if not self._is_locked:
            if not database.lock(self._name):
                raise InputError(
                    f"{self.name}: another run is writing it; wait for its end, or give another table"
                )
            self._is_locked = True
        found = self._saved()
        if found is None:
            if database.columns_of(self._failures) is not None:
                raise InputError(
                    f"{self.name}: the table {self._failures} exists, and no run that is known wrote it: "
                    "rename or remove it"
                )
            self._begin(database.columns_of(self._name))
            return None
        text, state, self._is_ours, self._commits = found
        self._is_made = True
        if self._is_ours:
            self._table.restore(state)
        elif (columns := self._database.columns_of(self._name)) is not None:
            self._adopt(columns)
        return text

    def _saved(self) -> tuple[Checkpoint, dict[str, Any] | None, bool, int] | None:
        database = self._database
        known = database.columns_of(RUNS)
        if known is None:
            return None
        if all(column.field != "checkpoint" for column in known):
            raise InputError(
                f"{self.name}: the table {RUNS} is of an older version of Yelpaze: rename or remove it"
            )
        rows = database.query(
            f"SELECT checkpoint, columns, is_ours, commits FROM {RUNS} "  # noqa: S608  ours
            f"WHERE output = {database.marker}",
            self._name,
        )
        if not rows:
            return None
        checkpoint, columns, is_ours, commits = rows[0]
        return (
            decode_json(checkpoint.encode(), Checkpoint),
            msgspec.json.decode(columns),
            bool(is_ours),
            int(commits),
        )

    def _begin(self, columns: list[Column] | None) -> None:
        self._is_ours = columns is None
        if columns is not None:
            self._adopt(columns)
        elif self._annotated is not None:
            check_key(self._place, self._annotated)

    def _adopt(self, columns: list[Column]) -> None:
        """The table was there: results must fit its columns."""
        self._has_row = any(column.field == "row" for column in columns)
        self._table.columns = adopted(self._place, columns, self._annotated)

    def damage(self) -> str | None:
        with self._database.reading():
            return self._damage()

    def _damage(self) -> str | None:
        database = self._database
        found = self._saved()
        if found is None:
            return None
        checkpoint, state = found[:2]
        succeeded = checkpoint.succeeded - len((state or {}).get("first", ()))  # those are in no table yet
        if not succeeded:
            return None
        if database.columns_of(self._name) is None:
            return f"the table {self._name} is missing"
        if self._is_ours and self._place.key is None:
            count = database.query(f"SELECT count(*) FROM {self._quoted}")[0][0]  # noqa: S608  quoted
            if count != succeeded:
                return (
                    f"the table {self._name} was edited: it has {count:,} rows, "
                    f"though {succeeded:,} were committed"
                )
        return None

    def resume(self) -> None:
        pass  # what was not committed is not there

    def restart(self) -> list[str]:
        with self._database.reading():
            return self._restart()

    def _restart(self) -> list[str]:
        database = self._database
        found = self._saved()
        kept: list[str] = []
        exists = database.columns_of(self._name) is not None
        if found is not None and not found[2] and self._place.key is None:
            raise InputError(
                f"{self.name}: the table was there before the run, so its rows can't be told from others: "
                "delete them yourself, or give key=COLUMN to replace them"
            )
        with database.transaction():
            if found is not None and found[2] and exists:
                other = self._free_name()
                database.query(f"ALTER TABLE {self._quoted} RENAME TO {quoted(other)}")
                if database.columns_of(self._failures) is not None:
                    database.query(
                        f"ALTER TABLE {self._quoted_failures} RENAME TO {quoted(f'{other}_failures')}"
                    )
                kept.append(f"table {other}")
            elif database.columns_of(self._failures) is not None:
                database.query(f"DROP TABLE {self._quoted_failures}")
            if found is not None:
                database.query(
                    f"DELETE FROM {RUNS} WHERE output = {database.marker}",  # noqa: S608  ours
                    self._name,
                )
        self._is_made = False
        self._commits = 0
        self._has_row = True
        self._table.restore(None)
        self._begin(database.columns_of(self._name))
        return kept

    def _free_name(self) -> str:
        table, number = self._name.rpartition(".")[2], 1
        while any(
            self._database.columns_of(f"{self._name}_{number}{ending}") is not None
            for ending in ("", "_failures")
        ):
            number += 1
        return f"{table}_{number}"

    # ── during a run ────────────────────────────────────────────────────────────

    def write(self, row: int, result: bytes, *, cursor: Any = None, trace_id: str = "") -> None:
        self._table.add(row, result)
        self._places[row] = (cursor, trace_id)

    def fail(self, letter: DeadLetter) -> None:
        self._letters.append(letter)
        self._letters_size += 1000

    def resolve(self, row: int) -> None:
        self._resolved.append(row)

    def dead_letters(self) -> Iterator[DeadLetter]:
        last = -1
        while rows := self._page_of_letters(last):
            for row, letter in rows:
                last = row
                yield msgspec.json.decode(letter, type=DeadLetter)

    def _page_of_letters(self, after: int) -> Rows:
        database, number = self._database, quoted("row")
        with self._mutex, database.reading():
            if database.columns_of(self._failures) is None:
                return []
            return database.query(
                f"SELECT {number}, letter FROM {self._quoted_failures} "  # noqa: S608  quoted
                f"WHERE {number} > {after} ORDER BY 1 LIMIT 100"
            )

    def commit(self, checkpoint: Checkpoint, *, is_last: bool = True) -> Callable[[], None]:
        rows = self._table.take(is_last=is_last)
        state = self._table.state()
        places, self._places = self._places, {}
        letters, self._letters = self._letters, []
        self._letters_size = 0
        resolved, self._resolved = self._resolved, []

        def work() -> None:
            number = self._commits + 1

            def once() -> None:
                self._rejected.clear()
                with self._mutex, self._database.transaction():
                    self._write(rows, letters, resolved, places)
                    self._save(checkpoint, state, number)

            database = self._database
            try:
                try:
                    database.lasting(once, lambda: self._is_committed(number))
                except database.refusals:
                    if self._is_made:
                        raise
                    # Another run made `yelpaze_runs` at the same moment.
                    database.lasting(once, lambda: self._is_committed(number))
            except database.refusals as error:
                raise InputError(f"{self.name}: the run cannot be recorded: {first_line(error)}") from None
            self._commits = number
            self._is_made = True

        return lambda: self._first_error.run(work)

    def _is_committed(self, number: int) -> bool:
        found = self._saved()
        return found is not None and found[3] >= number

    def rejected(self) -> list[tuple[int, str]]:
        """Rows that the database did not take in the last commit, and why."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def _write(
        self,
        rows: list[list[Any]],
        letters: list[DeadLetter],
        resolved: list[int],
        places: dict[int, tuple[Any, str]],
    ) -> None:
        database, table = self._database, self._table
        if not self._is_made:
            self._make()
        if rows and table.columns is not None:
            if self._is_ours and database.columns_of(self._name) is None:
                self._make_results(table.columns)
            names = ["row", *table.columns.names]
            if self._place.key is not None:
                rows = self._with_key(rows, names.index(self._place.key))
            numbers = [row[0] for row in rows]
            if not self._has_row:
                names, rows = names[1:], [row[1:] for row in rows]
            self._insert(names, rows, numbers)
        found = [
            *letters,
            *(_refused(row, why, *places.get(row, (None, ""))) for row, why in self._rejected),
        ]
        gone = {*resolved, *(letter.row for letter in found)}
        for row in gone:
            database.query(f"DELETE FROM {self._quoted_failures} WHERE {quoted('row')} = {row}")  # noqa: S608  a number
        if found:
            names = ["row", "at", "step", "kind", "status", "message", "letter"]
            database.insert(self._failures, names, [_letter_row(letter) for letter in found], None)

    def _save(self, checkpoint: Checkpoint, state: dict[str, Any] | None, number: int) -> None:
        database, marker, lost = self._database, self._database.marker, len(self._rejected)
        if lost:
            checkpoint = msgspec.structs.replace(
                checkpoint,
                succeeded=checkpoint.succeeded - lost,
                failed=checkpoint.failed + lost,
                kinds=checkpoint.kinds | {"result": checkpoint.kinds.get("result", 0) + lost},
            )
        database.query(f"DELETE FROM {RUNS} WHERE output = {marker}", self._name)  # noqa: S608  ours
        database.query(
            f"INSERT INTO {RUNS} (output, checkpoint, columns, is_ours, commits) "  # noqa: S608  ours
            f"VALUES ({', '.join([marker] * 5)})",
            self._name,
            encode_json(checkpoint).decode(),
            encode_json(state).decode(),
            int(self._is_ours),
            number,
        )

    def _with_key(self, rows: list[list[Any]], place: int) -> list[list[Any]]:
        """Those that have one: SQLite would make one up, or take any number of rows without."""
        for row in rows:
            if row[place] is None:
                self._rejected.append((row[0], f"the result has no {self._place.key!r}, which is the key"))
        return [row for row in rows if row[place] is not None]

    def _insert(self, names: Sequence[str], rows: list[list[Any]], numbers: list[int]) -> None:
        """Add rows; those that the database refuses are found by halving."""
        database = self._database
        try:
            with database.transaction():
                database.insert(self._name, names, rows, self._place.key)
        except database.refusals as error:
            if len(rows) == 1:
                self._rejected.append((numbers[0], f"the database refuses the result: {first_line(error)}"))
                return
            half = len(rows) // 2
            self._insert(names, rows[:half], numbers[:half])
            self._insert(names, rows[half:], numbers[half:])

    def _make(self) -> None:
        text, whole = self._database.types[ColumnKind.TEXT], self._database.types[ColumnKind.INT]
        self._database.query(
            f"CREATE TABLE IF NOT EXISTS {RUNS} (output {text} PRIMARY KEY, checkpoint {text} NOT NULL, "
            f"columns {text} NOT NULL, is_ours {whole} NOT NULL, commits {whole} NOT NULL)"
        )
        self._database.query(
            f"CREATE TABLE IF NOT EXISTS {self._quoted_failures} ({quoted('row')} {whole} PRIMARY KEY, "
            f"at {text}, step {text}, kind {text}, status {whole}, message {text}, letter {text} NOT NULL)"
        )
        if self._is_ours and self._table.columns is not None:
            self._make_results(self._table.columns)

    def _make_results(self, columns: Columns) -> None:
        self._database.query(creation(self._place, self._quoted, columns, self._database.types))

    def tidy(self) -> None:
        pass  # dead letters that were resolved are deleted with the commit

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _refused(row: int, why: str, cursor: Any, trace_id: str) -> DeadLetter:
    """The letter of a result that the database does not take; the source has the row."""
    return DeadLetter(
        row=row,
        input=None,
        step=None,
        error={"kind": "result", "message": why},
        trace_id=trace_id,
        at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        cursor=cursor,
        is_partial=True,
    )


def _letter_row(letter: DeadLetter) -> list[Any]:
    message = str(letter.error["message"]).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    text = line_of(letter).decode().strip()
    return [letter.row, letter.at, letter.step, letter.kind, letter.status, message, text]
