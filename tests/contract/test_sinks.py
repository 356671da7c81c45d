"""The contract of every sink: after a crash each row is wholly there and in the progress, or neither."""

import errno
import json
import os
import sqlite3
from contextlib import closing
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import outputs
from support.needed import needs
from support.outputs import OUTPUTS, checkpoint, letter, result
from yelpaze.io.backends import open_sink
from yelpaze.io.column_kinds import ColumnKind
from yelpaze.io.columns import Column, Columns
from yelpaze.io.protocol import SchemaMismatch
from yelpaze.model.errors import InputError, StoppedError
from yelpaze.policy.acks import AckState

FILES = ("Jsonl", "Csv", "Tsv", "Parquet")
DATABASES = ("Sqlite", "SqliteKey", "Postgres", "PostgresKey")


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def small_parts():
    """Parts after some rows instead of many."""
    needs("pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yelpaze.io.parquet._PART_BYTES", 150)
        yield


@pytest.fixture(scope="module")
def kind(request, tmp_path_factory):
    """A kind of output: each call is a new one."""
    made = []

    def new():
        made.append(OUTPUTS[request.param](folder))
        return made[-1]

    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "Parquet":
        request.getfixturevalue("small_parts")
    if request.param.startswith("Postgres"):
        outputs.Postgres.server = request.getfixturevalue("postgres").url
    yield new
    for one in made:
        one.close()


@pytest.fixture
def output(kind):
    return kind()


def letters_of(output) -> Path:
    """`out.failures.jsonl`, but `out.csv.failures.jsonl`."""
    path = output.path
    return path.with_name(f"{path.stem if path.suffix == '.jsonl' else path.name}.failures.jsonl")


def over(*names):
    return pytest.mark.parametrize("kind", names, indirect=True)


over_all = over(*OUTPUTS)
over_files = over(*FILES)
over_databases = over(*DATABASES)
over_typed = over("Parquet", *DATABASES)
over_postgres = over("Postgres", "PostgresKey")


# ── a life ──────────────────────────────────────────────────────────────────────


@over_all
def test_a_fresh_output_has_nothing_to_go_on_from(output):
    sink = output.sink()
    assert sink.checkpoint() is None
    assert sink.damage() is None
    sink.resume()
    assert list(sink.dead_letters()) == []
    assert sink.waiting == 0
    sink.close()
    again = output.begun()
    assert again.checkpoint() is None
    again.close()


@over_all
def test_rows_and_letters_are_there_after_a_commit(output):
    sink = output.begun()
    sink.write(1, result(1))
    sink.write(3, result(3))
    sink.fail(letter(2))
    assert sink.waiting > 0
    done = checkpoint(3, failed=1)
    sink.commit(done)()
    assert sink.waiting == 0
    assert sink.rejected() == []
    assert output.rows() == [1, 3]
    sink.close()
    again = output.begun()
    assert again.checkpoint() == done
    assert list(again.dead_letters()) == [letter(2)]
    again.close()
    again.close()


@over_all
def test_what_was_not_committed_is_undone(output):
    sink = output.begun()
    for row in (1, 2):
        sink.write(row, result(row))
    sink.fail(letter(3))
    sink.commit(checkpoint(3, failed=1))()
    sink.write(4, result(4))
    sink.fail(letter(5))
    commit = sink.commit(checkpoint(5, failed=2))
    output.crash(sink)  # before the commit's work began
    assert commit is not None
    output.tear()
    again = output.begun()
    assert again.checkpoint() == checkpoint(3, failed=1)
    assert output.rows() == [1, 2]
    assert [one.row for one in again.dead_letters()] == [3]
    again.write(4, result(4))
    again.commit(checkpoint(4, failed=1), is_last=True)()
    again.close()
    assert output.rows() == [1, 2, 4]


LIVES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["write", "fail", "commit", "last"]), max_size=14),
        st.booleans(),  # whether the end is a crash
        st.booleans(),  # whether a power cut tears the files
    ),
    min_size=1,
    max_size=4,
)


@over_all
@given(lives=LIVES)
@settings(max_examples=30)
def test_any_lives_leave_exactly_what_was_committed(kind, lives):
    output = kind()
    written, failed = [], []
    through = 0
    for steps, is_crash, is_torn in lives:
        sink = output.begun()
        now = sink.checkpoint()
        assert (now.acks.through if now else 0) == through
        new_written, new_failed, row = [], [], through
        for step in steps:
            if step in ("commit", "last"):
                written, failed = written + new_written, failed + new_failed
                new_written, new_failed = [], []
                through = row
                sink.commit(checkpoint(row, failed=len(failed)), is_last=step == "last")()
                continue
            row += 1
            if step == "write":
                sink.write(row, result(row))
                new_written.append(row)
            else:
                sink.fail(letter(row))
                new_failed.append(row)
        if is_crash:
            output.crash(sink)
        else:
            sink.close()
        if is_torn:
            output.tear()
    if through:  # the last life lays down what was held back for want of columns
        sink = output.begun()
        sink.commit(checkpoint(through, failed=len(failed)))()
        sink.close()
        assert output.rows() == written
    assert output.letters() == failed
    output.close()


# ── a crash at each step ────────────────────────────────────────────────────────


# What a run does, then a retry: the rows and letters that are there after each commit.
STATES = {0: ([], []), 4: ([1, 2, 3], [4]), 6: ([1, 2, 3, 4, 5], [6]), 8: ([1, 2, 3, 4, 5, 8], [7])}


def live(output, sink, through: int) -> None:
    """From that checkpoint to the end."""
    if through < 4:
        for row in (1, 2, 3):
            sink.write(row, result(row))
        sink.fail(letter(4))
        sink.commit(checkpoint(4, failed=1))()
    if through < 6:
        sink.resolve(4)
        sink.write(4, result(4))
        sink.write(5, result(5))
        sink.fail(letter(6))
        sink.commit(checkpoint(6, failed=1))()
    sink.tidy()
    if through < 8:
        sink.resolve(6)
        sink.write(8, result(8))
        sink.fail(letter(7))
        sink.commit(checkpoint(8, failed=1, succeeded=6), is_last=True)()
    sink.tidy()
    sink.close()


class Doomed:
    """Lets some calls of the system, or of the database, through; there, the process ends."""

    def __init__(self, patch, output, calls: int) -> None:
        self.left = calls
        where, names = os, ("fsync", "ftruncate", "pwrite", "rename", "unlink")
        if not output.is_file:
            where, names = output.database(), ("query", "insert")
        for name in names:
            patch.setattr(where, name, self.wrapped(getattr(where, name)))

    def wrapped(self, function):
        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise Crash
            return function(*arguments, **options)

        return call


def doomed_life(output, calls: int) -> bool:
    """Whether it came to its end before the call that kills it."""
    sink = output.sink()
    with pytest.MonkeyPatch.context() as patch:
        Doomed(patch, output, calls)
        try:
            now = sink.checkpoint()
            assert sink.damage() is None
            sink.resume()
            live(output, sink, now.acks.through if now else 0)
        except Crash:
            output.crash(sink)
            return False
    return True


@over_all
def test_a_crash_at_any_step_leaves_one_commit_or_the_next(kind):
    for calls in range(200):
        output = kind()
        is_whole = doomed_life(output, calls)
        doomed_life(output, calls % 9)  # the next one dies when it has hardly begun
        sink = output.begun()
        now = sink.checkpoint()
        through = now.acks.through if now else 0
        written, failed = STATES[through]
        assert [one.row for one in sink.dead_letters()] == failed
        if through:
            assert output.rows() == written
        live(output, sink, through)
        assert output.rows() == STATES[8][0]
        assert output.letters() == STATES[8][1]
        output.close()
        if is_whole:
            break
    assert 10 < calls < 199


@over_all
def test_after_a_commit_that_failed_none_counts(output, monkeypatch):
    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1))()
    with monkeypatch.context() as patch:

        def full(*arguments, **options):
            raise StoppedError("the disk is full")

        where = sink._journal if output.is_file else type(sink._database)
        patch.setattr(where, "append" if output.is_file else "query", full)
        sink.write(2, result(2))
        with pytest.raises(StoppedError):
            sink.commit(checkpoint(2))()
    sink.write(3, result(3))
    with pytest.raises(StoppedError):  # else the row 2 would count as done, and be nowhere
        sink.commit(checkpoint(3))()
    output.crash(sink)
    assert output.begun().checkpoint() == checkpoint(1)
    assert output.rows() == [1]


# ── locks ───────────────────────────────────────────────────────────────────────


def test_a_second_writer_is_refused_though_the_first_stands_still_in_a_commit(tmp_path):
    path = tmp_path / "out.db"
    target = f"sqlite:///{path}?table=out"
    first = open_sink(target, ("rows.csv",), None)
    assert first.checkpoint() is None
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    second = open_sink(target, ("rows.csv",), None)
    with pytest.raises(InputError, match="another run is writing it; wait for its end"):
        second.checkpoint()
    holder.close()
    second.close()
    first.close()


@over_all
def test_a_second_writer_is_refused_and_harms_nothing(output, monkeypatch):
    if output.name == "out.db":
        monkeypatch.setattr("yelpaze.io.postgres._LOCK_SECONDS", 0.1)
    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1), is_last=True)()
    second = output.sink()
    for _ in range(2):
        with pytest.raises(InputError, match="another run is writing it; wait for its end"):
            second.checkpoint()
    second.close()
    sink.write(2, result(2))
    sink.commit(checkpoint(2))()
    output.crash(sink)
    again = output.begun()
    assert again.checkpoint() == checkpoint(2)
    assert output.rows() == [1, 2]
    again.close()


@over_files
def test_a_journal_that_cannot_be_used(output):
    journal = output.path.with_name(f"{output.path.name}.journal")
    journal.write_text("dear diary\n")
    sink = output.sink()
    with pytest.raises(InputError, match="is no journal of a run"):
        sink.checkpoint()
    sink.close()
    assert journal.read_text() == "dear diary\n"
    journal.unlink()
    journal.mkdir()
    with pytest.raises(OSError, match="directory"):
        output.sink().checkpoint()


@over_files
def test_a_journal_of_another_version_is_refused_and_nothing_is_cut(output):
    output.run(1, 2)
    journal = output.path.with_name(f"{output.path.name}.journal")
    commit = json.loads(journal.read_text().splitlines()[-1])
    other = "\n" + json.dumps({**commit, "checkpoint": {"rows": "many"}}) + "\n"
    journal.write_text(other)
    sink = output.sink()
    with pytest.raises(InputError, match="is no journal of a run by this version"):
        sink.checkpoint()
    sink.close()
    assert journal.read_text() == other
    assert output.rows() == [1, 2]


def test_the_runs_of_another_version_are_refused(tmp_path):
    path = tmp_path / "out.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE yelpaze_runs (output TEXT PRIMARY KEY, standing TEXT)")
    sink = open_sink(f"sqlite:///{path}?table=out", ("rows.csv",), None)
    with pytest.raises(InputError, match="the table yelpaze_runs is of an older version"):
        sink.checkpoint()
    sink.close()


# ── beginning anew ──────────────────────────────────────────────────────────────


@over_all
def test_restart_keeps_the_old_output_beside(output):
    output.run(1, 2, failed=(3,))
    for _ in range(2):
        sink = output.sink()
        sink.checkpoint()
        kept = sink.restart()
        assert len(kept) == (2 if output.is_file else 1)
        assert list(sink.dead_letters()) == []
        for row in (1, 2):
            sink.write(row, result(row))
        sink.fail(letter(3))
        sink.commit(checkpoint(3, failed=1), is_last=True)()
        sink.close()
        assert output.rows() == [1, 2]
        assert output.letters() == [3]
    if output.is_file:
        stem, suffix = output.path.stem, output.path.suffix
        names = {path.name for path in output.folder.iterdir()}
        assert {f"{stem}.1{suffix}", f"{stem}.2{suffix}"} <= names
        stem = letters_of(output).stem
        assert {f"{stem}.1.jsonl", f"{stem}.2.jsonl"} <= names
    else:
        for number in (1, 2):
            assert sorted(output.values(f"{output.table}_{number}")) == [1, 2]
            assert output.sql(f'SELECT count(*) FROM "{output.table}_{number}_failures"') == [(1,)]


@over_all
def test_restart_of_what_was_never_begun(output):
    sink = output.sink()
    assert sink.checkpoint() is None
    assert sink.restart() == []
    sink.write(1, result(1))
    sink.commit(checkpoint(1))()
    sink.close()
    assert output.rows() == [1]


@over_files
def test_what_no_run_wrote_is_told_of_and_kept_by_restart(output):
    if output.name == "out.parquet":
        output.path.mkdir()
        (output.path / "theirs.parquet").write_bytes(b"theirs")
    else:
        output.path.write_bytes(b"theirs")
    sink = output.sink()
    assert sink.checkpoint() is None
    assert "there is no journal of a run that wrote it" in sink.damage()
    (kept,) = sink.restart()
    path = Path(kept)
    assert (path / "theirs.parquet" if path.is_dir() else path).read_bytes() == b"theirs"
    sink.close()


@over_files
def test_dead_letters_that_no_run_wrote_are_not_harmed(output):
    path = letters_of(output)
    path.write_text("theirs")
    sink = output.sink()
    sink.checkpoint()
    assert sink.damage() == f"{path} exists, and there is no journal of a run that wrote it"
    (kept,) = sink.restart()
    assert Path(kept).read_text() == "theirs"
    sink.close()


# ── damage ──────────────────────────────────────────────────────────────────────


@over("Jsonl", "Csv", "Tsv")
def test_an_output_that_was_removed_shortened_or_edited(kind):
    for change, word in (
        (lambda path: path.unlink(), "is missing"),
        (lambda path: os.truncate(path, 10), "is 10 bytes long, though"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"v2", b"v3")), "was edited"),
    ):
        for name in ("out", "letters"):
            output = kind()
            output.run(1, 2, failed=(3,))
            path = output.path if name == "out" else letters_of(output)
            if name != "out" and word == "was edited":
                path.write_bytes(path.read_bytes().replace(b"503", b"504"))
            else:
                change(path)
            assert word in output.damage()
            # The user goes on all the same.
            sink = output.sink()
            sink.checkpoint()
            assert sink.damage()
            sink.resume()
            sink.write(4, result(4))
            sink.commit(checkpoint(4, failed=1), is_last=True)()
            sink.close()
            assert output.damage() is None
            assert 4 in {int(row) for row in output.values()}


@over("Parquet")
def test_parts_that_were_removed_or_changed(kind):
    for change, word in (
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"PAR1"), "was changed: it is 4 bytes long"),
    ):
        output = kind()
        for rows in ((1, 2), (3, 4), (5, 6)):
            sink = output.begun()
            for row in rows:
                sink.write(row, result(row))
            sink.commit(checkpoint(rows[-1]), is_last=True)()
            sink.close()
        parts = sorted(output.path.glob("*.parquet"))
        assert len(parts) == 3
        change(parts[0])
        assert word in output.damage()
        if word == "is missing":  # going on all the same must not harm the parts that are left
            sink = output.sink()
            sink.checkpoint()
            sink.resume()
            sink.write(7, result(7))
            sink.commit(checkpoint(7), is_last=True)()
            sink.close()
            assert output.rows() == [3, 4, 5, 6, 7]


@over("Parquet")
def test_files_of_the_user_beside_the_parts_are_left_alone(output):
    output.run(1, 2)
    for name in ("mine.parquet", "_metadata", "README"):
        (output.path / name).write_bytes(b"mine")
    output.begun().close()
    assert (output.path / "mine.parquet").read_bytes() == b"mine"
    assert (output.path / "README").exists()


@over("Parquet")
def test_rows_between_two_parts_that_were_edited(output):
    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1), is_last=False)()
    output.crash(sink)
    path = output.path / "_open.jsonl"
    path.write_bytes(path.read_bytes().replace(b"v1", b"v2"))
    assert "_open.jsonl was edited" in output.damage()
    path.unlink()
    assert "_open.jsonl is missing" in output.damage()


@over_databases
def test_a_table_that_was_removed_or_lost_rows(output):
    output.run(1, 2, failed=(3,))
    output.sql(f"DELETE FROM {output.table} WHERE id = 1")
    if output.key:
        assert output.damage() is None  # rows may have been replaced, so they can't be counted
    else:
        assert "was edited: it has 1 rows, though 2 were committed" in output.damage()
    output.sql(f"DROP TABLE {output.table}")
    assert output.damage() == f"the table {output.table} is missing"
    sink = output.sink()
    sink.checkpoint()
    sink.resume()
    sink.write(4, result(4))
    sink.commit(checkpoint(4, failed=1))()
    sink.close()
    assert output.rows() == [4]


# ── dead letters ────────────────────────────────────────────────────────────────


@over_all
def test_dead_letters_come_back_as_they_were(output):
    letters = [
        letter(1, input="text with \x00 and \\u0000 and 'quotes' and 😀 and İ"),
        letter(
            2, input=[1, None, {"a": 2**64}], attempts=[{"at": 1.5, "error": "x"}], trace_id="ab", at="2026"
        ),
        letter(3, answers={"base": {"status": 200, "body": "\n"}}, cursor=[0, 7, 1], is_partial=True),
        letter(4, step=None, error={"kind": "input", "message": "a\nb\x00c"}, is_text=True),
    ]
    sink = output.begun()
    for one in letters:
        sink.fail(one)
    sink.commit(checkpoint(4, failed=4))()
    sink.close()
    again = output.begun()
    assert list(again.dead_letters()) == letters
    again.close()


@over_all
def test_dead_letters_with_what_json_cannot_say(output):
    sink = output.begun()
    sink.fail(letter(1, input=float("nan"), error={"kind": "connect", "message": "odd \udcff name"}))
    sink.fail(letter(2, input={"a": object(), "b": "\ud800"}))
    sink.commit(checkpoint(2, failed=2))()
    sink.close()
    again = output.begun()
    first, second = again.dead_letters()
    assert (first.row, first.input, first.kind) == (1, None, "connect")
    assert first.error["message"].startswith("odd ")
    assert second.input["a"].startswith("<object")
    again.close()


@over_all
def test_many_dead_letters_are_read_while_rows_are_written(output):
    sink = output.begun()
    for row in range(1, 251):
        sink.fail(letter(row))
    sink.commit(checkpoint(250, failed=250))()
    seen = []
    for one in sink.dead_letters():
        seen.append(one.row)
        sink.resolve(one.row)
        if one.row % 2:
            sink.write(one.row, result(one.row))
        else:
            sink.fail(letter(one.row, step="again"))
        if one.row % 60 == 0:
            sink.commit(checkpoint(250, failed=125))()
    assert seen == list(range(1, 251))
    sink.commit(checkpoint(250, failed=125))()
    sink.tidy()
    left = list(sink.dead_letters())
    assert [one.row for one in left] == list(range(2, 251, 2))
    assert {one.step for one in left} == {"again"}
    sink.close()
    assert output.letters() == list(range(2, 251, 2))
    assert output.rows() == list(range(1, 251, 2))


@over_all
def test_resolved_letters_go_and_no_empty_file_stays(output):
    output.run(1, failed=(2, 3))
    sink = output.begun()
    for row in (2, 3):
        sink.resolve(row)
        sink.write(row, result(row))
    sink.commit(checkpoint(3))()
    sink.tidy()
    sink.tidy()
    assert list(sink.dead_letters()) == []
    if output.is_file:
        assert not list(output.folder.glob("*failures*"))
    sink.fail(letter(4))
    sink.commit(checkpoint(4, failed=1))()
    sink.close()
    assert output.letters() == [4]
    assert output.rows() == [1, 2, 3]


@over_files
def test_dead_letters_that_were_edited_are_told_of_by_line(output):
    output.run(1, failed=(2, 3))
    path = letters_of(output)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "!" * (len(lines[1]) - 1) + "\n")
    sink = output.sink()
    sink.checkpoint()
    sink.resume()
    with pytest.raises(InputError, match="line 2: is no dead letter"):
        list(sink.dead_letters())
    sink.close()


# ── values ──────────────────────────────────────────────────────────────────────


def taken(output, *results: Any, annotation: object = None, is_last: bool = True) -> list[str]:
    """Write results in one life; why those that have no place have none."""
    sink = output.begun(annotation)
    now = sink.checkpoint()
    number = now.acks.through if now else 0
    reasons = []
    failed = now.failed if now else 0
    for value in results:
        number += 1
        try:
            sink.write(number, msgspec.json.encode(value))
        except SchemaMismatch as error:
            reasons.append(str(error))
            sink.fail(letter(number))
            failed += 1
    sink.commit(checkpoint(number, failed=failed), is_last=is_last)()
    reasons += [why for _, why in sink.rejected()]
    sink.close()
    return reasons


def columns_of(output) -> list[list[Any]]:
    """The rows' values."""
    return [list(value.values()) for _, value in sorted(output.values().items())]


MIXED = [
    {"id": 1, "i": 1, "f": 0.5, "b": True, "t": 'a\rb\nc,\t"d" İ', "j": [1, {"x": None}], "n": None},
    {"id": 2, "i": -(2**63), "f": 2, "b": False, "t": "", "j": {}, "n": None},
    {"id": 3},
    {"id": 4, "i": 2**63 - 1, "f": float("nan"), "b": None, "t": None, "j": None},
]


@over_all
def test_every_kind_of_value_comes_back(output):
    assert taken(output, *MIXED) == []
    found = output.values()
    assert sorted(found) == [1, 2, 3, 4]
    for number, value in enumerate(MIXED, 1):
        got = found[number]
        for name in MIXED[0]:
            expected = value.get(name)
            if expected != expected:  # NaN  # noqa: PLR0124
                expected = None
            one = got.get(name)
            if output.name in ("out.csv", "out.tsv"):
                if not isinstance(expected, str):
                    expected = "" if expected is None else json.dumps(expected, separators=(",", ":"))
            elif isinstance(one, str) and isinstance(expected, list | dict):
                one = json.loads(one)
            assert one == expected, (number, name)


@over_typed
def test_a_value_that_does_not_fit_its_column(output):
    assert taken(output, {"id": 1, "n": 1}, {"id": 2, "n": 2}) == []
    reasons = taken(
        output,
        {"id": 3, "n": "x"},
        {"id": 4, "n": 2**63},
        {"id": 5, "n": 0.5},
        {"id": 6, "n": 6, "new": 1},
        {"id": 7, "n": None},
        ["no object"],
        {"id": 9},
    )
    assert len(reasons) == 5
    assert "Expected `int | null`, got `str` - at `$.n`" in reasons[0]
    assert "9223372036854775808 at `$.n` is beyond 64 bits" in reasons[1]
    assert "`$.n`" in reasons[2]
    assert "unknown field `new`" in reasons[3]
    assert columns_of(output) == [[1, 1], [2, 2], [7, None], [9, None]]
    assert output.letters() == [3, 4, 5, 6, 8]


@over("Csv", "Tsv")
def test_delimited_values_may_change_their_type_but_not_their_names(output):
    assert taken(output, {"a": 1}, {"a": "x"}) == []
    (reason,) = taken(output, {"a": [1]}, {"a": 2**64}, {"b": 1}, {})
    assert "unknown field `b`" in reason
    assert columns_of(output) == [["1"], ["x"], ["[1]"], [str(2**64)], [""]]


# ── columns that held nothing at first ──────────────────────────────────────────

LATE = ["late", "1.5", "true", "", '"quoted"', "[1]", None]
LATE_VALUES = [1.5, 7, True, {"a": "b"}, ["late", 1], [], {}, 2**63]


@over_all
@pytest.mark.parametrize("first", [[{"v": None}], [{}], [{"v": {}}], [{"v": None}, {"v": {}}, {}]])
def test_a_column_that_held_nothing_takes_texts_as_they_are(kind, first, monkeypatch):
    """Also after a crash between the first results and the others, since the columns are in the checkpoint."""
    first = [{"id": 1, "v": None}, *({"id": 1} | value for value in first)]
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", len(first))
    output = kind()
    assert taken(output, *({**value, "id": row} for row, value in enumerate(first, 1)), is_last=False) == []
    late = [{"id": row, "v": value} for row, value in enumerate([*LATE, *LATE_VALUES], len(first) + 1)]
    for half in (late[:5], late[5:]):
        assert taken(output, *half) == []
    found = output.values()
    for item in late:
        one, value = found[item["id"]]["v"], item["v"]
        is_text = isinstance(value, str) or output.name == "out.jsonl"
        if value is None:
            assert one in (None, "")
        elif is_text or (type(one) in (int, float) and value != 2**63):
            assert one == value
        else:
            assert json.loads(one) == value
    assert output.damage() is None


@over("Sqlite", "SqliteKey")
def test_a_column_that_held_nothing_keeps_types_where_it_can(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", 1)
    assert (
        taken(output, {"id": 1, "v": None}, *({"id": 2 + n, "v": v} for n, v in enumerate(LATE_VALUES))) == []
    )
    found = [value for _, value in output.sql(f"SELECT id, v FROM {output.table} ORDER BY id")]
    assert found == [None, 1.5, 7, 1, '{"a":"b"}', '["late",1]', "[]", "{}", str(2**63)]
    assert [type(value) for value in found[1:3]] == [float, int]


@over("Sqlite", "Postgres")
def test_without_lists_an_empty_one_says_nothing_of_its_column(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", 2)
    values = [{"id": 1, "v": None}, {"id": 2, "v": []}, {"id": 3, "v": "late"}, {"id": 4, "v": ["late"]}]
    assert taken(output, *values) == []
    assert columns_of(output) == [[1, None], [2, "[]"], [3, "late"], [4, '["late"]']]


# ── lists ───────────────────────────────────────────────────────────────────────


def types_of(output) -> dict[str, set[str]]:
    """The types of each column in all parts; an error where they differ from part to part."""
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    found: dict[str, set[str]] = {}
    parts = sorted(output.path.glob("part-*.parquet"))
    for part in parts:
        for field in pq.read_schema(part):
            found.setdefault(field.name, set()).add(str(field.type).replace("element", "item"))
    assert ds.dataset(parts).to_table().num_rows == len(output.values())
    return found


@over("Parquet")
@pytest.mark.parametrize(
    ("values", "type_", "misfits"),
    [
        (
            [[1, 2], [], None, [None, 3], [-(2**63), 2**63 - 1]],
            "list<item: int64>",
            [[2**63], [1.5], ["a"], 1],
        ),
        ([[1, 2], [0.5], [None]], "list<item: double>", [["a"], [True], "a"]),
        ([[True], [None, False]], "list<item: bool>", [[1]]),
        ([["a", "ü\n"], [""], [None]], "list<item: string>", [[1], "a", [["a"]]]),
        ([[[1], []], [], [None, [2, None]]], "list<item: list<item: int64>>", [[1], [["a"]]]),
        ([[[]], [[0.5], [1]]], "list<item: list<item: double>>", [[["a"]]]),
        # Where there is no one type of their elements, lists are JSON text, all of them.
        ([[1], ["a"]], "string", []),
        ([[{"a": 1}], [2]], "string", []),
        ([[1], "a", {"b": 1}], "string", []),
        ([[1], [[1]]], "string", []),
        ([[2**63], [1]], "string", []),
        ([[{}], [{"a": []}]], "string", []),
        # Empty ones say that they are lists, not of what.
        ([[], None], "list<item: string>", ["a", 1]),
        ([[[]], []], "list<item: list<item: string>>", ["a", ["a"]]),
    ],
)
def test_lists_stay_lists_where_their_elements_have_one_type(kind, values, type_, misfits, monkeypatch):
    """In all parts, also in those that a run writes that goes on; what does not fit is a dead letter."""
    output = kind()
    rows = [{"id": row, "v": value} for row, value in enumerate(values, 1)]
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", len(rows))
    assert taken(output, *rows) == []
    count = len(rows)
    reasons = taken(output, *({"id": 0, "v": value} for value in misfits))
    assert len(reasons) == len(misfits)
    assert all("does not fit the output's columns" in reason for reason in reasons)
    count += len(misfits)
    assert taken(output, *({"id": count + row["id"], "v": row["v"]} for row in rows)) == []
    assert types_of(output) == {"row": {"int64"}, "id": {"int64"}, "v": {type_}}
    found = output.values()
    for row in rows:
        for number in (row["id"], count + row["id"]):
            one = found[number]["v"]
            if type_ == "string" and one is not None:
                one = json.loads(one)
            assert one == row["v"]


@over("Parquet")
def test_lists_of_which_only_empty_ones_came_at_first(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", 2)
    assert taken(output, {"id": 1, "v": []}, {"id": 2, "v": None}) == []
    late = [["late", "1"], [1.5, None, True], [{"a": [1]}, [2]]]
    assert taken(output, *({"id": 3 + n, "v": value} for n, value in enumerate(late))) == []
    found = [value["v"] for _, value in sorted(output.values().items())]
    assert found == [[], None, ["late", "1"], ["1.5", None, "true"], ['{"a":[1]}', "[2]"]]


class Colour(Enum):
    RED = "red"


class Lists(TypedDict, total=False):
    numbers: list[int] | None
    mixed: list[int | float]
    days: tuple[date, ...]
    pairs: list[tuple[str, str]]
    names: set[str]
    anything: list[Any]
    objects: list[dict[str, int]]
    colour: Colour
    level: Literal["low", "high"] | None
    nothing: None


@over("Parquet")
def test_lists_as_annotated(output):
    full = {
        "numbers": [1],
        "mixed": [1, 0.5],
        "days": ["2026-11-30"],
        "pairs": [["a", "b"]],
        "names": ["a"],
        "anything": [1],
        "objects": [{"a": 1}],
        "colour": "red",
        "level": "low",
        "nothing": None,
    }
    assert taken(output, {}, full, {"numbers": None}, annotation=Lists) == []
    types = {name: kind for name, (kind,) in types_of(output).items()}
    assert types == {
        "row": "int64",
        "numbers": "list<item: int64>",
        "mixed": "list<item: double>",
        "days": "list<item: string>",
        "pairs": "list<item: list<item: string>>",
        "names": "list<item: string>",
        "anything": "string",
        "objects": "string",
        "colour": "string",
        "level": "string",
        "nothing": "string",
    }
    assert output.values()[2] == {**full, "anything": "[1]", "objects": '[{"a":1}]'}


@over("Parquet")
def test_lists_within_many_lists_are_json_text(output):
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    assert taken(output, {"id": 1, "eight": deep[0], "nine": deep}) == []
    assert output.values()[1] == {"id": 1, "eight": deep[0], "nine": "[[[[[[[[[1]]]]]]]]]"}


@over("Parquet")
def test_a_run_that_began_with_lists_as_json_text_goes_on_so(output):
    """As an earlier version has written them: all parts have the columns of the first one."""
    sink = output.begun()
    sink._layout._table.columns = Columns(
        [Column("id", ColumnKind.INT), Column("v", ColumnKind.JSON)], is_single=False
    )
    sink.write(1, b'{"id":1,"v":[1]}')
    sink.commit(checkpoint(1), is_last=True)()
    sink.close()
    assert taken(output, {"id": 2, "v": [2]}) == []
    assert types_of(output)["v"] == {"string"}
    assert columns_of(output) == [[1, "[1]"], [2, "[2]"]]


@over_all
def test_integers_beyond_64_bits(output):
    assert taken(output, {"id": 1, "n": 2**64}, {"id": 2, "n": 1}) == []
    assert [int(value["n"]) for value in output.values().values()] == [2**64, 1]


@over_all
def test_a_field_called_row_and_names_that_differ_in_case(output):
    assert taken(output, {"id": 1, "row": 7, "row_": 8, "Id": 9, "Row": 10}) == []
    ((_, value),) = output.values().items()
    assert [int(item) for item in value.values()] == [1, 7, 8, 9, 10]
    assert taken(output, {"id": 2, "row": 17, "row_": 18, "Id": 19, "Row": 20}) == []
    assert [int(item) for item in output.values()[2].values()] == [2, 17, 18, 19, 20]


@over_all
def test_names_as_odd_as_json_allows(output):
    names = ['a"b', "a%b", "a%sb", "a b", "a;b", "a'b", "ş", "select", "a.b"]
    assert taken(output, dict.fromkeys(["id", *names], 1)) == []
    assert taken(output, dict.fromkeys(["id", *names], 2)) == []
    ((_, first), (_, second)) = sorted(output.values().items())
    assert {int(item) for item in first.values()} == {1}
    assert {int(item) for item in second.values()} == {2}


@over("Jsonl", "Csv", "Tsv", "Parquet", "Sqlite", "Postgres")
def test_results_that_are_no_objects(kind):
    for values in (
        [1, 2],
        ["a", "b"],
        [None, None],
        [[1], [2]],
        [True, False],
        [1.5, 2],
        [1, "a"],
        ["a", None],
    ):
        output = kind()
        assert taken(output, *values[:1]) == []
        reasons = taken(output, *values[1:])
        assert len(reasons) == (values == [1, "a"] and output.is_typed)
        found = output.values()
        if output.name == "out.jsonl":
            assert found == dict(enumerate(values, 1))
        else:
            assert {tuple(value) for value in found.values()} == {("result",)}
            first = found[1]["result"]
            assert first in (values[0], json.dumps(values[0]), "")


@over("Parquet", "Sqlite", "Postgres")
def test_null_among_objects_is_a_row_of_nulls(output):
    assert taken(output, {"a": 1}, None) == []
    assert columns_of(output) == [[1], [None]]


class Annotated(TypedDict, total=False):
    id: int
    price: float
    tags: list[str]
    name: str | None


@over_typed
def test_columns_come_from_the_annotation(output):
    reasons = taken(
        output, {"id": 1, "price": 1}, {"id": 2, "price": "x"}, {"id": 3, "tags": ["a"]}, annotation=Annotated
    )
    assert len(reasons) == 1
    found = output.values()
    assert sorted(found) == [1, 3]
    assert set(found[1]) == {"id", "price", "tags", "name"}
    assert found[3]["tags"] in ('["a"]', ["a"])


@over_all
def test_more_results_than_are_looked_at_for_the_columns(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.columns.FIRST_ROWS", 3)
    sink = output.begun()
    for row in range(1, 8):
        sink.write(row, result(row))
    sink.commit(checkpoint(7), is_last=True)()
    sink.close()
    assert output.rows() == list(range(1, 8))


# ── databases ───────────────────────────────────────────────────────────────────


@over_databases
def test_without_a_key_rows_are_added_and_with_one_replaced(output):
    reasons = taken(output, {"id": 1, "v": "a"}, {"id": 1, "v": "b"}, {"id": 2, "v": "c"})
    assert reasons == []
    found = output.sql(f"SELECT id, v FROM {output.table} ORDER BY id, v")
    assert found == ([(1, "b"), (2, "c")] if output.key else [(1, "a"), (1, "b"), (2, "c")])
    assert output.damage() is None


@over("SqliteKey", "PostgresKey")
def test_a_result_without_its_key_is_a_dead_letter(output):
    (reason,) = taken(output, {"id": 1, "v": "a"}, {"id": None, "v": "b"}, {"id": 1, "v": "c"})
    assert "id" in reason
    assert output.sql(f"SELECT id, v FROM {output.table}") == [(1, "c")]
    assert output.letters() == [2]
    sink = output.begun()
    assert sink.checkpoint() == checkpoint(3, failed=1, kinds={"result": 1})
    sink.close()


@over("SqliteKey", "PostgresKey")
def test_a_key_that_is_nowhere(kind):
    output = kind()
    sink = output.begun()
    sink.write(1, b'{"other":1}')
    with pytest.raises(InputError, match="the results have no field 'id' for key="):
        sink.commit(checkpoint(1))()
    sink.close()

    class Other(TypedDict):
        other: int

    sink = output.sink(Other)
    with pytest.raises(InputError, match="no field 'id' for key="):
        sink.checkpoint()
    sink.close()
    output.sql(f"CREATE TABLE {output.table} (other integer PRIMARY KEY)")
    sink = output.sink()
    with pytest.raises(InputError, match="has no column 'id'"):
        sink.checkpoint()
    sink.close()


@over_databases
def test_a_table_that_was_there_takes_what_fits(output):
    output.sql(
        f"CREATE TABLE {output.table} (id integer PRIMARY KEY, v varchar(3) NOT NULL CHECK (v <> 'bad'), s real)"
    )
    reasons = taken(
        output,
        {"id": 1, "v": "abc", "s": 0.5},
        {"id": 2, "v": None},
        {"id": 3, "v": "bad"},
        {"id": 4, "v": 5},
        {"id": 5, "v": "d", "s": "x"},
        {"id": 6, "v": "e", "s": 2},
        {"id": 7, "v": "f", "t": 2},
    )
    assert len(reasons) == 5
    assert output.sql(f"SELECT id, v, s FROM {output.table} ORDER BY id") == [(1, "abc", 0.5), (6, "e", 2.0)]
    assert output.letters() == [2, 3, 4, 5, 7]
    sink = output.begun()
    assert sink.checkpoint() == checkpoint(7, failed=5, kinds={"result": 2})
    sink.close()
    # Its rows can't be told from others, unless a key says which to replace.
    sink = output.sink()
    sink.checkpoint()
    if output.key:
        assert sink.restart() == []
        assert list(sink.dead_letters()) == []
    else:
        with pytest.raises(InputError, match="the table was there before the run"):
            sink.restart()
    sink.close()
    assert output.sql(f"SELECT count(*) FROM {output.table}") == [(2,)]


@over_databases
def test_a_table_that_was_there_and_an_annotation(output):
    class Wrong(TypedDict):
        id: int
        v: float

    class More(TypedDict):
        id: int
        w: str

    class Some(TypedDict):
        id: int
        note: str

    output.sql(
        f"CREATE TABLE {output.table} (id integer PRIMARY KEY, v integer DEFAULT 5 NOT NULL, note json)"
    )
    for annotation, message in (
        (Wrong, "the column 'v' holds int, the flow's results float"),
        (More, "the table has no column 'w', which the flow's results have"),
    ):
        sink = output.sink(annotation)
        with pytest.raises(InputError, match=message):
            sink.checkpoint()
        sink.close()
    assert taken(output, {"id": 1, "note": "x"}, annotation=Some) == []
    ((number, default, note),) = output.sql(f"SELECT id, v, note FROM {output.table}")
    assert (number, default) == (1, 5)
    assert note in ("x", '"x"')


@over_databases
def test_a_failures_table_that_no_run_made(output):
    output.sql(f"CREATE TABLE {output.table}_failures (mine integer)")
    sink = output.sink()
    with pytest.raises(InputError, match=f"{output.table}_failures"):
        sink.checkpoint()
    sink.close()
    assert output.columns(f"{output.table}_failures") == ["mine"]


@over_databases
def test_many_refused_rows_are_found_one_by_one(output):
    output.sql(f"CREATE TABLE {output.table} (id integer PRIMARY KEY, v integer CHECK (v % 7 <> 0))")
    reasons = taken(output, *({"id": number, "v": number} for number in range(1, 101)))
    assert len(reasons) == 14
    assert all(why.startswith("the database refuses the result: ") for why in reasons)
    assert output.letters() == list(range(7, 101, 7))


@over_databases
def test_a_refused_row_that_succeeds_in_a_retry(output):
    output.sql(f"CREATE TABLE {output.table} (id integer PRIMARY KEY, v integer CHECK (v > 0))")
    assert len(taken(output, {"id": 1, "v": 1}, {"id": 2, "v": -1})) == 1
    sink = output.begun()
    sink.resolve(2)
    sink.write(2, b'{"id":2,"v":-2}')
    sink.commit(checkpoint(2))()
    assert [row for row, _ in sink.rejected()] == [2]
    assert sink.rejected() == []
    assert len(list(sink.dead_letters())) == 1
    sink.resolve(2)
    sink.write(2, b'{"id":2,"v":2}')
    sink.commit(checkpoint(2))()
    assert sink.rejected() == []
    assert list(sink.dead_letters()) == []
    assert sink.checkpoint() == checkpoint(2)
    sink.close()


@over_postgres
def test_what_postgres_does_not_take(output):
    reasons = taken(
        output,
        {"id": 1, "t": "a", "j": [1]},
        {"id": 2, "t": "a\x00b", "j": [1]},
        {"id": 3, "t": "c", "j": ["\x00"]},
        {"id": 4, "t": "d", "j": {"x": 2**70}},
    )
    assert len(reasons) == 2
    assert columns_of(output) == [[1, "a", [1]], [4, "d", {"x": 2**70}]]


@over_postgres
def test_small_integers_and_triggers(output):
    table = output.table
    output.sql(f"CREATE TABLE {table} (id smallint PRIMARY KEY, v integer, at timestamptz)")
    output.sql(
        f"CREATE FUNCTION {table}_no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.v = 13 THEN RAISE EXCEPTION 'no luck'; END IF; RETURN NEW; END $$"
    )
    output.sql(
        f"CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_no()",
    )
    reasons = taken(
        output,
        {"id": 1, "v": 1, "at": "2026-01-01T00:00:00Z"},
        {"id": 2**15, "v": 1},
        {"id": 3, "v": 2**31},
        {"id": 4, "v": 13},
        {"id": 5, "at": "yesterday evening"},
    )
    assert len(reasons) == 4
    assert "beyond 16 bits" in reasons[0]
    assert "beyond 32 bits" in reasons[1]
    assert any("no luck" in why for why in reasons)
    assert output.sql(f"SELECT id FROM {table}") == [(1,)]


@over("Postgres")
def test_tables_in_schemas(output):
    schema = f"s_{output.table}"
    output.sql(f"CREATE SCHEMA {schema}")
    output.table = f"{schema}.deep"
    output.url = f"{output.server}?table={output.table}"
    output.run(1, 2, failed=(3,))
    assert output.rows() == [1, 2]
    output.sql(f"CREATE TABLE {schema}.deep_1 (theirs integer)")
    sink = output.sink()
    sink.checkpoint()
    assert sink.restart() == ["table deep_2"]
    sink.close()
    assert output.sql(f"SELECT count(*) FROM {schema}.deep_2") == [(2,)]
    # The same by libpq's own option, whose blanks must stay blanks.
    output.url = f"{output.server}?options=-c%20search_path%3D{schema}&table=other"
    output.table = f"{schema}.other"
    output.run(1)
    assert output.rows() == [1]


@over("Postgres")
def test_a_database_in_another_encoding(output):
    output.sql(
        f"CREATE DATABASE {output.table} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    base, _, name = output.server.rpartition("/")
    assert name == "postgres"
    output.url = f"{base}/{output.table}?table=t"
    (reason,) = taken(output, {"v": "é"}, {"v": "ş"})
    assert "LATIN1" in reason
    sink = output.begun()
    assert [one.row for one in sink.dead_letters()] == [2]
    sink.close()


@over("Sqlite")
def test_sqlite_tables_of_the_main_schema(output):
    output.url = f"sqlite:///{output.path}?table=main.results"
    output.run(1)
    sink = output.begun()
    sink.write(2, result(2))
    sink.commit(checkpoint(2))()
    sink.close()
    assert output.rows() == [1, 2]


@over_databases
def test_a_server_or_file_that_is_not_there(output, tmp_path):
    if output.server if hasattr(output, "server") else "":
        base = output.server.rpartition("/")[0]
        url, match = f"{base}/nowhere?table=t", 'database "nowhere" does not exist'
    else:
        url, match = f"sqlite:///{tmp_path}/no/where.db?table=t", "does not exist: create it first"
    output.url = url
    sink = output.sink()
    with pytest.raises(InputError, match=match):
        sink.checkpoint()
    sink.close()


@over("Sqlite", "Postgres")
def test_urls_that_say_too_little_or_too_much(output):
    base = output.url.partition("?")[0]
    for options, match in (
        ("?table=", "need a value"),
        ("?table=t&key=", "need a value"),
        ("?query=SELECT%201", "results go into a table"),
        ("?table=a#b", "%23"),
    ):
        output.url = base + options
        with pytest.raises(InputError, match=match):
            output.sink()


@over("Sqlite")
def test_files_that_are_no_sqlite(output, tmp_path):
    output.path.write_bytes(b"no database, but quite long" * 100)
    sink = output.sink()
    with pytest.raises(InputError, match="not a database"):
        sink.checkpoint()
    sink.close()
    output.url = f"sqlite:///{tmp_path}?table=t"
    sink = output.sink()
    with pytest.raises(InputError, match="is a folder"):
        sink.checkpoint()
    sink.close()


@over("Sqlite")
def test_sqlite_that_is_full(output):
    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1))()
    (pages,) = sink._database.query("PRAGMA page_count")[0]
    sink._database.query(f"PRAGMA max_page_count = {pages}")
    for row in range(2, 2000):
        sink.write(row, result(row))
    with pytest.raises(StoppedError, match="full"):
        sink.commit(checkpoint(1999))()
    sink.close()
    assert output.rows() == [1]
    assert output.damage() is None


@over("Sqlite", "Postgres")
def test_letters_and_results_share_one_transaction(output, monkeypatch):
    sink = output.begun()
    database = sink._database
    insert = type(database).insert

    def fails_at_letters(self, table, *arguments):
        if table.endswith("_failures"):
            raise StoppedError("gone")
        insert(self, table, *arguments)

    monkeypatch.setattr(type(database), "insert", fails_at_letters)
    sink.write(1, result(1))
    sink.fail(letter(2))
    with pytest.raises(StoppedError):
        sink.commit(checkpoint(2, failed=1))()
    output.crash(sink)
    monkeypatch.undo()
    assert output.sink().checkpoint() is None
    assert output.values() == {}


@over_postgres
def test_two_runs_that_begin_in_the_same_moment(output, monkeypatch):
    import psycopg

    sink = output.begun()
    real = sink._make

    def second(*arguments):
        monkeypatch.setattr(sink, "_make", real)
        raise psycopg.errors.UniqueViolation('duplicate key value violates "pg_type_typname_nsp_index"')

    monkeypatch.setattr(sink, "_make", second)
    sink.write(1, result(1))
    sink.fail(letter(2))
    sink.commit(checkpoint(2, failed=1))()
    sink.close()
    assert output.rows() == [1]
    assert output.letters() == [2]


# ── a server that goes away ─────────────────────────────────────────────────────


def cut_off(output, sink) -> None:
    pid = sink._database._connection.info.backend_pid
    output.sql("SELECT pg_terminate_backend(%s, 5000)", pid)


@over_postgres
def test_a_lost_connection_is_made_anew(output):
    sink = output.begun()
    for row in (1, 2, 3):
        sink.write(row, result(row))
        sink.commit(checkpoint(row))()
        cut_off(output, sink)
    sink.close()
    assert output.rows() == [1, 2, 3]


@over_postgres
def test_a_commit_whose_answer_was_lost_is_not_done_twice(output, monkeypatch):
    import psycopg

    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1))()
    real = sink._save

    def and_then_gone(*arguments):
        real(*arguments)
        sink._database.query("COMMIT")
        cut_off(output, sink)
        raise psycopg.OperationalError("the connection is gone")

    monkeypatch.setattr(sink, "_save", and_then_gone)
    sink.write(2, result(2))
    sink.commit(checkpoint(2))()
    monkeypatch.undo()
    sink.write(3, result(3))
    sink.commit(checkpoint(3))()
    sink.close()
    assert output.rows() == [1, 2, 3]


@over_postgres
def test_another_run_that_took_over_meanwhile(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.postgres._LOCK_SECONDS", 0.1)
    sink = output.begun()
    cut_off(output, sink)
    other = output.begun()
    sink.write(1, result(1))
    with pytest.raises(StoppedError, match="another run took over"):
        sink.commit(checkpoint(1))()
    sink.close()
    other.close()


@over_postgres
def test_a_server_that_stays_away(output, monkeypatch):
    import psycopg

    monkeypatch.setattr("yelpaze.io.postgres._AGAIN_SECONDS", (0.0, 0.0))
    sink = output.begun()
    cut_off(output, sink)

    def refused():
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(sink._database, "_connect", refused)
    sink.write(1, result(1))
    with pytest.raises(StoppedError, match="connection refused"):
        sink.commit(checkpoint(1))()
    sink.close()


# ── the journal ─────────────────────────────────────────────────────────────────


@over_files
def test_a_long_journal_is_replaced_and_says_the_same(output, monkeypatch):
    monkeypatch.setattr("yelpaze.io.journal._LONG", 3000)
    journal = output.path.with_name(f"{output.path.name}.journal")
    sink = output.begun()
    for row in range(1, 11):
        sink.fail(letter(row))
    sink.commit(checkpoint(10, failed=10))()
    lengths = []
    for row in range(1, 41):
        if row <= 10:
            sink.resolve(row)
        sink.write(row, result(row))
        sink.commit(checkpoint(max(row, 10), failed=max(10 - row, 0)))()
        lengths.append(journal.stat().st_size)
        if row % 7 == 0:
            output.crash(sink)
            output.tear()
            sink = output.begun()
            assert [one.row for one in sink.dead_letters()] == list(range(row + 1, 11))
    assert max(lengths) <= 3000
    assert sorted(lengths) != lengths
    with pytest.raises(InputError, match="another run"):
        output.sink().checkpoint()
    sink.close()
    assert output.rows() == list(range(1, 41))


@over("Jsonl")
def test_a_journal_beyond_a_mebibyte(output):
    journal = output.path.with_name(f"{output.path.name}.journal")
    sink = output.begun()
    far = tuple(range(1_000_000, 1_040_000))
    for row in range(1, 8):
        sink.write(row, result(row))
        progress = AckState(2_000_000, far)
        sink.commit(msgspec.structs.replace(checkpoint(row), acks=progress))()
        assert journal.stat().st_size < 2 << 20
    output.crash(sink)
    again = output.begun()
    assert again.checkpoint().acks.open == far
    again.close()
    assert output.rows() == list(range(1, 8))


# ── no space left ───────────────────────────────────────────────────────────────


@over_files
@pytest.mark.parametrize("call", ["fsync", "pwrite", "rename"])
def test_a_disk_that_is_full_stops_and_the_next_life_goes_on(output, monkeypatch, call):
    sink = output.begun()
    sink.write(1, result(1))
    sink.commit(checkpoint(1))()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink.write(2, result(2))
    sink.fail(letter(3))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        patch.setattr("yelpaze.io.journal._LONG", 0)  # so that it is renamed
        with pytest.raises(OSError, match="No space left"):
            sink.commit(checkpoint(3, failed=1), is_last=True)()
    sink.close()
    again = output.begun()
    assert again.checkpoint() == checkpoint(1)
    assert output.rows() == [1]
    again.write(2, result(2))
    again.fail(letter(3))
    again.commit(checkpoint(3, failed=1), is_last=True)()
    again.close()
    assert output.rows() == [1, 2]
    assert output.letters() == [3]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@over("Parquet")
def test_a_device_that_is_full(output):
    sink = output.begun()
    (output.path / "_open.jsonl").symlink_to("/dev/full")
    sink.write(1, result(1))
    with pytest.raises(OSError, match="No space left"):
        sink.commit(checkpoint(1))()
    sink.close()
    (output.path / "_open.jsonl").unlink(missing_ok=True)
    again = output.begun()
    assert again.checkpoint() is None
    again.close()


# ── standard output ─────────────────────────────────────────────────────────────


@pytest.fixture
def stdout_sink(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    sink = open_sink("-", ("rows.csv",), None)
    yield sink
    sink.close()


def test_stdout_gets_lines_and_the_letters_a_file(stdout_sink, tmp_path, capfdbinary):
    (tmp_path / "rows.results.failures.jsonl").write_text("of an earlier run\n")
    assert stdout_sink.checkpoint() is None
    assert stdout_sink.damage() is None
    stdout_sink.resume()
    stdout_sink.write(1, result(1))
    stdout_sink.fail(letter(2))
    assert stdout_sink.waiting > 0
    assert capfdbinary.readouterr().out == b""
    stdout_sink.commit(checkpoint(2, failed=1))()
    assert stdout_sink.waiting == 0
    assert capfdbinary.readouterr().out == b'{"row":1,"result":{"id":1,"value":"v1"}}\n'
    (line,) = Path(stdout_sink.failures).read_text().splitlines()
    assert json.loads(line)["row"] == 2
    stdout_sink.resolve(2)
    assert list(stdout_sink.dead_letters()) == []
    assert stdout_sink.rejected() == []
    stdout_sink.tidy()
    stdout_sink.close()
    stdout_sink.restart()
    assert not Path(stdout_sink.failures).exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_stdout_that_is_full(stdout_sink):
    stdout_sink._out.close()
    stdout_sink._out = Path("/dev/full").open("wb")  # noqa: SIM115  closed by the sink
    stdout_sink.write(1, result(1))
    with pytest.raises(OSError, match="No space left"):
        stdout_sink.commit(checkpoint(1))()


@over("Csv", "Parquet", "Sqlite", "Postgres")
def test_columns_wait_for_more_than_the_first_results(kind):
    """Results that come slowly are held back, so that what the output looks like is not a matter of time."""
    output = kind()
    sink = output.begun()
    sink.write(1, b'{"id":1,"value":1}')
    sink.commit(checkpoint(1), is_last=False)()
    sink.write(2, b'{"id":2,"value":2.5,"note":"n"}')
    sink.commit(checkpoint(2), is_last=False)()
    output.crash(sink)
    assert output.damage() is None
    again = output.begun()
    assert again.checkpoint() == checkpoint(2)
    again.write(3, b'{"id":3,"value":3}')
    again.commit(checkpoint(3), is_last=True)()
    with pytest.raises(SchemaMismatch):
        again.write(4, b'{"id":4,"other":1}')
    again.close()
    assert sorted(int(row) for row in output.values()) == [1, 2, 3]
    assert output.damage() is None
    output.close()
