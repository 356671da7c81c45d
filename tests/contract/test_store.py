"""The contract of every store: what is written is whole and durable, whatever others in its group do."""

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import threading

import pytest

from support.needed import absent, needs
from support.postgres import Postgres, binary
from support.waiting import until_true
from yelpaze.model.errors import InputError
from yelpaze.store.migrations import Migrations
from yelpaze.store.opening import open_store
from yelpaze.store.session import StoreUnavailable, Table

FIRST = (
    "CREATE TABLE note (id TEXT PRIMARY KEY, number BIGINT, data BYTEA); CREATE TABLE once (id TEXT NOT NULL)"
)
NOTES = Migrations("notes", (FIRST, "INSERT INTO once (id) VALUES ('second step')"))
NOTE = Table("note", {"id": "text", "number": "bigint", "data": "bytea"})
NUMBER = Table("note", {"id": "text", "number": "bigint"})
ALL = "SELECT id, number, data FROM note ORDER BY number, id"


class RefusedError(Exception):
    pass


def noted(name, number=0, data=None):
    """A unit of work that writes a note, and returns its name."""

    def work(session):
        session.insert(NOTE, [(name, number, data)])
        return name

    return work


def names(session):
    return {name for (name,) in session.rows("SELECT id FROM note")}


def refused_at_once(session):
    raise RefusedError


def refused_after_writing(session):
    session.insert(NOTE, [("refused", 0, None)])
    raise RefusedError


@pytest.fixture
async def store(store_name):
    async with open_store(store_name, NOTES) as store:
        yield store


@contextlib.asynccontextmanager
async def busy(store):
    """The writer is held in a unit of work, so that what is written meanwhile makes one group."""
    began, go = threading.Event(), threading.Event()

    def hold(session):
        began.set()
        assert go.wait(60)

    holding = asyncio.create_task(store.write(hold))
    await until_true(began.is_set)
    try:
        yield
    finally:
        go.set()
        await holding


async def written_together(store, works):
    """What comes of units of work in one group: their values, or what they raise."""
    async with busy(store):
        writes = [asyncio.create_task(store.write(work)) for work in works]
        await until_true(lambda: store.queued == len(works))
    return await asyncio.gather(*writes, return_exceptions=True)


# ── writing and reading ─────────────────────────────────────────────────────────


async def test_a_write_returns_the_value_of_its_work(store):
    assert await store.write(noted("a")) == "a"
    assert await store.write(lambda _: None) is None


async def test_what_was_written_is_there_after_reopening(store_name):
    async with open_store(store_name, NOTES) as store:
        await store.write(noted("a", 1, b"data"))
    async with open_store(store_name, NOTES) as store:
        assert await store.read(lambda session: session.rows(ALL)) == [("a", 1, b"data")]


async def test_reads_see_what_was_committed_before(store):
    for number in range(5):
        await store.write(noted(f"{number}"))
        found = await asyncio.gather(*(store.read(names) for _ in range(4)))
        assert found == [{str(one) for one in range(number + 1)}] * 4


async def test_reads_do_not_see_what_is_not_committed_and_do_not_wait_for_it(store):
    written, go = threading.Event(), threading.Event()

    def work(session):
        session.insert(NOTE, [("a", 0, None)])
        written.set()
        assert go.wait(60)

    writing = asyncio.create_task(store.write(work))
    await until_true(written.is_set)
    assert await store.read(names) == set()
    go.set()
    await writing
    assert await store.read(names) == {"a"}


async def test_a_read_that_raises_spoils_no_later_read(store):
    await store.write(noted("a"))
    for _ in range(4):
        with pytest.raises(RefusedError):
            await store.read(refused_at_once)
        with pytest.raises(Exception, match="nowhere"):
            await store.read(lambda session: session.rows("SELECT * FROM nowhere"))
        assert await store.read(names) == {"a"}


async def test_units_run_in_the_order_in_which_they_were_given(store):
    def work(number):
        def count(session):
            found = session.rows("SELECT count(*) FROM note")[0][0]
            session.insert(NOTE, [(f"{number}", number, None)])
            return found

        return count

    assert await written_together(store, [work(number) for number in range(50)]) == list(range(50))


async def test_many_writes_share_a_commit(store):
    before = store.commits
    await written_together(store, [noted(f"{number}") for number in range(500)])
    assert store.commits == before + 2  # that which held the writer, and all others
    assert len(await store.read(names)) == 500


async def test_more_writes_than_a_group_has_room_for_are_all_done(store):
    before = store.commits
    done = await written_together(store, [noted(f"{number}") for number in range(2500)])
    assert done == [str(number) for number in range(2500)]
    assert store.commits <= before + 5
    assert len(await store.read(names)) == 2500


async def test_a_write_whose_caller_has_gone_stays_and_harms_nobody(store):
    async with busy(store):
        writes = [asyncio.create_task(store.write(noted(name))) for name in "abc"]
        await until_true(lambda: store.queued == 3)
        writes[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await writes[1]
    assert await asyncio.gather(writes[0], writes[2]) == ["a", "c"]
    assert await store.read(names) == {"a", "b", "c"}


# ── groups ──────────────────────────────────────────────────────────────────────


async def test_a_unit_that_raises_before_it_writes_harms_no_other(store):
    before = store.commits
    results = await written_together(store, [noted("a"), refused_at_once, noted("b")])
    assert results[::2] == ["a", "b"]
    assert isinstance(results[1], RefusedError)
    assert await store.read(names) == {"a", "b"}
    assert store.commits == before + 2  # nothing was done again


async def test_a_unit_that_raises_after_it_has_written_is_undone_alone(store):
    runs = []

    def counted(name):
        def work(session):
            runs.append(name)
            return noted(name)(session)

        return work

    results = await written_together(store, [counted("a"), refused_after_writing, counted("b")])
    assert results[::2] == ["a", "b"]
    assert isinstance(results[1], RefusedError)
    assert await store.read(names) == {"a", "b"}
    assert runs.count("a") == 2  # in the group, and by itself


async def test_a_single_unit_that_raises_after_it_has_written_is_undone(store):
    with pytest.raises(RefusedError):
        await store.write(refused_after_writing)
    assert await store.read(names) == set()
    assert await store.write(noted("a")) == "a"


async def test_a_unit_that_writes_by_a_query_with_rows_and_raises_is_undone(store):
    await store.write(noted("a", 1))

    def work(session):
        session.rows("UPDATE note SET number = 2 WHERE id = ? RETURNING id", "a")
        raise RefusedError

    results = await written_together(store, [noted("b", 5), work, noted("c", 6)])
    assert isinstance(results[1], RefusedError)
    rows = await store.read(lambda session: session.rows(ALL))
    assert [row[:2] for row in rows] == [("a", 1), ("b", 5), ("c", 6)]


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM nowhere", "INSERT INTO note (id) VALUES ('a')", "UPDATE nowhere SET x = 1"]
)
async def test_a_statement_that_the_database_refuses_harms_no_other(store, sql):
    await store.write(noted("a"))
    how = "rows" if sql.startswith("SELECT") else "run"
    results = await written_together(
        store, [noted("b"), lambda session: getattr(session, how)(sql), noted("c")]
    )
    assert results[::2] == ["b", "c"]
    assert isinstance(results[1], Exception)
    assert await store.read(names) == {"a", "b", "c"}


async def test_a_unit_that_goes_on_after_a_refused_statement_is_undone_or_whole(store):
    await store.write(noted("a"))

    def work(session):
        session.insert(NOTE, [("b", 0, None)])
        with contextlib.suppress(Exception):
            session.insert(NOTE, [("a", 0, None)])
        session.insert(NOTE, [("c", 0, None)])
        return "done"

    (result,) = await asyncio.gather(store.write(work), return_exceptions=True)
    whole = {"a", "b", "c"} if result == "done" else {"a"}
    assert await store.read(names) == whole


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_mixture_all_that_succeeded_is_there_and_nothing_else(store, seed):
    rng = random.Random(seed)
    wanted = set()
    for group in range(4):
        works, good = [], []
        for number in range(rng.randrange(1, 40)):
            kind = rng.choices(["good", "before", "after", "double"], [8, 1, 1, 1])[0]
            name = f"{group}-{number}"
            if kind == "good":
                works.append(noted(name))
            elif kind == "double" and good:
                works.append(noted(rng.choice(good)))  # the key is there already
                kind = "refused"
            else:
                works.append(refused_at_once if kind == "before" else refused_after_writing)
            if kind == "good":
                good.append(name)
        results = await written_together(store, works)
        assert [result for result in results if isinstance(result, str)] == good
        wanted.update(good)
    assert await store.read(names) == wanted


# ── what a session does ─────────────────────────────────────────────────────────


async def test_ignoring_known_keys_keeps_the_rows_that_are_there(store):
    await store.write(lambda session: session.insert(NOTE, [("a", 1, None), ("b", 2, None)]))
    rows = [("b", 20, None), ("c", 30, None), ("c", 31, None)]
    await store.write(lambda session: session.insert(NOTE, rows, ignore_known=True))
    found = await store.read(lambda session: session.rows(ALL))
    assert [row[:2] for row in found] == [("a", 1), ("b", 2), ("c", 30)]


async def test_a_known_key_is_refused_unless_it_is_ignored_and_nothing_of_the_call_stays(store):
    await store.write(noted("b"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.write(lambda session: session.insert(NOTE, [("a", 1, None), ("b", 2, None)]))
    assert await store.read(names) == {"b"}


async def test_ignoring_known_keys_ignores_no_other_mistake(store):
    once = Table("once", {"id": "text"})
    with pytest.raises(Exception, match=r"(?i)not.null"):
        await store.write(lambda session: session.insert(once, [("a",), (None,)], ignore_known=True))
    assert await store.read(lambda session: session.rows("SELECT id FROM once")) == [("second step",)]


async def test_no_rows_are_nothing_to_do(store):
    def work(session):
        session.insert(NOTE, [])
        session.insert(NOTE, [], ignore_known=True)
        session.update(NUMBER, ["number"], [])

    await store.write(work)
    assert await store.read(names) == set()


async def test_an_update_changes_the_rows_of_its_keys_that_fulfil_the_condition(store):
    notes = [("a", 1, b"1"), ("b", 2, b"2"), ("c", 3, b"3"), ("d", None, None)]
    changes = [(10, "a"), (20, "b"), (30, "c"), (40, "d"), (50, "nowhere")]

    def work(session):
        session.insert(NOTE, notes)
        session.update(NUMBER, ["number"], changes, "note.number < 3")

    await store.write(work)
    rows = await store.read(lambda session: session.rows("SELECT id, number, data FROM note ORDER BY id"))
    assert rows == [("a", 10, b"1"), ("b", 20, b"2"), ("c", 3, b"3"), ("d", None, None)]
    await store.write(lambda session: session.update(NUMBER, ["number"], [(None, "a"), (7, "d")]))
    rows = await store.read(lambda session: session.rows("SELECT id, number FROM note ORDER BY id"))
    assert rows == [("a", None), ("b", 20), ("c", 3), ("d", 7)]


async def test_run_tells_how_many_rows_it_has_changed(store):
    await store.write(lambda session: session.insert(NOTE, [("a", 1, None), ("b", 1, None), ("c", 2, None)]))

    def work(session):
        return [session.run("UPDATE note SET number = number + 1 WHERE number = ?", n) for n in (1, 9)]

    assert await store.write(work) == [2, 0]
    assert await store.write(lambda session: session.run("DELETE FROM note WHERE number = 2")) == 3


ODD = ["", "a'b", 'a"b', "a,b", "{a}", "NULL", "a\\b", "ü€𝄞", "%s", "?", " a ", "a\nb", "[1]", "IN ??"]


async def test_a_list_of_texts_finds_those_that_are_equal(store):
    def work(session):
        session.insert(NOTE, [(name, 0, None) for name in [*ODD, "other"]])
        found = session.rows("SELECT id FROM note WHERE id IN ??", [*ODD, "absent"])
        one_by_one = [
            session.rows("SELECT id FROM note WHERE id IN ?? AND number = ?", [one], 0) for one in ODD
        ]
        return {name for (name,) in found}, one_by_one

    together, alone = await store.write(work)
    assert together == set(ODD)
    assert alone == [[(one,)] for one in ODD]


async def test_a_list_of_numbers_finds_those_that_are_equal(store):
    numbers = [0, 1, -1, 2**15, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)]

    def work(session):
        session.insert(NOTE, [(f"{number}", number, None) for number in [*numbers, 7, 2**53]])
        found = session.rows("SELECT number FROM note WHERE number IN ??", numbers)
        small = session.rows("SELECT number FROM note WHERE ? = id AND number IN ??", "7", [7, 8])
        return {number for (number,) in found}, small

    assert await store.write(work) == (set(numbers), [(7,)])


async def test_an_empty_list_finds_nothing(store):
    def work(session):
        session.insert(NOTE, [("a", 1, None)])
        texts = session.rows("SELECT id FROM note WHERE id IN ??", [])
        numbers = session.rows("SELECT id FROM note WHERE number IN ??", [])
        return texts, numbers, session.run("DELETE FROM note WHERE number IN ??", [])

    assert await store.write(work) == ([], [], 0)


async def test_values_come_back_as_they_were(store):
    rows = [
        ("empty", 0, b""),
        ("bytes", 1, bytes(range(256))),
        ("nothing", 2, None),
        ("ü€𝄞 🏴‍☠️ e\u0301 \u202e ' \" \\ % ? \t\n\r \x7f", 3, "ü".encode()),
        ("large", 2**63 - 1, b"\x00"),
        ("small", -(2**63), b"\xff"),
        ("long " + "x" * 100_000, 4, b"x" * 100_000),
    ]
    by_number = sorted(rows, key=lambda row: row[1])
    await store.write(lambda session: session.insert(NOTE, rows))
    assert await store.read(lambda session: session.rows(ALL)) == by_number

    def one_by_one(session):
        session.run("DELETE FROM note")
        for row in rows:
            session.run("INSERT INTO note (id, number, data) VALUES (?, ?, ?)", *row)
        for name, number, data in rows:
            where = "SELECT id, number, data FROM note WHERE id = ? AND number = ?"
            assert session.rows(where, name, number) == [(name, number, data)]
        data = Table("note", {"id": "text", "data": "bytea"})
        session.update(data, ["data"], [(row[2], row[0]) for row in rows])

    await store.write(one_by_one)
    assert await store.read(lambda session: session.rows(ALL)) == by_number


async def test_texts_sort_by_their_code_points_as_ids_do(store):
    given = ["msg_01a", "msg_019", "msg_00z", "msg_0zz", "msg_100"]
    await store.write(lambda session: session.insert(NOTE, [(name, 0, None) for name in given]))
    rows = await store.read(
        lambda session: session.rows("SELECT id FROM note WHERE id > ? ORDER BY id", "msg_010")
    )
    assert [name for (name,) in rows] == ["msg_019", "msg_01a", "msg_0zz", "msg_100"]


async def test_the_clock_of_leases_does_not_go_back(store):
    times = [await store.read(lambda session: session.lease_time()) for _ in range(5)]
    assert times == sorted(times)
    assert all(isinstance(one, int) for one in times)


# ── migrations ──────────────────────────────────────────────────────────────────


async def steps_of(store):
    rows = await store.read(lambda session: session.rows("SELECT id FROM once ORDER BY id"))
    return [step for (step,) in rows]


async def test_each_step_is_applied_once(store_name):
    for _ in range(3):
        async with open_store(store_name, NOTES) as store:
            assert await steps_of(store) == ["second step"]


async def test_a_new_step_is_applied_at_the_next_opening(store_name):
    async with open_store(store_name, NOTES) as store:
        await store.write(noted("a", 1))
    third = "ALTER TABLE note ADD COLUMN word TEXT; INSERT INTO once (id) VALUES ('third step')"
    newer = Migrations("notes", (*NOTES.steps, third))
    for _ in range(2):
        async with open_store(store_name, newer) as store:
            assert await steps_of(store) == ["second step", "third step"]
            rows = await store.read(lambda session: session.rows("SELECT id, word FROM note"))
            assert rows == [("a", None)]


async def test_tables_of_a_newer_version_are_refused(store_name):
    async with open_store(store_name, NOTES) as store:
        shown = store.shown
    older = Migrations("notes", NOTES.steps[:1])
    with pytest.raises(
        InputError, match=r"notes have version 2, and this program knows 1: use the newer"
    ) as caught:
        async with open_store(store_name, older):
            pass
    assert str(caught.value).startswith(shown)
    async with open_store(store_name, NOTES) as store:  # it was left alone
        assert await steps_of(store) == ["second step"]


async def test_a_step_that_fails_leaves_nothing_behind(store_name):
    bad = Migrations("notes", (*NOTES.steps, "CREATE TABLE half (id TEXT); INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(Exception, match="nowhere"):
        async with open_store(store_name, bad):
            pass
    good = Migrations("notes", (*NOTES.steps, "CREATE TABLE half (id TEXT)"))
    async with open_store(store_name, good) as store:
        assert await steps_of(store) == ["second step"]


async def test_applications_have_their_tables_beside_each_other(store_name):
    other = Migrations("other", ("CREATE TABLE other (id TEXT)",))
    async with open_store(store_name, NOTES, other) as store:
        await store.write(noted("a"))
    async with open_store(store_name, other) as store:
        assert await store.read(lambda session: session.rows("SELECT * FROM other")) == []
        assert await store.read(names) == {"a"}


async def test_stores_that_open_an_empty_database_at_once_all_succeed(store_name):
    stores = [open_store(store_name, NOTES) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        opened = await asyncio.gather(*(store.__aenter__() for store in stores), return_exceptions=True)
        for store in opened:
            if not isinstance(store, BaseException):
                stack.push_async_exit(store)
        assert opened == stores
        assert await steps_of(stores[0]) == ["second step"]
        await asyncio.gather(*(store.write(noted(f"{n}")) for n, store in enumerate(stores)))
        assert await stores[-1].read(names) == {"0", "1", "2", "3", "4"}


async def test_a_sqlite_file_that_another_process_is_just_making_is_waited_for(tmp_path):
    path = tmp_path / "store.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # as one does that migrates, or goes over to WAL
        asyncio.get_running_loop().call_later(0.1, other.execute, "ROLLBACK")
        async with open_store(str(path), NOTES) as store:
            assert await steps_of(store) == ["second step"]


async def test_stores_of_two_processes_see_each_others_commits(store_name):
    async with open_store(store_name, NOTES) as one, open_store(store_name, NOTES) as other:
        for number in range(5):
            await one.write(noted(f"a{number}"))
            await other.write(noted(f"b{number}"))
            assert await other.write(lambda session, n=number: f"a{n}" in names(session))
            assert f"b{number}" in await one.read(names)


# ── closing ─────────────────────────────────────────────────────────────────────


async def test_what_is_queued_when_the_store_is_closed_is_done(store_name):
    store = open_store(store_name, NOTES)
    await store.__aenter__()
    async with busy(store):
        writes = [asyncio.create_task(store.write(noted(f"{number}"))) for number in range(20)]
        await until_true(lambda: store.queued == 20)
        closing = asyncio.create_task(store.close())
        await until_true(lambda: store.queued == 21)
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.write(noted("late"))
    await closing
    assert await asyncio.gather(*writes) == [str(number) for number in range(20)]
    async with open_store(store_name, NOTES) as again:
        assert await again.read(names) == {str(number) for number in range(20)}


async def test_a_closed_store_is_unavailable_and_closing_again_is_nothing(store_name):
    async with open_store(store_name, NOTES) as store:
        await store.write(noted("a"))
        await store.read(names)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(noted("b"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(names)


async def test_a_store_that_was_never_opened_is_unavailable(store_name):
    store = open_store(store_name, NOTES)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(noted("a"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(names)
    await store.close()


async def test_a_read_that_comes_while_the_store_closes_is_unavailable_or_done(store_name):
    store = open_store(store_name, NOTES)
    await store.__aenter__()
    async with busy(store):
        closing = asyncio.create_task(store.close())
        await until_true(lambda: store.queued == 1)
        results = await asyncio.gather(*(store.read(names) for _ in range(4)), return_exceptions=True)
    await closing
    assert all(result == set() or isinstance(result, StoreUnavailable) for result in results), results


# ── names that are no store ─────────────────────────────────────────────────────


async def refused(name):
    with pytest.raises(InputError) as caught:
        async with open_store(name, NOTES):
            pass
    return str(caught.value)


async def test_a_folder_is_no_store(tmp_path):
    assert "is a folder; give a file" in await refused(str(tmp_path))


async def test_a_store_in_a_missing_folder_is_refused(tmp_path):
    assert "does not exist: create it first" in await refused(str(tmp_path / "absent" / "store.db"))


@pytest.mark.parametrize(
    "content", [b"something else\n" * 1000, b"\0" * 5000, b"SQLite format 3\0" + b"x" * 5000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert await refused(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["", "sqlite:///", "mysql://user:hidden@host/db", "http://user:hidden@a.test"]
)
async def test_names_of_other_kinds_are_refused_without_their_passwords(name):
    with pytest.raises(InputError, match=r"a store is an SQLite file or a postgresql:// URL") as caught:
        open_store(name, NOTES)
    assert "hidden" not in str(caught.value)


async def test_a_sqlite_file_can_have_any_name(tmp_path):
    path = tmp_path / "a b?c#d%41 ü.db"
    async with open_store(f"sqlite:///{path}", NOTES) as store:
        await store.write(noted("a"))
        assert await store.read(names) == {"a"}
    assert path.exists()
    async with open_store(str(path), NOTES) as store:
        assert await store.read(names) == {"a"}


# ── PostgreSQL that comes and goes ──────────────────────────────────────────────


@pytest.fixture(scope="module")
def own_server():
    """A server that these tests may kill."""
    needs("psycopg")
    if binary("initdb") is None:
        absent("PostgreSQL (initdb)")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def server(own_server):
    yield own_server
    own_server.kill()
    own_server.start()


async def written_when_back(store, work):
    """Write; a server that has just been started may still refuse."""
    for _ in range(100):
        try:
            return await store.write(work)
        except StoreUnavailable:
            continue
    raise AssertionError("it did not come back")


async def test_writes_are_unavailable_while_the_server_is_gone_and_work_again_later(server):
    async with open_store(server.new_database(), NOTES) as store:
        await store.write(noted("a"))
        server.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.write(noted("b"))
            assert str(caught.value).startswith(store.shown)
            assert "\n" not in str(caught.value)
        results = await asyncio.gather(*(store.write(noted(name)) for name in "cd"), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        server.start()
        assert await written_when_back(store, noted("e")) == "e"
        assert await store.read(names) == {"a", "e"}


async def test_a_group_whose_server_goes_before_the_commit_is_unavailable_as_a_whole(server):
    async with open_store(server.new_database(), NOTES) as store:
        written, go = threading.Event(), threading.Event()

        def work(session):
            session.insert(NOTE, [("a", 0, None)])
            written.set()
            assert go.wait(60)

        async with busy(store):
            writes = [asyncio.create_task(store.write(one)) for one in (noted("b"), work, noted("c"))]
            await until_true(lambda: store.queued == 3)
        await until_true(written.is_set)
        await asyncio.to_thread(server.kill)
        go.set()
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 3
        server.start()
        assert await written_when_back(store, noted("d")) == "d"
        assert await store.read(names) == {"d"}


async def test_reads_are_unavailable_while_the_server_is_gone_and_work_again_later(server):
    async with open_store(server.new_database(), NOTES) as store:
        await store.write(noted("a"))
        assert await store.read(names) == {"a"}
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.read(names)
        server.start()
        await written_when_back(store, noted("b"))
        assert await store.read(names) == {"a", "b"}


async def test_the_first_read_of_all_is_unavailable_too_while_the_server_is_gone(server):
    async with open_store(server.new_database(), NOTES) as store:
        await store.write(noted("a"))
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.read(names)
        server.start()
        await written_when_back(store, noted("b"))
        assert await store.read(names) == {"a", "b"}


async def test_a_store_whose_server_is_gone_can_be_closed(server):
    async with open_store(server.new_database(), NOTES) as store:
        await store.write(noted("a"))
        server.kill()


async def test_a_database_that_is_not_there_is_refused_without_its_password(server):
    start = server.url.rpartition("/")[0].replace("tester@", "tester:hidden@")
    assert "hidden" not in await refused(f"{start}/absent")
    server.kill()
    assert "hidden" not in await refused(f"{start}/postgres")
    server.start()


# ── SQLite whose disk is full ───────────────────────────────────────────────────

FILL = """
import asyncio, sys

from yelpaze.store.migrations import Migrations
from yelpaze.store.opening import open_store
from yelpaze.store.session import StoreUnavailable

NOTES = Migrations("notes", ("CREATE TABLE note (id TEXT PRIMARY KEY, data BYTEA)",))


async def main():
    async with open_store(sys.argv[1], NOTES) as store:
        done = refused = 0
        for number in range(1000):

            def work(session):
                for half in "ab":
                    session.run("INSERT INTO note (id, data) VALUES (?, ?)", f"{number}{half}", bytes(10_000))

            try:
                await store.write(work)
            except StoreUnavailable as error:
                assert str(error).startswith(store.shown), error
                refused += 1
                if refused == 3:
                    break
            else:
                assert not refused
                done += 1
        found = await store.read(lambda session: session.rows("SELECT count(*) FROM note"))
        print(done, refused, found[0][0])


asyncio.run(main())
"""


async def test_on_a_full_disk_writes_are_unavailable_and_nothing_is_half_written(tmp_path):
    # The shell sets the limit, as in tests/e2e/test_run.py; Python ignores SIGXFSZ.
    path = tmp_path / "store.db"
    command = ["sh", "-c", 'ulimit -f 400; exec "$@"', "sh", sys.executable, "-c", FILL, str(path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    done, refused, seen = map(int, process.stdout.split())
    assert done > 0
    assert refused == 3
    assert seen == 2 * done
    async with open_store(str(path), Migrations("notes", ("",))) as store:
        assert len(await store.read(names)) == 2 * done
        await store.write(lambda session: session.run("INSERT INTO note (id) VALUES ('later')"))
        assert len(await store.read(names)) == 2 * done + 1
