"""Dead letters, and `yelpaze retry`: only the failed branches, into the same output, exactly once."""

import csv
import json
import os
import re
import signal
import sqlite3
import uuid
from datetime import datetime

import pytest

from support.waiting import until

# `last` waits for `other` and `side`, so what they got is known when it fails.
SHOP = """
flow = Flow("shop")

@flow.request
def base(row: dict):
    return get(f"{URL}/base/{row['n']}")

@flow.request
def other(row: dict):
    return get(f"{URL}/other/{row['n']}")

@flow.request(idempotent=True)
def side(base: dict):
    return post(f"{URL}/side/{base['n']}", json=base)

@flow.request(idempotent=True)
def last(side: dict, other: dict):
    return post(f"{URL}/last/{side['n']}", json=[side["n"], other["n"]])

@flow.compute
def total(base: dict, last: dict) -> dict:
    return {"n": base["n"], "sum": base["value"] + last["value"]}
"""
RUN = ("run", "flow.py", "in.jsonl", "--workers", "0")
RETRY = ("retry", "last", "--workers", "0")


def answer_of(call):
    return {"n": call.number, "value": {"base": 1, "last": 10}.get(call.step, 0)}


def failing(*places, status=422):
    """An answer: those steps fail for those rows, as `last/3`."""
    return lambda call: (status, {}) if f"{call.step}/{call.number}" in places else answer_of(call)


# ── what a dead letter says ─────────────────────────────────────────────────────


def test_a_dead_letter_tells_all_of_a_failed_row(place, service):
    place.flow(SHOP)
    (place.path / "in.jsonl").write_text('{"n": 1}\n{"n":2, "big": 12345678901234567890, "x": 1.0}\n')
    service.answer = failing("last/2", status=503)
    began = datetime.now().astimezone()
    place(*RUN, "--retries", 2, code=1)
    (letter,) = place.lines("in.results.failures.jsonl")
    assert (letter["row"], letter["step"]) == (2, "last")
    assert (
        '"input":{"n":2, "big": 12345678901234567890, "x": 1.0}'
        in (place.path / "in.results.failures.jsonl").read_text()
    )
    assert letter["error"] == {
        "kind": "status",
        "status": 503,
        "message": f"503 Service Unavailable (POST {service.url}/last/2)",
    }
    assert len(letter["attempts"]) == 3
    times = []
    for attempt in letter["attempts"]:
        assert (attempt["status"], attempt["error"]) == (503, "status")
        assert 0 < attempt["seconds"] < 10
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", attempt["at"])
        times.append(datetime.fromisoformat(attempt["at"]))
    assert times == sorted(times)
    times.append(datetime.fromisoformat(letter["at"]))
    assert all(-1 < (time - began).total_seconds() < 30 for time in times)
    sent = {call.headers["traceparent"].split("-")[1] for call in service.calls if call.number == 2}
    assert sent == {letter["trace_id"]}
    assert set(letter["answers"]) == {"base", "other", "side"}
    assert json.loads(letter["answers"]["base"]["body"]) == {"n": 2, "value": 1}
    assert letter["answers"]["base"]["status"] == 200


def test_attempts_that_got_no_answer_have_a_reason(place, service):
    place.flow(SHOP)
    place.rows(1)
    service.hold()
    place(*RUN, "--retries", 1, "--timeout", 0.2, "--no-breaker", code=1)
    letter = place.letters[1]
    assert letter["error"]["kind"].startswith("timeout.")
    assert [attempt["error"] for attempt in letter["attempts"]] == [letter["error"]["kind"]] * 2
    assert all(attempt["message"] and attempt["status"] is None for attempt in letter["attempts"])


# ── only the failed branches, into the same output ──────────────────────────────


def test_retry_calls_the_failed_branches_only_and_merges(place, service):
    place.flow(SHOP)
    place.rows(5)
    service.answer = failing("base/1", "side/2", "last/3", "last/4")
    done = place(*RUN, code=1)
    command = re.search(r"yelpaze (retry shop-\S+)", done.stderr)[1].split()
    assert place.numbers() == [5]
    assert sorted(place.letters) == [1, 2, 3, 4]

    service.forget()
    service.answer = failing("last/4")
    done = place(*command, "--workers", 0, "--json", code=1)
    called = service.paths()
    for row in (1, 2):  # `other` may have been under way, or answered, when the step beside it failed
        assert called.pop(f"/other/{row}", 1) == 1
    assert called == {
        **{f"/{step}/1": 1 for step in ("base", "side", "last")},
        **{f"/{step}/2": 1 for step in ("side", "last")},
        "/last/3": 1,
        "/last/4": 1,
    }
    summary = json.loads(done.stdout)
    assert {name: summary[name] for name in ("rows", "succeeded", "failed", "ended")} == {
        "rows": 5, "succeeded": 4, "failed": 1, "ended": 4,
    }  # fmt: skip
    assert place.numbers() == [1, 2, 3, 5]
    assert all(line["result"] == {"n": line["row"], "sum": 11} for line in place.lines())
    assert list(place.letters) == [4]

    service.forget()
    service.answer = answer_of
    place(*command, code=0)
    assert service.paths() == {"/last/4": 1}
    assert place.numbers() == [1, 2, 3, 4, 5]
    assert not (place.path / "in.results.failures.jsonl").exists()
    assert "is finished: 5 rows, 0 of them failed" in place(*RUN, code=0).stderr
    # Nothing is left to do.
    service.forget()
    place(*command, code=0)
    assert place.numbers() == [1, 2, 3, 4, 5]
    assert not service.calls


def test_a_row_that_fails_again_has_its_new_dead_letter_only(place, service):
    place.flow(SHOP)
    place.rows(2)
    service.answer = failing("base/1", "base/2")
    place(*RUN, code=1)
    first = place.letters
    service.answer = failing("last/1", "base/2", status=404)
    place(*RETRY, code=1)
    second = place.letters
    assert [(letter["step"], letter["error"]["status"]) for letter in second.values()] == [
        ("last", 404), ("base", 404),
    ] or [letter["step"] for _, letter in sorted(second.items())] == ["last", "base"]  # fmt: skip
    assert all(second[row]["at"] > first[row]["at"] for row in (1, 2))
    assert set(second[1]["answers"]) == {"base", "other", "side"}
    service.forget()
    service.answer = answer_of
    place(*RETRY, code=0)
    assert service.steps()["base"] == 1
    assert place.numbers() == [1, 2]


def test_all_steps(place, service):
    place.flow(SHOP)
    place.rows(1)
    service.answer = failing("last/1")
    place(*RUN, code=1)
    service.forget()
    service.answer = answer_of
    place(*RETRY, "--all-steps", code=0)
    assert service.steps() == {"base": 1, "other": 1, "side": 1, "last": 1}


def test_filters(place, service):
    place.flow(SHOP)
    place.rows(6)

    def answer(call):
        if call.step == "last" and call.number in (3, 4):
            return {"n": call.number}  # `total` raises KeyError
        if call.step == "last" and call.number == 5:
            return [1]  # not what `total` takes
        return (
            failing("base/1", status=404)(call) if call.number == 1 else failing("side/2", status=503)(call)
        )

    service.answer = answer
    service.hold(lambda call: call.step == "base" and call.number == 6)
    place(*RUN, "--retries", 0, "--timeout", 3, code=1)
    service.release()
    kinds = {row: (letter["step"], letter["error"]["kind"]) for row, letter in place.letters.items()}
    timeout = kinds.pop(6)
    assert timeout[1].startswith("timeout.")
    assert kinds == {
        1: ("base", "status"),
        2: ("side", "status"),
        3: ("total", "exception"),
        4: ("total", "exception"),
        5: ("total", "validation"),
    }
    service.answer = answer_of
    left = [1, 2, 3, 4, 5, 6]
    for flags, rows in (
        (["--status", "500"], []),
        (["--status", "5xx"], [2]),
        (["--kind", "timeout"], [6]),
        (["--step", "last", "--kind", "status"], []),
        (["--step", "last", "--step", "base", "--status", "404", "--status", "410"], [1]),
        (["--kind", "validation", "--kind", "exception", "--all-steps"], [3, 4, 5]),
    ):
        left = [row for row in left if row not in rows]
        place(*RETRY, *flags, code=1 if left else 0)
        assert sorted(place.letters) == left, flags
    assert place.numbers() == [1, 2, 3, 4, 5, 6]


def test_an_answer_that_did_not_fit_is_asked_for_again(place, service):
    """It is that answer that failed: kept, it would fail for ever."""
    place.flow(SHOP)
    place.rows(1)
    service.answer = lambda call: [1] if call.step == "side" else answer_of(call)
    place(*RUN, code=1)
    assert place.letters[1]["error"]["kind"] == "validation"
    service.forget()
    service.answer = answer_of
    place(*RETRY, code=0)
    assert service.steps() == {"side": 1, "last": 1}


def test_retry_of_a_run_that_is_not_finished_and_then_the_rest(place, service):
    place.flow(SHOP)
    place.rows(6)
    service.answer = failing("last/2", "last/5")
    place(*RUN, "--limit", 3, code=1)
    service.answer = failing("last/5")
    place(*RETRY, code=0)
    done = place(*RUN, "--json", code=1)
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["succeeded"], summary["failed"]) == (6, 5, 1)
    assert place.numbers() == [1, 2, 3, 4, 6]
    assert list(place.letters) == [5]
    assert service.paths()["/last/2"] == 2
    assert service.paths()["/base/2"] == 1


def test_a_repaired_flow_is_what_retry_runs(place, service):
    flow = place.flow(SHOP)
    place.rows(2)
    flow.write_text(flow.read_text().replace('last["value"]', 'last["valeu"]'))
    place(*RUN, code=1)
    service.forget()
    place.flow(SHOP)
    place(*RETRY, code=0)
    assert place.numbers() == [1, 2]
    assert not service.calls


def test_a_flow_that_has_moved_is_named(place, service):
    flow = place.flow(SHOP)
    place.rows(1)
    service.answer = failing("last/1")
    place(*RUN, code=1)
    flow.rename(place.path / "moved.py")
    assert "flow.py: there is no such file" in place(*RETRY, code=2).stderr
    service.answer = answer_of
    place(*RETRY, "--flow", "moved.py", code=0)
    assert place.numbers() == [1]


def test_dead_letters_are_enough_when_the_input_is_gone(place, service):
    place.flow(SHOP)
    rows = place.rows(2)
    service.answer = failing("last/1")
    place(*RUN, code=1)
    rows.unlink()
    service.answer = answer_of
    place(*RETRY, code=0)
    assert place.numbers() == [1, 2]


def test_rows_that_are_no_json_stay_dead_letters(place, service):
    place.flow(SHOP)
    (place.path / "in.jsonl").write_bytes(b'{"n": 1}\nnot json\n{"n": "\xff"}\n')
    place(*RUN, code=1)
    first = place.letters
    assert {row: letter["error"]["kind"] for row, letter in first.items()} == {2: "input", 3: "input"}
    place(*RETRY, code=1)
    assert sorted(place.letters) == [2, 3]
    assert place.letters[2]["input"] == "not json"
    assert place.numbers() == [1]


def test_retry_stops_at_max_failures_and_goes_on(place, service):
    place.flow(SHOP)
    place.rows(6)
    service.answer = failing(*(f"base/{n}" for n in range(1, 7)))
    place(*RUN, code=1)
    done = place(*RETRY, "--max-failures", 1, "--concurrency", 1, code=3)
    assert "more than --max-failures 1 allows" in done.stderr
    assert sorted(place.letters) == [1, 2, 3, 4, 5, 6]
    service.answer = answer_of
    place(*RETRY, code=0)
    assert place.numbers() == [1, 2, 3, 4, 5, 6]


# ── stopped in the middle ───────────────────────────────────────────────────────


def resolved(place):
    """The rows whose old letters are no more, by all commits."""
    whole = (place.path / "in.results.jsonl.journal").read_text().rpartition("\n")[0]
    return {row for line in whole.splitlines() if line for row in json.loads(line)["resolved"]}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_retry_that_was_stopped_and_tried_again_is_exactly_once(place, service, how):
    place.flow(SHOP)
    place.rows(10)
    service.answer = failing(*(f"last/{n}" for n in range(1, 11) if n != 4))
    place(*RUN, code=1)
    service.forget()
    service.answer = failing("last/2")
    service.hold(lambda call: call.number > 5)
    process = place.start(*RETRY, "--grace", 0)
    until(lambda: len(place.lines()) == 4)
    # The new letter of row 2 is written before the commit; what counts is the journal.
    until(lambda: resolved(place) == {1, 2, 3, 5})
    process.send_signal(how)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), stderr
    service.release()
    calls = service.paths()
    service.forget()
    service.answer = answer_of
    place(*RETRY, code=0)
    assert place.numbers() == list(range(1, 11))
    assert not (place.path / "in.results.failures.jsonl").exists()
    assert {calls[f"/last/{n}"] for n in (1, 2, 3, 5)} == {1}
    assert service.paths() == {f"/last/{n}": 1 for n in (2, 6, 7, 8, 9, 10)}
    assert "10 rows, 0 of them failed" in place(*RUN, code=0).stderr


# ── other outputs ───────────────────────────────────────────────────────────────


def read_csv(path):
    with path.open(newline="") as file:
        return [(int(row["row"]), int(row["sum"])) for row in csv.DictReader(file)]


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    return [(row["row"], row["sum"]) for row in parquet.read_table(path).to_pylist()]


def read_sqlite(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT row, sum FROM results").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("output", "read"), [("out.csv", read_csv), ("out.parquet", read_parquet), ("out.db", read_sqlite)]
)
def test_retry_into_other_outputs(place, service, output, read):
    place.flow(SHOP)
    (place.path / "in.csv").write_text("n,x\n1,a\n2,b\n3,c\n")
    service.answer = failing("last/1", "base/3")
    place("run", "flow.py", "in.csv", "-o", output, "--workers", 0, code=1)
    assert read(place.path / output) == [(3, 11)]  # a row of CSV is numbered by its line
    service.forget()
    service.answer = failing("base/3")
    place("retry", output, "--workers", 0, code=1)
    assert service.paths()["/last/1"] == 1
    assert service.steps()["side"] == 0
    service.answer = answer_of
    place("retry", output, "--workers", 0, code=0)
    assert sorted(read(place.path / output)) == [(2, 11), (3, 11), (4, 11)]


def test_retry_from_another_folder_finds_its_places(place, service):
    place.flow(SHOP)
    connection = sqlite3.connect(place.path / "rows.db")
    connection.executescript("CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);")
    connection.close()
    service.answer = failing("last/1")
    place("run", "flow.py", "sqlite:///rows.db?table=t&key=n", "-o", "sqlite:///out.db?table=results",
          "--workers", 0, code=1)  # fmt: skip
    service.answer = answer_of
    (place.path / "elsewhere").mkdir()
    run = json.loads(place("runs", "--json", code=0).stdout)["run"]
    place("retry", run, "--workers", 0, cwd=place.path / "elsewhere", code=0)
    assert sorted(read_sqlite(place.path / "out.db")) == [(1, 11), (2, 11)]
    assert not list((place.path / "elsewhere").iterdir())


NUL = """
flow = Flow("nul")

@flow.request
def base(row: dict):
    return get(f"{URL}/base/{row['n']}")

@flow.request
def last(base: dict, row: dict):
    return get(f"{URL}/last/{row['n']}")

@flow.compute
def total(base: dict, last: dict, row: dict) -> dict:
    return {"sum": [ord(letter) for letter in base["text"] + row["text"]]}
"""


@pytest.mark.parametrize("output", ["out.jsonl", "out.db"])
def test_nul_characters_come_back_as_they_were(place, service, output):
    place.flow(NUL)
    place.rows([{"n": 1, "text": "c\0d"}])
    service.answer = lambda call: (422, {}) if call.step == "last" else {"text": "a\0b"}
    place("run", "flow.py", "in.jsonl", "-o", output, "--workers", 0, code=1)
    service.forget()
    service.answer = lambda call: {"text": "a\0b"}
    place(*RETRY, "-o", output, code=0)
    assert service.steps() == {"last": 1}
    if output == "out.jsonl":
        sums = place.lines("out.jsonl")[0]["result"]["sum"]
    else:
        sums = json.loads(read_sqlite(place.path / output)[0][1])
    assert sums == [97, 0, 98, 99, 0, 100]


# ── kinds of steps ──────────────────────────────────────────────────────────────

KINDS = """
flow = Flow("kinds")

@flow.request(accept={200, 404})
def found(row: dict):
    return get(f"{URL}/found/{row['n']}")

@flow.request
def nothing(row: dict):
    return None

@flow.request
def unneeded(nothing: dict):
    return get(f"{URL}/unneeded/{row['n']}")

@flow.request
def many(row: dict):
    return [get(f"{URL}/many/{n}") for n in (3, 1, 2)]

@flow.request
def named(row: dict):
    return {name: get(f"{URL}/named/{n}") for name, n in (("b", 1), ("a", 2))}

@flow.request
def none_of_many(row: dict):
    return []

@flow.request
def binary(row: dict):
    return get(f"{URL}/binary/{row['n']}")

@flow.request(optional=True)
def maybe(row: dict):
    return get(f"{URL}/maybe/{row['n']}")

@flow.request(optional=True)
def some(row: dict):
    return [get(f"{URL}/some/{n}") for n in (1, 2)]

@flow.request
def last(found: Response, unneeded: dict | None, many: list[dict], named: dict, none_of_many: list,
         binary: Response, maybe: dict | Failure, some: list[dict | Failure], row: dict):
    return get(f"{URL}/last/{row['n']}")

@flow.compute
def total(found: Response, unneeded: dict | None, many: list[dict], named: dict[str, dict],
          none_of_many: list, binary: Response, maybe: dict | Failure, some: list[dict | Failure], last: dict):
    return {
        "found": [found.status, found.ok, found.headers["x-shelf"], found.json()],
        "unneeded": unneeded,
        "many": [answer["n"] for answer in many],
        "named": [[name, answer["n"]] for name, answer in named.items()],
        "none": none_of_many,
        "binary": [binary.body.hex(), binary.url.endswith("/binary/1")],
        "maybe": repr(type(maybe)),
        "some": [repr(type(answer)) for answer in some],
        "last": last,
    }
"""
BINARY = bytes(range(256))


def kinds(call, *, broken):
    if call.step == "found":
        return 404, {"why": "not here"}, {"X-Shelf": "caf\xe9 7"}
    if call.step == "binary":
        return 200, BINARY, {"Content-Type": "application/octet-stream"}
    if broken and call.path in ("/maybe/1", "/some/2", "/last/1"):
        return 422, {}
    return {"n": call.number}


def test_every_kind_of_step_comes_back_from_a_dead_letter(place, service):
    place.flow(KINDS)
    place.rows(1)
    service.answer = lambda call: kinds(call, broken=True)
    place(*RUN, code=1)
    assert place.letters[1]["step"] == "last"
    service.forget()
    service.answer = lambda call: kinds(call, broken=False)
    place(*RETRY, code=0)
    # What was passed on as a Failure is called again; what succeeded or was skipped is not.
    assert service.steps() == {"maybe": 1, "some": 2, "last": 1}
    (retried,) = place.lines()
    place(*RUN, "--restart", code=0)
    (undisturbed,) = place.lines()
    assert retried == undisturbed
    result = retried["result"]
    assert result["found"][:2] == [404, False]
    assert result["binary"] == [BINARY.hex(), True]
    assert result["named"] == [["b", 1], ["a", 2]]
    assert result["unneeded"] is None


def test_a_failed_item_has_its_whole_step_called_again(place, service):
    place.flow("""
        flow = Flow("list")

        @flow.request
        def many(row: dict):
            return [get(f"{URL}/many/{n}") for n in (1, 2, 3)]

        @flow.compute
        def total(many: list[dict]):
            return [answer["n"] for answer in many]
    """)
    place.rows(1)
    service.answer = failing("many/2")
    place(*RUN, code=1)
    service.answer = answer_of
    place(*RETRY, code=0)
    assert place.lines()[0]["result"] == [1, 2, 3]


def test_an_answer_that_is_too_long_to_keep_is_asked_for_again(place, service):
    place.flow(SHOP)
    place.rows(1)

    def answer(call, broken):
        if call.step == "side":
            return {"n": 1, "long": "x" * (1 << 20)}
        return (422, {}) if broken and call.step == "last" else answer_of(call)

    service.answer = lambda call: answer(call, broken=True)
    place(*RUN, code=1)
    assert (place.path / "in.results.failures.jsonl").stat().st_size < 10_000
    service.forget()
    service.answer = lambda call: answer(call, broken=False)
    place(*RETRY, code=0)
    assert service.steps() == {"side": 1, "last": 1}


# ── secrets ─────────────────────────────────────────────────────────────────────

SECRET = "hunter2hunter2"
SECRETIVE = """
flow = Flow("secretive", secrets=["shopKey"], engine={"secret_headers": ["X-Shop-Pass"]})

@flow.request
def first(row: dict):
    return get(f"{URL}/first/{row['n']}", headers=row["headers"])

@flow.request
def login(first: dict, row: dict):
    return get(f"{URL}/login/{row['n']}")

@flow.request(retry=False)
def last(login: dict, row: dict):
    return get(row["url"].replace("PORT", URL.rpartition(":")[2]), headers={"Authorization": row["password"]})
"""


def secretive_row(number):
    return {
        "n": number,
        "headers": {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "X-Shop-Pass": SECRET},
        "password": SECRET,
        "nested": [{"api_key": SECRET, "apiKey": SECRET, "shop-key": "open"}, f"http://me:{SECRET}@a.test/"],
        "shopkey": SECRET,
        "url": f"http://me:{SECRET}@127.0.0.1:PORT/last/{number}?id=7&token={SECRET}&api-key={SECRET}",
    }


def secretive(call, *, broken=True):
    if call.step == "login":
        return 200, {"access_token": SECRET}, {"Set-Cookie": SECRET}
    if call.step == "last" and broken:
        return 503, {"token": SECRET}, {"WWW-Authenticate": SECRET}
    return 200, {}, {"Set-Cookie": f"id={SECRET}", "X-Shop-Pass": SECRET}


def leaks(place, *texts):
    """Where the secret is to be read, the input aside."""
    found = [text for text in texts if SECRET in text]
    for path in place.path.rglob("*"):
        if path.is_file() and path.suffix != ".py" and path.name not in ("in.jsonl", "in.csv", "rows.db"):
            found += [
                f"{path.name}: {line[:2000]}"
                for line in path.read_text("utf-8", "replace").splitlines()
                if SECRET in line
            ]
    return found


def test_secrets_are_written_down_nowhere(place, service):
    place.flow(SECRETIVE)
    place.rows([secretive_row(1), secretive_row(2)])
    with (place.path / "in.jsonl").open("a") as file:
        file.write(f'{{"n": 3, "password": "{SECRET}", broken\n')
    service.answer = secretive
    done = place(*RUN, "--log", "log.jsonl", code=1)
    assert sorted(place.letters) == [1, 2, 3]
    assert (place.path / "log.jsonl").stat().st_size
    letter = place.letters[1]
    assert letter["input"]["nested"][0] == {
        "api_key": "[redacted]", "apiKey": "[redacted]", "shop-key": "[redacted]",
    }  # fmt: skip
    assert letter["input"]["url"] == "http://127.0.0.1:PORT/last/1?id=7&token=[redacted]&api-key=[redacted]"
    assert "login" not in letter["answers"]
    place.ask("runs", "show", "last", "--html", "report.html", code=0)
    assert not leaks(place, done.stderr, place.ask("runs", "show", "last", code=0).stdout)
    dry = place.ask(*RUN, "--dry-run", "-o", "other.jsonl", code=0)
    assert SECRET not in dry.stdout
    assert "Authorization: [redacted]" in dry.stdout


def test_configured_names_are_secret_in_urls_too(place, service):
    place.flow("""
        flow = Flow("named", secrets=["shopkey"])

        @flow.request(retry=False)
        def last(row: dict):
            return get(f"{URL}/last/{row['n']}", params={"shopkey": row["shopkey"]})
    """)
    place.rows([{"n": 1, "shopkey": SECRET}])
    service.answer = failing("last/1")
    done = place(*RUN, "--log", "log.jsonl", code=1)
    assert not leaks(place, done.stderr)


def test_a_record_of_csv_that_cannot_be_read_hides_its_secrets(place, service):
    place.flow(SHOP)
    (place.path / "in.csv").write_text(f"n,password\n1,{SECRET},too much\n")
    done = place("run", "flow.py", "in.csv", "--workers", 0, code=1)
    assert sorted(place.letters) == [2]
    assert not leaks(place, done.stderr)


def test_a_password_in_the_parameters_of_a_database_is_not_in_the_list_of_runs(place, service):
    place.flow(SHOP)
    connection = sqlite3.connect(place.path / "rows.db")
    connection.executescript("CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);")
    connection.close()
    place("run", "flow.py", f"sqlite:///rows.db?table=t&key=n&password={SECRET}", "-o", "out.jsonl",
          "--workers", 0, code=0)  # fmt: skip
    assert not leaks(place)


@pytest.mark.parametrize(
    "sent",
    [
        'form={"password": row["password"], "id": 7}',
        'json={"password": row["password"]}',
        'multipart={"password": row["password"]}',
        'params={"api_key": row["password"]}',
        'headers={"X-Auth-Token": row["password"]}',
    ],
)
def test_a_dry_run_hides_secrets_wherever_they_are_sent(place, sent):
    place.flow(f"""
        flow = Flow("dry")

        @flow.request
        def login(row: dict):
            return post(URL, {sent})
    """)
    place.rows([{"password": SECRET}])
    done = place.ask(*RUN, "--dry-run", code=0)
    assert "login: POST" in done.stdout
    assert SECRET not in done.stdout


def test_a_row_with_a_secret_is_read_from_the_source_again(place, service):
    place.flow(SECRETIVE)
    place.rows([secretive_row(n) for n in range(1, 4)])
    service.answer = lambda call: secretive(call, broken=call.number == 2)
    place(*RUN, code=1)
    assert list(place.letters) == [2]
    service.forget()
    service.answer = lambda call: secretive(call, broken=False)
    place(*RETRY, code=0)
    assert service.steps() == {"login": 1, "last": 1}  # an answer that held a secret was not kept
    (last,) = [call for call in service.calls if call.step == "last"]
    assert last.headers["authorization"] == SECRET
    assert last.query == {"id": "7", "token": SECRET, "api-key": SECRET}
    assert place.numbers() == [1, 2, 3]
    assert not leaks(place)


def test_a_row_with_a_secret_is_left_if_the_input_has_changed(place, service):
    place.flow(SECRETIVE)
    rows = place.rows([secretive_row(1), {"n": 2, "headers": {}, "password": "", "url": "http://[::1"}])
    service.answer = secretive
    place(*RUN, code=1)
    before = place.letters[1]
    rows.write_text(rows.read_text().replace('"n": 1', '"n": 9'))
    service.forget()
    service.answer = lambda call: secretive(call, broken=False)
    done = place(*RETRY, code=1)
    assert "1 failed rows could not be run again" in done.stderr or "2 failed rows could not" in done.stderr
    assert "the input, which has them, is not the same any more" in done.stderr
    assert place.letters[1] == before
    assert not service.paths()["/last/1"]
    assert not service.paths()["/last/9"]


# ── Idempotency-Key ─────────────────────────────────────────────────────────────

KEYED = """
flow = Flow("keyed", engine={"breaker": None})

@flow.request(idempotency_key=True)
def base(row: dict):
    return post(f"{URL}/base/{row['n']}")

@flow.request(idempotency_key=True)
def many(base: dict, row: dict):
    return [post(f"{URL}/many{item}/{row['n']}") for item in (1, 2)]

@flow.request(idempotency_key=True)
def named(many: list, row: dict):
    return {name: post(f"{URL}/named{name}/{row['n']}") for name in ("a", "b")}

@flow.request
def plain(named: dict, row: dict):
    return post(f"{URL}/plain/{row['n']}")

@flow.request(idempotency_key=True)
def own(plain: dict, row: dict):
    return post(f"{URL}/own/{row['n']}", headers={"Idempotency-Key": '"mine"'})
"""


def test_an_idempotency_key_is_the_same_whenever_its_place_is_come_to(place, service):
    place.flow(KEYED)
    place.rows(4)
    keys: dict[str, set[str | None]] = {}
    tries: dict[str, int] = {}

    def note(call):
        keys.setdefault(call.path, set()).add(call.headers.get("idempotency-key"))
        tries[call.path] = tries.get(call.path, 0) + 1

    def at_first(call):
        note(call)
        if call.step == "many2" and call.number == 2:
            return 422, {}
        return (503, {}) if tries[call.path] == 1 and call.step == "base" else {}

    service.answer = at_first
    service.hold(lambda call: call.step == "namedb" and call.number == 3)
    process = place.start(*RUN, "--retries", 4)
    until(lambda: sorted({*place.numbers(), *place.letters}) == [1, 2, 4])
    place.recorded(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    service.release()
    service.wait(lambda: service.under_way == 0)

    def later(call):
        note(call)
        return {}

    service.answer = later
    place(*RUN, code=1)
    place(*RETRY, code=0)
    assert place.numbers() == [1, 2, 3, 4]
    assert tries["/base/1"] >= 2  # attempts
    assert tries["/namedb/3"] == 2  # before the kill and after it
    assert tries["/many2/2"] == 2  # the run and its retry
    assert {path for path, found in keys.items() if found == {None}} == {f"/plain/{n}" for n in range(1, 5)}
    assert {path for path, found in keys.items() if found == {'"mine"'}} == {f"/own/{n}" for n in range(1, 5)}
    made = {path: found for path, found in keys.items() if not path.startswith(("/plain", "/own"))}
    assert all(len(found) == 1 for found in made.values()), made
    values = [next(iter(found)) for found in made.values()]
    assert len(values) == len(set(values)) == 20
    assert all(uuid.UUID(value.strip('"')) and value == f'"{value.strip(chr(34))}"' for value in values)
    # Another run has other keys.
    keys.clear()
    place(*RUN, "--restart", "--limit", 1, code=0)
    assert not keys["/base/1"] & made["/base/1"]


# ── misuse ──────────────────────────────────────────────────────────────────────


def test_a_retry_that_makes_no_sense(place, service):
    place.flow(SHOP)
    place.rows(2)
    place(*RUN, code=0)
    for arguments, says in (
        (["none"], "none: there is no such run; `yelpaze runs` lists them"),
        (
            ["last", "--step", "lost"],
            "--step lost: no step of shop; steps are: base, other, side, last, total",
        ),
        (["last", "-o", "other.jsonl"], "other.jsonl: no run wrote it"),
        (["last", "--flow", "none.py"], "none.py: there is no such file"),
        (["last", "--accept-changed", "everything"], "everything"),
    ):
        done = place.ask("retry", *arguments, code=2)
        assert says in done.stderr, arguments
    assert not (place.path / "other.jsonl").exists()
    assert not (place.path / "other.jsonl.journal").exists()


@pytest.mark.parametrize("flags", [("--status", "many"), ("--kind", "statsu")])
def test_a_filter_that_can_select_nothing_is_refused(place, service, flags):
    place.flow(SHOP)
    place.rows(2)
    service.answer = failing("last/2")
    place(*RUN, code=1)
    assert flags[1] in place.ask("retry", "last", *flags, code=2).stderr


def test_retry_of_an_output_that_was_changed(place, service):
    place.flow(SHOP)
    place.rows(3)
    service.answer = failing("last/2")
    place(*RUN, code=1)
    output = place.path / "in.results.jsonl"
    output.write_text(output.read_text().splitlines()[0] + "\n")
    service.answer = answer_of
    done = place(*RETRY, code=2)
    assert "were committed" in done.stderr
    assert "--accept-changed output goes on" in done.stderr
    place(*RETRY, "--accept-changed", "output", code=0)
    assert 2 in place.numbers()


def test_retry_of_a_stdout_run_says_why_not(place, service):
    place.flow(SHOP)
    place.rows(2)
    service.answer = failing("last/2")
    done = place(*RUN, "-o", "-", code=1)
    assert "yelpaze retry" not in done.stderr
    assert "nothing to retry" in place(*RETRY, code=2).stderr
    assert list(place.path.glob("in.*failures.jsonl")), os.listdir(place.path)
