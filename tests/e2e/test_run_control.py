"""How a run is steered: retries and deadlines of rows, when to give up, order, samples, previews, memory."""

import json
import signal
import threading

import pytest

CALL = """
flow = Flow("calls")

@flow.request
def call(row: dict):
    return get(f"{URL}/call/{row['n']}")
"""
TWO = """
flow = Flow("two")

@flow.request
def base(row: dict):
    return get(f"{URL}/base/{row['n']}")

@flow.request
def last(base: Response, row: dict):
    return get(f"{URL}/last/{row['n']}")
"""
RUN = ("run", "flow.py", "in.jsonl", "--workers", "0")


def answer_of(call):
    return {"n": call.number}


def test_row_retries_run_the_failed_branch_again_where_that_may_help(place, service):
    place.flow(TWO)
    place.rows(2)
    seen = set()

    def answer(call):
        if call.path == "/last/2":
            return 422, {}
        if call.path == "/last/1" and call.path not in seen:
            seen.add(call.path)
            return 503, {}
        return {"n": call.number}

    service.answer = answer
    place(*RUN, "--retries", 0, "--row-retries", 1, code=1)
    assert place.numbers() == [1]
    assert place.letters[2]["error"]["status"] == 422
    assert service.paths() == {"/base/1": 1, "/base/2": 1, "/last/1": 2, "/last/2": 1}


def test_a_row_deadline_is_for_all_steps_together(place, service):
    place.flow(TWO)
    place.rows(2)
    service.hold(lambda call: call.path == "/last/1")
    place(*RUN, "--row-deadline", 2, "--retries", 5, code=1)
    assert place.numbers() == [2]
    letter = place.letters[1]
    assert (letter["step"], letter["error"]["kind"]) == ("last", "timeout.deadline")


def test_max_failures_as_a_number(place, service):
    place.flow(CALL)
    place.rows(10)
    service.answer = lambda call: (422, {})
    done = place(*RUN, "--max-failures", 2, "--concurrency", 1, code=3)
    assert "3 of 3 rows failed, more than --max-failures 2 allows" in done.stderr
    assert "The same command goes on" in done.stderr
    assert "in.results.failures.jsonl" in done.stderr
    assert sorted(place.letters) == [1, 2, 3]
    assert '"state":"stopped"' in place.ask("runs", "--json", code=0).stdout
    service.answer = lambda call: {}
    place(*RUN, "--max-failures", 2, code=1)
    assert place.numbers() == [4, 5, 6, 7, 8, 9, 10]
    assert {service.paths()[f"/call/{n}"] for n in (1, 2, 3)} == {1}
    place("retry", "last", "--workers", 0, code=0)
    assert place.numbers() == list(range(1, 11))


def test_max_failures_as_a_share(place, service):
    place.flow(CALL)
    place.rows(300)
    service.answer = lambda call: (422, {}) if call.number % 4 == 0 or call.number < 10 else {}
    # At first all fail, but a share of so few rows says nothing.
    done = place(*RUN, "--max-failures", "20%", "--concurrency", 4, code=3)
    assert "more than --max-failures 20% allows" in done.stderr
    assert 100 <= len(place.numbers()) + len(place.letters) < 110
    place(*RUN, "--max-failures", "30%", code=1)
    assert sorted([*place.numbers(), *place.letters]) == list(range(1, 301))
    assert '"state":"finished"' in place.ask("runs", "--json", code=0).stdout


@pytest.mark.parametrize("stopped", [False, True])
def test_ordered(place, service, stopped):
    place.flow(CALL)
    place.rows(8)
    service.answer = lambda call: (422, {}) if call.number == 3 else {}
    service.hold(lambda call: call.number in (1, 4))
    process = place.start(*RUN, "--ordered", "--grace", 0)
    service.wait(lambda: len(service.calls) == 8 and service.under_way == 2)
    if stopped:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert place.numbers() == []
        service.release()
        place(*RUN, "--ordered", code=1)
    else:
        service.release()
        process.communicate(timeout=60)
        assert process.returncode == 1
        assert len(service.calls) == 8
    assert [line["row"] for line in place.lines()] == [1, 2, 4, 5, 6, 7, 8]
    assert list(place.letters) == [3]


def test_a_sample_is_the_same_each_time_and_can_be_gone_on_with(place, service):
    place.flow(CALL)
    place.rows(200)
    place(*RUN, "--sample", 5, code=0)
    sample = place.numbers()
    assert len(sample) == 5
    assert sample != [1, 2, 3, 4, 5]
    service.forget()
    place(*RUN, "--sample", 5, "--limit", 2, "-o", "again.jsonl", code=0)
    assert len(service.calls) == 2
    place(*RUN, "--sample", 5, "-o", "again.jsonl", code=0)
    assert place.numbers("again.jsonl") == sample
    assert sorted(call.number for call in service.calls) == sample
    place(*RUN, "--sample", 500, "-o", "all.jsonl", code=0)
    assert place.numbers("all.jsonl") == list(range(1, 201))


def test_a_dry_run_prints_requests_and_sends_none(place, service):
    place.flow("""
        flow = Flow("dry")

        @flow.compute
        def doubled(row: dict):
            return row["n"] * 2

        @flow.request
        def one(doubled: int, row: dict):
            return post(f"{URL}/one/{doubled}", json=row, headers={"X-Shop": "7", "Cookie": "c"})

        @flow.request
        def two(row: dict):
            return [get(f"{URL}/two/{n}") for n in (1, 2)] if row["n"] == 1 else None

        @flow.request
        def three(one: dict, two: list | None):
            return get(f"{URL}/three/{one['n']}")
    """)
    place.rows([{"n": 1}, {"n": "b"}, {}, {"n": 4}])
    text = place.ask(*RUN, "--dry-run", code=0).stdout
    url = service.url
    assert text.splitlines() == [
        "row 1",
        "  doubled: computed",
        f"  one: POST {url}/one/2",
        "      X-Shop: 7",
        "      Cookie: [redacted]",
        "      Content-Type: application/json",
        '      {"n":1}',
        f"  two: GET {url}/two/1",
        f"  two: GET {url}/two/2",
        "  three: needs the answer of one, two",
        "row 2",
        "  doubled: computed",
        f"  one: POST {url}/one/bb",
        "      X-Shop: 7",
        "      Cookie: [redacted]",
        "      Content-Type: application/json",
        '      {"n":"b"}',
        "  two: skipped",
        "  three: needs the answer of one, two",
        "row 3",
        "  doubled: fails: KeyError: 'n'",
    ]
    assert place.ask(*RUN, "--dry-run", "--limit", 1, code=0).stdout.count("row ") == 1
    place.rows([])
    assert "the input has no rows" in place.ask(*RUN, "--dry-run", code=0).stdout
    assert not service.calls
    assert sorted(path.name for path in place.path.iterdir()) == ["flow.py", "in.jsonl"]


def where_it_is(process, text):
    """Ask by SIGUSR1 until the line that it prints has that text."""
    while True:
        process.send_signal(signal.SIGUSR1)
        line = process.stderr.readline()
        assert line, "it has ended"
        if text in line:
            return line


def test_sigusr1_tells_where_it_is(place, service):
    place.flow(CALL)
    place.rows(5)
    service.hold(lambda call: call.number > 2)
    process = place.start(*RUN, "-q")
    service.wait(lambda: len(service.calls) == 5 and service.under_way == 3)
    line = where_it_is(process, "2 rows")
    assert "requests/s" in line
    service.release()
    assert process.wait(60) == 0
    assert place.numbers() == [1, 2, 3, 4, 5]


def test_sigusr1_tells_where_a_retry_is(place, service):
    place.flow(CALL)
    place.rows(5)
    service.answer = lambda call: (500, {})
    place(*RUN, "--retries", 0, code=1)
    service.forget()
    service.answer = lambda call: {}
    service.hold(lambda call: call.number > 2)
    process = place.start("retry", "last", "--workers", "0", "-q")
    service.wait(lambda: len(service.calls) == 5 and service.under_way == 3)
    where_it_is(process, "2 rows")
    service.release()
    assert process.wait(60) == 0
    assert place.numbers() == [1, 2, 3, 4, 5]


def test_memory_bounds_what_rows_under_way_hold(place, service):
    place.flow(TWO)
    place.rows(24)
    most, lock = 0, threading.Condition()
    holding: set[int] = set()

    def answer(call):
        nonlocal most
        if call.step == "base":
            return b"x" * (1 << 20)
        with lock:
            holding.add(call.number)
            most = max(most, len(holding))
            lock.notify_all()
            lock.wait_for(lambda: most > 8, 0.1)  # so that others come, if they may
            holding.discard(call.number)
        return {}

    service.answer = answer
    place(*RUN, "--memory", "4M", "--concurrency", 24, code=0)
    assert place.numbers() == list(range(1, 25))
    assert most <= 8


BROKEN = """
import os
flow = Flow("broken")

if os.path.exists("broken"):
    os._exit(5)

@flow.request
def call(row: dict):
    return get(f"{URL}/call/{row['n']}")

@flow.compute OPTIONAL
def crash(call: dict, row: dict):
    if row["n"] == 20 and not os.path.exists("repaired"):
        open("broken", "w").close()
        os._exit(6)
    return row["n"]
"""
AFTER = """
@flow.request
def after(crash: int | Failure, row: dict):
    return get(f"{URL}/after/{row['n']}", params={"got": type(crash).__name__})
"""


@pytest.mark.parametrize("optional", [False, True])
def test_workers_that_cannot_start_again_stop_the_run_and_lose_no_row(place, service, optional):
    place.flow(
        BROKEN.replace("OPTIONAL", "(optional=True)" if optional else "") + (AFTER if optional else "")
    )
    place.rows(60)
    run = ("run", "flow.py", "in.jsonl", "--workers", 1, "--batch", 4, "--concurrency", 16)
    done = place(*run, code=3)
    assert "the worker processes cannot start" in done.stderr
    assert place.letters == {}
    (place.path / "broken").rename(place.path / "repaired")
    place(*run, code=0)
    assert place.numbers() == list(range(1, 61))
    assert not [call for call in service.calls if call.query.get("got") == "Failure"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--memory", "0"], "is no size such as 64M or 1G"),
        (["--memory", "lots"], "'lots' is no size"),
        (["--max-failures", "many"], "neither a number of rows nor a share such as 5%"),
        (["--max-failures", "-1"], "'-1'"),
        (["--max-failures", "101%"], "'101%'"),
        (["--max-failures", "nan%"], "'nan%'"),
        (["--row-deadline", "0"], "above 0"),
        (["--row-retries", "-1"], "-1"),
        (["--grace", "-1"], "-1"),
        (["--grace", "nan"], "nan"),
        (["--sample", "0"], "0"),
        (["--limit", "-1"], "-1"),
        (["--accept-changed", "everything"], "'everything' is not one of 'flow', 'input', 'output'"),
        (["-o", "ftp://a.test/out.jsonl"], "ftp://a.test/out.jsonl: results go to files or to sqlite://"),
        (["-o", "ftp://me:hunter2@a.test/out"], "ftp://a.test/out: results go to files"),
        (["-o", "in.jsonl/out.jsonl"], "in.jsonl/out.jsonl"),
        (["-o", "out.jsonl.gz"], "leave .gz out"),
        (["-o", "-", "--json"], "both want stdout"),
    ],
)
def test_flags_that_make_no_sense(place, arguments, says):
    place.flow(CALL)
    place.rows(1)
    done = place.ask(*RUN, *arguments, code=2)
    assert says in done.stderr
    assert "hunter2" not in done.stderr
    assert not place.service.calls
    assert sorted(path.name for path in place.path.iterdir()) == ["flow.py", "in.jsonl"]


@pytest.mark.parametrize("url", ["mysql://me:hunter2@a.test/db?table=t", "http://a.test/rows.jsonl"])
def test_an_input_that_no_source_reads(place, url):
    place.flow(CALL)
    done = place.ask("run", "flow.py", url, code=2)
    assert "rows come from files or from sqlite://, postgresql://" in done.stderr
    assert "hunter2" not in done.stderr


def test_the_summary_tells_of_this_time_and_of_the_whole_run(place, service):
    place.flow(CALL)
    place.rows(7)
    first = json.loads(place(*RUN, "--limit", 3, "--json", code=0).stdout)
    second = json.loads(place(*RUN, "--json", code=0).stdout)
    assert first["run"] == second["run"]
    assert (first["rows"], first["ended"], first["requests"]) == (3, 3, 3)
    assert (second["rows"], second["ended"], second["requests"]) == (7, 4, 4)
    assert second["failures_file"] is None
