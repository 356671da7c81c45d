"""`yelpaze.Job`: runs as those of the command line, from Python."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import yelpaze
from yelpaze import Flow, InputError, Job, MisuseError, get


def answer_of(call):
    return {"path": call.path}


def flow_of(service):
    flow = Flow("f")

    @flow.request
    def call(row: dict):
        return get(f"{service.url}/{row['n']}")

    @flow.compute
    def out(row: dict, call):
        assert row["n"] != 13
        return call["path"]

    return flow


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place.path)


async def test_rows_of_a_file_into_a_file(place):
    place.rows(20)
    job = Job(flow_of(place.service), "in.jsonl", workers=0)
    summary = await job.run()
    assert (summary.rows, summary.succeeded, summary.failed, summary.failures) == (
        20,
        19,
        1,
        {"exception": 1},
    )
    assert summary.output == "in.results.jsonl"
    assert len(place.lines()) == 19
    assert [letter["row"] for letter in place.lines("in.results.failures.jsonl")] == [13]
    again = await Job(flow_of(place.service), "in.jsonl", workers=0).run()
    assert again.already_finished
    assert len(place.service.calls) == 20


async def test_a_job_runs_once(place):
    place.rows(1)
    job = Job(flow_of(place.service), Path("in.jsonl"), workers=0)
    await job.run()
    with pytest.raises(MisuseError, match="runs once"):
        await job.run()


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet", "out.db", Path("out.jsonl")])
async def test_iterables_and_outputs(place, output):
    rows = [{"n": n} for n in range(600)]

    async def later():
        for row in rows:
            yield row

    for number, given in enumerate((rows, iter(rows), later())):
        name = f"{number}-{output}"
        summary = await Job(flow_of(place.service), given, output=name, workers=0).run()
        assert (summary.rows, summary.failed) == (600, 1)
        assert os.path.exists(name)


async def test_several_files(place):
    place.rows(2, "a.jsonl")
    place.rows(3, "b.jsonl")
    summary = await Job(flow_of(place.service), [Path("a.jsonl"), Path("b.jsonl")], workers=0).run()
    assert (summary.rows, summary.output) == (5, "a.results.jsonl")


async def test_an_iterable_with_an_id_goes_on(place):
    rows = [{"n": n} for n in range(1000)]

    def stopped_after(count):
        yield from rows[:count]
        raise LookupError("the cursor is gone")

    options = {"output": "out.jsonl", "input_id": "orders of 30 November", "workers": 0}
    with pytest.raises(LookupError, match="the cursor is gone"):
        await Job(flow_of(place.service), stopped_after(700), **options).run()
    done = len(place.numbers("out.jsonl")) + len(place.lines("out.failures.jsonl"))
    assert done
    summary = await Job(flow_of(place.service), iter(rows), **options).run()
    assert (summary.rows, summary.failed, summary.ended) == (1000, 1, 1000 - done)
    assert place.numbers("out.jsonl") == [n for n in range(1, 1001) if n != 14]
    with pytest.raises(InputError, match="the input is another one"):
        await Job(flow_of(place.service), iter(rows), **options | {"input_id": "others"}).run()


async def test_an_iterable_without_an_id_does_not_go_on(place):
    rows = [{"n": n} for n in range(3)]
    await Job(flow_of(place.service), rows, output="out.jsonl", workers=0).run()
    with pytest.raises(InputError, match=r"an iterable without input_id.*--restart"):
        await Job(flow_of(place.service), rows, output="out.jsonl", workers=0).run()
    summary = await Job(flow_of(place.service), rows, output="out.jsonl", workers=0, restart=True).run()
    assert summary.rows == 3
    assert os.path.exists("out.1.jsonl")


async def test_cancelling_keeps_what_was_done(place):
    place.rows(40)
    place.service.hold(lambda call: int(call.path[1:]) > 30)
    options = {"workers": 0, "output": "out.jsonl", "concurrency": 8}
    task = asyncio.create_task(Job(flow_of(place.service), "in.jsonl", **options).run())
    await asyncio.to_thread(place.service.wait_for_calls, 31)
    out = place.path / "out.jsonl"
    while not out.exists() or out.read_bytes().count(b"\n") < 20:  # some commits have been made
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    done = place.numbers("out.jsonl")
    place.service.release()
    place.service.forget()
    summary = await Job(flow_of(place.service), "in.jsonl", **options).run()
    assert (summary.rows, summary.failed) == (40, 1)
    assert place.numbers("out.jsonl") == [n for n in range(1, 41) if n != 13]
    assert len(place.service.calls) == 40 - len(done) - 1


def test_ctrl_c_keeps_what_was_done(place):
    place.rows(40)
    place.service.hold(lambda call: call.path == "/40")
    place.flow("""
        import yelpaze
        flow = Flow("f")
        @flow.request
        def call(row): return get(f"{URL}/{row['n']}")
        @flow.compute
        def out(call): return 1
        if __name__ == "__main__":
            print(yelpaze.run(yelpaze.Job(flow, "in.jsonl", output="out.jsonl", workers=1), progress=True).rows)
    """)
    command = [sys.executable, "flow.py"]
    process = subprocess.Popen(command, cwd=place.path, env=place.env, stderr=subprocess.PIPE, text=True)
    place.service.wait_for_calls(40)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    before = place.numbers("out.jsonl")
    assert set(before) <= set(range(1, 40))
    place.service.release()
    done = subprocess.run(command, cwd=place.path, env=place.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
    assert f"yelpaze: going on after {len(before)} rows" in done.stderr
    assert place.numbers("out.jsonl") == list(range(1, 41))


def test_it_is_listed_and_can_be_retried(place):
    place.rows(20)
    place.flow("""
        import yelpaze
        flow = Flow("listed")
        @flow.compute
        def out(row): return 1 // (row["n"] - 3)
        if __name__ == "__main__":
            yelpaze.run(yelpaze.Job(flow, "in.jsonl", workers=0))
    """)
    command = [sys.executable, "flow.py"]
    assert subprocess.run(command, cwd=place.path, env=place.env, timeout=60).returncode == 0
    place.flow("""
        flow = Flow("listed")
        @flow.compute
        def out(row): return 1
    """)
    place("retry", "in.results.jsonl", "--workers", 0, code=0)
    assert place.numbers() == list(range(1, 21))


def test_misuse(place):
    place.rows(1)
    flow = flow_of(place.service)
    for rows, options, said in (
        ("in.jsonl", {"input_id": "x"}, "input_id is for iterables"),
        ([{"n": 1}], {}, "give output="),
        (7, {"output": "x.jsonl"}, "a path, a URL or an iterable, not int"),
        ([{"n": 1}], {"output": ""}, "give output="),
        ("in.jsonl", {"max_failures": "many"}, "max_failures takes a number of rows, or a share"),
        ("in.jsonl", {"concurency": 7}, "did you mean concurrency"),
        ("in.jsonl", {"concurrency": 0}, "concurrency takes a number of at least 1"),
        ("in.jsonl", {"grace": -1}, "grace takes a number of at least 0"),
        ("in.jsonl", {"row_deadline": 0}, "row_deadline takes a positive number"),
        ("in.jsonl", {"accept": "inputs"}, "accept takes some of flow, input, output: inputs"),
    ):
        with pytest.raises(MisuseError, match=said):
            Job(flow, rows, **options)
    with pytest.raises(InputError, match="no such file"):
        Job(flow, "none.jsonl")
    with pytest.raises(MisuseError, match="a job runs a Flow, not str"):
        Job("flow.py", "in.jsonl")
    with pytest.raises(MisuseError, match="give the rows"):
        yelpaze.run(flow)


async def test_a_job_inside_a_loop_says_what_to_write(place):
    place.rows(1)
    with pytest.raises(MisuseError, match=r"await job\.run\(\)"):
        yelpaze.run(Job(flow_of(place.service), "in.jsonl", workers=0))


def test_rows_of_an_iterable_on_standard_output(place):
    place.flow("""
        import yelpaze
        flow = Flow("f")
        @flow.compute
        def out(row): return row
        if __name__ == "__main__":
            yelpaze.run(yelpaze.Job(flow, [1, 2], output="-", workers=0, max_failures="5%"))
    """)
    done = subprocess.run(
        [sys.executable, "flow.py"], cwd=place.path, env=place.env, capture_output=True, timeout=60
    )
    assert done.stdout == b'{"row":1,"result":1}\n{"row":2,"result":2}\n', done.stderr


@pytest.mark.parametrize(
    "work", ["yelpaze.run(yelpaze.Job(flow, 'in.jsonl'))", "yelpaze.run(flow, [1], workers=1)"]
)
def test_work_without_a_guard_says_where_to_put_it(place, work):
    place.rows(1)
    place.flow(f"import yelpaze\nflow = Flow('f')\n@flow.compute\ndef out(row): return 1\n{work}\n")
    done = subprocess.run(
        [sys.executable, "flow.py"], cwd=place.path, env=place.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert 'put the call under `if __name__ == "__main__":`' in done.stderr
    for command in (["check", "flow.py"], ["run", "flow.py", "in.jsonl"]):
        assert 'put the call under `if __name__ == "__main__":`' in place(*command, code=2).stderr


def test_an_interrupted_iterable_has_no_name_for_retry(place):
    place.flow("""
        import yelpaze
        flow = Flow("listed")
        @flow.compute
        def out(row): return 1 // row["n"]
        if __name__ == "__main__":
            yelpaze.run(yelpaze.Job(flow, [{"n": 0}, {"n": 1}], output="out.jsonl", workers=0))
    """)
    command = [sys.executable, "flow.py"]
    assert subprocess.run(command, cwd=place.path, env=place.env, timeout=60).returncode == 0
    place.flow("flow = Flow('listed')\n@flow.compute\ndef out(row): return 7\n")
    place("retry", "out.jsonl", "--workers", 0, code=0)  # the dead letter has the row
    assert place.numbers("out.jsonl") == [1, 2]
    assert yelpaze.Summary
