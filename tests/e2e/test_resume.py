"""The same command goes on: after kill -9, Ctrl-C, a limit; and it notices what has changed meanwhile."""

import json
import os
import shutil
import signal

import pytest

from support.service import Place
from support.waiting import until

CALL = """
flow = Flow("calls")

@flow.request
def call(row: dict):
    return get(f"{URL}/call/{row['n']}")
"""
DOUBLE = """
flow = Flow("double")

@flow.compute
def double(row: dict):
    return row["n"] * 2
"""
RUN = ("run", "flow.py", "in.jsonl", "--workers", "0")


def until_stopping(process):
    """Wait until the first signal has been heard."""
    while True:
        process.send_signal(signal.SIGUSR1)
        line = process.stderr.readline()
        assert line, "it has ended"
        if "stopping" in line:
            return


# ── it goes on ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ordered", [(), ("--ordered",)])
def test_after_kill_9_nothing_that_was_committed_is_called_again(place, service, ordered):
    place.flow(CALL)
    place.rows(30)
    service.hold(lambda call: call.number > 10)
    process = place.start(*RUN, "--concurrency", 12, *ordered)
    until(lambda: len(place.lines()) == 10)
    until(lambda: '"succeeded":10' in (place.path / "in.results.jsonl.journal").read_text())
    process.kill()
    process.wait()
    service.release()
    done = place(*RUN, *ordered, code=0)
    assert "going on after 10 rows" in done.stderr
    assert "(and 10 before)" in done.stderr
    assert place.numbers() == list(range(1, 31))
    assert {service.paths()[f"/call/{n}"] for n in range(1, 11)} == {1}
    assert {service.paths()[f"/call/{n}"] for n in range(11, 23)} <= {1, 2}  # under way when it was killed
    assert {service.paths()[f"/call/{n}"] for n in range(23, 31)} == {1}


def test_what_was_written_and_not_committed_is_undone(place, service):
    """As a crash leaves it between the write and the commit: whole lines and a torn one too many."""
    place.flow(CALL)
    place.rows(6)
    place(*RUN, "--limit", 3, code=0)
    for name in ("in.results.jsonl", "in.results.failures.jsonl"):
        with (place.path / name).open("a") as file:
            file.write('{"row":4,"result":null}\n{"row":5,"res')
    with (place.path / "in.results.jsonl.journal").open("a") as file:
        file.write('{"checkpoint":{"run":')
    place(*RUN, code=0)
    assert place.numbers() == [1, 2, 3, 4, 5, 6]
    assert place.letters == {}
    assert set(service.paths().values()) == {1}


def test_ctrl_c_lets_rows_under_way_end_and_takes_no_more(place, service):
    place.flow(CALL)
    place.rows(20)
    service.hold()
    process = place.start(*RUN, "--concurrency", 5, "--grace", 60)
    service.wait_for_calls(5)
    process.send_signal(signal.SIGINT)
    until_stopping(process)
    service.release()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "interrupted: 5 rows" in stderr
    assert "the same command goes on" in stderr
    assert place.numbers() == [1, 2, 3, 4, 5]
    assert len(service.calls) == 5
    place(*RUN, code=0)
    assert place.numbers() == list(range(1, 21))
    assert set(service.paths().values()) == {1}


@pytest.mark.parametrize("how", ["grace", "second signal", "no grace"])
def test_rows_that_do_not_end_in_time_are_dropped_and_called_again(place, service, how):
    place.flow(CALL)
    place.rows(8)
    service.hold(lambda call: call.number > 3)
    grace = {"grace": 0.1, "second signal": 300, "no grace": 0}[how]
    process = place.start(*RUN, "--grace", grace)
    service.wait_for_calls(8)
    until(lambda: len(place.lines()) == 3)
    process.send_signal(signal.SIGINT)
    if how == "second signal":
        until_stopping(process)
        process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "the same command goes on" in stderr
    assert place.letters == {}
    service.release()
    place(*RUN, code=0)
    assert place.numbers() == list(range(1, 9))
    assert [service.paths()[f"/call/{n}"] for n in range(1, 9)] == [1] * 3 + [2] * 5


def test_a_finished_run_says_so_even_if_rows_had_failed(place, service):
    service.answer = lambda call: (422, "no") if call.number == 2 else "yes"
    place.flow(CALL)
    place.rows(3)
    done = place(*RUN, code=1)
    assert "yelpaze retry calls-" in done.stderr
    before = {path.name: path.read_bytes() for path in place.path.iterdir() if path.is_file()}
    done = place(*RUN, "--json", code=0)
    assert "is finished: 3 rows, 1 of them failed; nothing to do (--restart begins anew)" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["already_finished"], summary["rows"], summary["failed"]) == (True, 3, 1)
    assert len(service.calls) == 3
    assert before == {path.name: path.read_bytes() for path in place.path.iterdir() if path.is_file()}


def test_restart_begins_anew_and_keeps_the_old_output_beside(place, service):
    service.answer = lambda call: (422, "no") if call.number == 2 else "old"
    place.flow(CALL)
    place.rows(3)
    place(*RUN, code=1)
    service.answer = lambda call: (422, "no") if call.number == 3 else "new"
    for number in (1, 2):
        done = place(*RUN, "--restart", code=1)
        assert f"the earlier output is kept as in.results.{number}.jsonl" in done.stderr
        assert f"in.results.failures.{number}.jsonl" in done.stderr
    assert [line["result"] for line in place.lines("in.results.1.jsonl")] == ["old", "old"]
    assert [line["row"] for line in place.lines("in.results.failures.1.jsonl")] == [2]
    assert {line["result"] for line in place.lines()} == {"new"}
    assert list(place.letters) == [3]
    assert set(service.paths().values()) == {3}


def test_raising_the_limit_goes_on(place, service):
    place.flow(CALL)
    place.rows(8)
    for limit, calls, says in (
        (("--limit", 3), 3, "done: 3 rows"),
        (("--limit", 3), 3, "is finished"),
        (("--limit", 5), 5, "going on after 3 rows"),
        (("--limit", 2), 5, "is finished"),
        ((), 8, "going on after 5 rows"),
        (("--limit", 4), 8, "is finished"),
        ((), 8, "is finished"),
    ):
        assert says in place(*RUN, *limit, code=0).stderr
        assert len(service.calls) == calls
    assert place.numbers() == list(range(1, 9))


# ── what has changed meanwhile ──────────────────────────────────────────────────

HELPED = """
import helper
flow = Flow("helped")

@flow.compute
def double(row: dict):
    return helper.double(row["n"])
"""


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def touch(path):
    os.utime(path, ns=(1, 1))


CHANGES = {
    "the flow": ("flow", "flow.py", lambda p: edit(p / "flow.py", '"n"', "'n'")),
    "a module beside it": ("flow", "helper.py", lambda p: edit(p / "helper.py", "* 2", "* 2 * 1")),
    "more input": ("input", "in.jsonl: another size", lambda p: edit(p / "in.jsonl", '{"n": 4}', '{"n": 4}\n{"n": 5}')),
    "other input": ("input", "in.jsonl: another time of change, content", lambda p: edit(p / "in.jsonl", "4", "9")),
    "input written again": ("input", "in.jsonl: another time of change", lambda p: touch(p / "in.jsonl")),
    "output edited": ("output", "in.results.jsonl was edited", lambda p: edit(p / "in.results.jsonl", "2", "7")),
    "output shortened": (
        "output",
        "in.results.jsonl is ",
        lambda p: (p / "in.results.jsonl").write_text('{"row":1,"result":2}\n'),
    ),
    "output removed": ("output", "in.results.jsonl is missing", lambda p: (p / "in.results.jsonl").unlink()),
    "letters removed": (
        "output",
        "in.results.failures.jsonl is missing",
        lambda p: (p / "in.results.failures.jsonl").unlink(),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run of which three rows are done."""
    place = Place(tmp_path_factory.mktemp("halfway"))
    (place.path / "helper.py").write_text("def double(n):\n    return n * 2\n")
    place.flow(HELPED)
    (place.path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"bad": 3}\n{"n": 4}\n')
    place(*RUN, "--limit", 3, code=1)
    return place.path


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_refused_by_name_and_can_be_accepted(tmp_path, halfway, what):
    flag, says, change = CHANGES[what]
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    place = Place(tmp_path)
    change(tmp_path)
    before = {path.name: path.read_bytes() for path in place.path.iterdir() if path.is_file()}
    others = [f"--accept-changed={other}" for other in ("flow", "input", "output") if other != flag]
    done = place.ask(*RUN, *others, code=2)
    assert says in done.stderr
    assert f"--accept-changed {flag} goes on" in done.stderr
    assert "--restart begins anew" in done.stderr
    assert "3 rows of the run helped-" in done.stderr
    assert before == {path.name: path.read_bytes() for path in place.path.iterdir() if path.is_file()}
    assert "going on after 3 rows" in place(*RUN, "--accept-changed", flag).stderr
    rows = [line["row"] for line in place.lines()]
    assert len(rows) == len(set(rows))
    assert 4 in rows
    assert (5 in rows) == (what == "more input")
    if flag != "output":
        assert set(rows) >= {1, 2, 4}
        assert list(place.letters) == [3]
    if what == "the flow":  # what was accepted is what holds from now on
        assert "is finished" in place(*RUN, code=0).stderr


def test_several_changes_are_told_together(place):
    place.flow(DOUBLE)
    place.rows(3)
    place(*RUN, "--limit", 1, code=0)
    place.flow(DOUBLE + "\n# edited")
    place.rows(4)
    done = place.ask(*RUN, code=2)
    assert "--accept-changed flow --accept-changed input goes on" in done.stderr
    place(*RUN, "--accept-changed", "flow", code=2)
    place(*RUN, "--accept-changed", "flow", "--accept-changed", "input", code=0)
    assert place.numbers() == [1, 2, 3, 4]


def test_rows_that_were_added_to_the_input_of_a_finished_run_are_run_when_that_is_accepted(place):
    place.flow(DOUBLE)
    place.rows(2)
    place(*RUN, code=0)
    place.rows(3)
    place.ask(*RUN, code=2)
    place(*RUN, "--accept-changed", "input", code=0)
    assert place.numbers() == [1, 2, 3]


def test_the_input_is_the_same_by_whatever_path_it_is_named(place):
    place.flow(DOUBLE)
    place.rows(3)
    place(*RUN, "--limit", 1, code=0)
    (place.path / "elsewhere").mkdir()
    place("run", "../flow.py", place.path / "in.jsonl", "-o", "../in.results.jsonl", "--workers", 0,
          cwd=place.path / "elsewhere", code=0)  # fmt: skip
    assert place.numbers() == [1, 2, 3]


def test_another_sample_is_another_input(place):
    place.flow(DOUBLE)
    place.rows(10)
    place(*RUN, "--sample", 3, code=0)
    for flags in ((), ("--sample", 4)):
        assert "--sample was 3" in place.ask(*RUN, *flags, code=2).stderr


def test_an_output_that_no_run_wrote_is_left_alone(place):
    place.flow(DOUBLE)
    place.rows(2)
    mine = place.path / "in.results.jsonl"
    mine.write_text("precious\n")
    done = place.ask(*RUN, code=2)
    assert "in.results.jsonl exists, and there is no journal" in done.stderr
    assert "--restart" in done.stderr
    assert mine.read_text() == "precious\n"
    place(*RUN, "--restart", code=0)
    assert (place.path / "in.results.1.jsonl").read_text() == "precious\n"
    assert place.numbers() == [1, 2]


def test_dead_letters_that_no_run_wrote_are_left_alone(place):
    place.flow(DOUBLE)
    place.rows(2)
    mine = place.path / "in.results.failures.jsonl"
    mine.write_text('{"precious": 1}\n')
    done = place(*RUN)
    kept = [path.read_text() for path in place.path.glob("in.results.failures*.jsonl")]
    assert '{"precious": 1}\n' in kept, done.stderr


def test_a_journal_that_is_none_is_refused(place):
    place.flow(DOUBLE)
    place.rows(2)
    place(*RUN, "--limit", 1, code=0)
    (place.path / "in.results.jsonl.journal").write_text("{}\n")
    assert "in.results.jsonl.journal: is no journal of a run" in place.ask(*RUN, code=2).stderr


def test_a_second_run_or_a_retry_on_one_output_is_refused(place, service):
    place.flow(CALL)
    place.rows(3)
    service.hold()
    process = place.start(*RUN)
    service.wait_for_calls(3)
    assert "another run is writing it" in place.ask(*RUN, code=2).stderr
    assert "another run is writing it" in place.ask(*RUN, "--restart", code=2).stderr
    assert "another run is writing it" in place.ask("retry", "last", code=2).stderr
    service.release()
    assert process.wait(60) == 0
    assert place.numbers() == [1, 2, 3]
    assert len(service.calls) == 3


# ── inputs ──────────────────────────────────────────────────────────────────────


def test_standard_input_cannot_be_gone_on_with(place):
    place.flow(DOUBLE)
    run = ("run", "flow.py", "-", "--workers", 0)
    place(*run, "--limit", 1, input='{"n": 1}\n{"n": 2}\n', code=0)
    done = place(*run, input='{"n": 1}\n{"n": 2}\n', code=2)
    assert "the input can't be read twice: it is standard input" in done.stderr
    assert "--restart" in done.stderr
    place(*run, "--restart", input='{"n": 1}\n{"n": 2}\n', code=0)
    assert place.numbers("stdin.results.jsonl") == [1, 2]


def test_several_files_and_globs_are_one_input(place, service):
    place.flow(CALL)
    place.rows([{"n": 1}, {"n": 2}], "part-1.jsonl")
    (place.path / "part-2.jsonl").write_text('\n{"n": 4}\n{"n": 5}')
    place.rows([{"n": 6}], "part-3.jsonl")
    run = ("run", "flow.py", "part-*.jsonl", "-o", "out.jsonl", "--workers", 0)
    place(*run, "--limit", 3, code=0)
    place(*run, code=0)
    assert place.numbers("out.jsonl") == [1, 2, 4, 5, 6]
    assert {line["row"]: line["result"]["path"] for line in place.lines("out.jsonl")} == {
        n: f"/call/{n}" for n in (1, 2, 4, 5, 6)
    }
    assert len(service.calls) == 5
    place.rows([{"n": 7}], "part-4.jsonl")
    assert "4 inputs, not 3" in place.ask(*run, code=2).stderr
    # The same files by name are the same input.
    names = [f"part-{n}.jsonl" for n in (1, 2, 3)]
    assert "is finished" in place("run", "flow.py", *names, "-o", "out.jsonl", "--workers", 0, code=0).stderr


def test_a_glob_does_not_take_the_output_for_input(place, service):
    place.flow(CALL)
    place.rows([{"n": 1}], "a.jsonl")
    place.rows([{"n": 2}], "b.jsonl")
    run = ("run", "flow.py", "*.jsonl", "--workers", 0)
    place(*run, code=0)
    assert place.numbers("a.results.jsonl") == [1, 2]
    assert "is finished" in place(*run, code=0).stderr
    place(*run, "--restart", code=0)
    assert place.numbers("a.results.jsonl") == [1, 2]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["a.jsonl", "b.csv"], "several formats: a.jsonl, b.csv"),
        (["[ab].*"], "several formats"),
        (["a.jsonl", "sqlite:///x.db?table=t"], "one URL can be the input, or several files; not both"),
        (["a.jsonl", "-"], "standard input is an input of its own"),
        (["none-*.jsonl"], "none-*.jsonl: no file matches"),
        (["a.jsonl", "none.jsonl"], "none.jsonl: there is no such file"),
    ],
)
def test_inputs_that_do_not_go_together(place, inputs, says):
    place.flow(DOUBLE)
    place.rows(1, "a.jsonl")
    (place.path / "b.csv").write_text("n\n1\n")
    assert says in place.ask("run", "flow.py", *inputs, code=2).stderr
    assert not list(place.path.glob("*.results*"))
