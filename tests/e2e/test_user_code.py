"""A flow file may do what it likes, at import and in its steps: the run goes on as if it hadn't."""

import json
import os
import subprocess
import sys
import threading

import pytest

from support.service import YELPAZE
from yelpaze import Flow

INLINE_AND_NOT = pytest.mark.parametrize("workers", [0, 1], ids=["inline", "processes"])
LAST = "@flow.compute\ndef out(row): return row\n"


def answer_of(call):
    return {"k": 1}


def run(place, *arguments, shell="", **options):
    """`yelpaze …` as its own process; `shell` adds redirections."""
    command = [*YELPAZE, *map(str, arguments)]
    if shell:
        command = ["bash", "-c", f'exec "$@" {shell}', "bash", *command]
    return subprocess.run(command, cwd=place.path, env=place.env, capture_output=True, timeout=60, **options)


# ── at import ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import sys; sys.exit(0)", "it leaves the program: SystemExit: 0"),
        ("import sys; sys.exit('TOKEN is not set')", "it leaves the program: SystemExit: TOKEN is not set"),
        ("raise SystemExit", "it leaves the program"),
        ("raise BaseException('like a panic')", "BaseException: like a panic"),
        ("raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_a_flow_that_leaves_at_import_cannot_be_used(place, line, said):
    place.flow(f"flow = Flow('f')\n{LAST}{line}")
    place.rows(1)
    for command in (["run", "flow.py", "in.jsonl"], ["check", "flow.py"], ["graph", "flow.py"]):
        done = run(place, *command)
        assert done.returncode == 2
        assert said in done.stderr.decode()
        assert b"flow.py:6: cannot be imported" in done.stderr
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""


@pytest.mark.parametrize("output", [[], ["-o", "out.csv"], ["-o", "sqlite:///out.db?table=t"]])
def test_names_mean_the_same_after_a_change_of_folder_at_import(place, output):
    (place.path / "flows").mkdir()
    place.rows([{"a": 1}])
    place.rows([{"a": 2}], "flows/in.jsonl")
    place.flow(
        f"import os\nos.chdir(os.path.dirname(os.path.abspath(__file__)))\nflow = Flow('f')\n{LAST}",
        "flows/flow.py",
    )
    for _ in range(2):  # the second time it is finished
        done = run(place, "run", "flows/flow.py", "in.jsonl", "--workers", 0, "--log", "log.jsonl", *output)
        assert done.returncode == 0, done.stderr
    assert b"is finished" in done.stderr
    expected = {"flow.py", "in.jsonl", "__pycache__"}
    assert {path.name for path in (place.path / "flows").iterdir()} <= expected
    assert (place.path / "log.jsonl").exists()
    if not output:
        assert place.lines() == [{"row": 1, "result": {"a": 1}}]
    assert run(place, "graph", "flows/flow.py", "-o", "graph.svg").returncode == 0
    assert (place.path / "graph.svg").exists()


def test_a_flow_that_goes_to_a_folder_below_runs_in_processes_too(place):
    for name in ("flows/data", "other"):
        (place.path / name).mkdir(parents=True)
    place.rows([{"a": 1}])
    place.rows([{"a": 1}], "other/in.jsonl")
    (place.path / "flows" / "data" / "price").write_text("7")
    place.flow(
        "import os\nos.chdir('flows/data')\nflow = Flow('f')\n"
        "@flow.compute\ndef out(row): return int(open('price').read())\n"
    )
    assert run(place, "run", "flow.py", "in.jsonl", "--workers", 1).returncode == 0
    assert place.lines() == [{"row": 1, "result": 7}]
    # It was started here, wherever the flow has gone.
    assert b"in.results.jsonl" in run(place, "runs", "show", "last").stdout
    done = subprocess.run(
        [*YELPAZE, "runs", "show", "last"], cwd=place.path / "other", env=place.env, capture_output=True
    )
    assert b"no run was started in this folder" in done.stderr


async def test_what_cannot_be_copied_is_passed_on():
    flow = Flow("f")

    @flow.compute
    def out(row):
        return type(row["lock"]).__name__

    (result,) = await flow.run([{"lock": threading.Lock()}])
    assert result.value == "lock"


def test_the_folder_may_go_away_at_import(place):
    place.rows([{"a": 1}])
    place.flow(
        "import os, tempfile\nwith tempfile.TemporaryDirectory() as folder:\n    os.chdir(folder)\n"
        f"flow = Flow('f')\n{LAST}"
    )
    done = run(place, "run", "flow.py", "in.jsonl", "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert place.lines() == [{"row": 1, "result": {"a": 1}}]


# ── in steps ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet", "db"])
def test_a_step_that_changes_the_folder_changes_it_for_nothing_else(place, format_):
    (place.path / "elsewhere").mkdir()
    names = [f"in{n}.jsonl" for n in range(3)]
    for name in names:
        place.rows([{"a": 1}, {"a": "no number"}], name)
    place.flow("""
        import os
        flow = Flow("f")
        @flow.request
        def call(row):
            os.chdir(os.path.join(os.path.dirname(__file__), "elsewhere"))
            return get(URL)
        @flow.compute
        def out(call, row: dict) -> int:
            return row["a"] + 1
    """)
    arguments = ("flow.py", *names, "-o", f"out.{format_}", "--workers", 0, "--concurrency", 1)
    done = run(place, "run", *arguments)
    assert done.returncode == 1, done.stderr
    assert list((place.path / "elsewhere").iterdir()) == []
    # Dead letters are taken out of their file at the end, too.
    done = run(place, "retry", f"out.{format_}", "--workers", 0)
    assert done.returncode == 1, done.stderr
    assert list((place.path / "elsewhere").iterdir()) == []


@INLINE_AND_NOT
def test_standard_output_has_results_and_nothing_else(place, workers):
    place.rows(2)
    place.flow("""
        import atexit, ctypes, os, subprocess
        atexit.register(lambda: print("at exit"))
        print("at import")
        flow = Flow("f")
        @flow.request
        def call(row):
            subprocess.run(["echo", "a child"])
            os.write(1, b"raw")
            ctypes.CDLL(None).puts(b"C code")
            print("printed")
            return get(URL)
        @flow.compute
        def out(call):
            subprocess.run(["echo", "a child of a CPU step"])
            print("in a CPU step")
            return 1
    """)
    done = run(place, "run", "flow.py", "in.jsonl", "-o", "-", "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert sorted(map(json.loads, done.stdout.splitlines()), key=lambda line: line["row"]) == [
        {"row": 1, "result": 1},
        {"row": 2, "result": 1},
    ]
    for text in (b"at exit", b"at import", b"a child\n", b"raw", b"C code", b"printed", b"in a CPU step"):
        assert text in done.stderr
    for command in ("check", "graph"):
        done = run(place, command, "flow.py")
        assert b"at import" not in done.stdout
        assert b"at import" in done.stderr


@INLINE_AND_NOT
@pytest.mark.parametrize("kind", ["request", "compute"])
def test_a_step_may_use_a_pool_of_processes(place, workers, kind):
    """Pool ends its processes with SIGTERM."""
    place.rows(6)
    place.flow(f"""
        import multiprocessing, signal
        flow = Flow("f")
        def twice(n):
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "SIGTERM"
            assert signal.getsignal(signal.SIGINT) == signal.default_int_handler, "SIGINT"
            assert signal.set_wakeup_fd(-1) == -1, "wake-up"
            assert not blocked, "mask"
            return n * 2
        def doubled(n):
            with multiprocessing.get_context("fork").Pool(1) as pool:
                return pool.map(twice, [n])[0]
        @flow.{kind}
        def step(row):
            n = doubled(row["n"])
            return n if {kind == "compute"} else get(f"{{URL}}/{{n}}")
        @flow.compute
        def out(step): return 1
    """)
    done = run(place, "run", "flow.py", "in.jsonl", "--workers", workers, "--concurrency", 2)
    assert done.returncode == 0, done.stderr
    assert place.numbers() == list(range(1, 7))


def test_what_a_step_changes_is_its_own(place):
    (place.path / "in.csv").write_text("a,b\n1,2\n1,x\n")
    place.flow("""
        flow = Flow("f")
        @flow.compute
        def spoils(row):
            row["a"] = row.clear()
            return {"list": [1]}
        @flow.compute
        def spoils_too(spoils):
            spoils["list"].append(2)
            return 1
        @flow.request
        def call(row, spoils, spoils_too): return get(f"{URL}/{row['a']}/{len(spoils['list'])}")
        @flow.compute
        def out(row, call): return int(row["b"])
    """)
    done = run(place, "run", "flow.py", "in.csv", "--workers", 0)
    assert done.returncode == 1, done.stderr
    assert {call.path for call in place.service.calls} == {"/1/1"}
    (letter,) = place.lines("in.results.failures.jsonl")
    assert letter["input"] == {"a": "1", "b": "x"}


# ── standard streams ────────────────────────────────────────────────────────────


@INLINE_AND_NOT
@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>&1", "2>&1 | true"])
def test_closed_full_and_broken_streams_lose_the_display_only(place, streams, workers):
    place.rows(2)
    place.flow("""
        import os, subprocess, sys
        flow = Flow("f")
        @flow.compute
        def out(row):
            print("said", flush=True)
            print("said", file=sys.stderr, flush=True)
            subprocess.run(["true"], check=True)
            return sorted(os.fstat(fd).st_mode for fd in range(3)) and 1
    """)
    command = [*YELPAZE, "run", "flow.py", "in.jsonl", "-o", "out.jsonl", "--workers", str(workers)]
    script = f'set -o pipefail; "$@" {streams}'
    done = subprocess.run(["bash", "-c", script, "bash", *command], cwd=place.path, env=place.env, timeout=60)
    assert done.returncode == 0
    assert place.lines("out.jsonl") == [{"row": 1, "result": 1}, {"row": 2, "result": 1}]


@pytest.mark.parametrize("streams", [">&-", ">/dev/full"])
def test_results_that_cannot_be_written_stop_the_run(place, streams):
    place.rows(2)
    place.flow(f"flow = Flow('f')\n{LAST}")
    done = run(place, "run", "flow.py", "in.jsonl", "-o", "-", shell=streams)
    assert done.returncode == 3
    assert b"yelpaze: -: cannot be written: " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("streams", [">&-", ">/dev/full"])
@pytest.mark.parametrize("command", [["runs", "--json"], ["check", "flow.py"]])
def test_output_that_cannot_be_written_is_named(place, streams, command):
    place.rows(1)
    place.flow(f"flow = Flow('f')\n{LAST}")
    run(place, "run", "flow.py", "in.jsonl", "--workers", 0)
    done = run(place, *command, shell=streams)
    if streams == ">/dev/full":
        assert (done.returncode, done.stderr.count(b"\n")) == (3, 1), done.stderr
        assert done.stderr == b"yelpaze: standard output: cannot be written: No space left on device\n"
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_not_some_items_failed(place):
    place.flow(f"flow = Flow('f')\n{LAST}")
    script = 'set -o pipefail; "$@" | true'
    command = ["bash", "-c", script, "bash", *YELPAZE, "check", "flow.py"]
    for _ in range(5):  # `true` may end later than the command
        done = subprocess.run(command, cwd=place.path, env=place.env, capture_output=True, timeout=60)
        assert done.returncode in (0, 3), done.stderr
        assert b"Traceback" not in done.stderr


def test_closed_standard_input_is_no_empty_input(place):
    place.flow(f"flow = Flow('f')\n{LAST}")
    done = run(place, "run", "flow.py", "-", shell="<&-")
    assert done.returncode == 2
    assert b"standard input: cannot be read: Bad file descriptor" in done.stderr


def test_fetch_without_streams(place):
    done = run(place, "fetch", place.service.url, "-o", "x", shell="<&- >&- 2>&-")
    assert done.returncode == 0
    assert json.loads((place.path / "x").read_text()) == {"k": 1}
    done = run(place, "fetch", place.service.url, shell=">&-")
    assert (done.returncode, done.stderr) == (
        2,
        b"yelpaze: stdout is closed: open it, or redirect it to a file\n",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_gets_the_number_of_a_closed_stream(place):
    place.rows(1)
    place.flow("""
        import os
        flow = Flow("f")
        @flow.request
        def call(row): return get(URL)
        @flow.compute
        def out(call): return [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
    """)
    done = run(place, "run", "flow.py", "in.jsonl", "-o", "out.jsonl", "--workers", 0, shell="<&- >&- 2>&-")
    assert done.returncode == 0
    assert place.lines("out.jsonl")[0]["result"] == [os.devnull] * 3


# ── messages ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the answer of 'call' is not JSON: it is empty"),
        (b" \n", "the answer of 'call' is not JSON: it is empty"),
        (b'{"a":', "the answer of 'call' is not JSON: Input data was truncated"),
        (b'"\\ud83d"', "the answer of 'call' is not JSON: it holds half of a surrogate pair"),
        (b"[NaN]", "the answer of 'call' is not JSON: JSON is malformed"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_body_that_is_no_json_is_named_for_what_it_is(place, body, said, many):
    place.service.answer = lambda call: body if call.path == "/bad" else b"1"
    place.rows(1)
    place.flow(f"""
        flow = Flow("f")
        @flow.request
        def call(row): return [get(URL), get(URL + "/bad")] if {many} else get(URL + "/bad")
        @flow.compute
        def out(call: {"list" if many else "object"}): return 1
    """)
    assert run(place, "run", "flow.py", "in.jsonl", "--workers", 0).returncode == 1
    assert place.lines("in.results.failures.jsonl")[0]["error"]["message"].startswith(said)


def test_a_row_with_half_a_surrogate_pair_is_named_for_what_it_is(place):
    (place.path / "in.jsonl").write_text('{"a":"\\ud83d"}\n')
    place.flow("flow = Flow('f')\n@flow.compute\ndef out(row: dict): return 1\n")
    assert run(place, "run", "flow.py", "in.jsonl", "--workers", 0).returncode == 1
    (letter,) = place.lines("in.results.failures.jsonl")
    assert letter["error"]["message"].startswith("the row is not JSON: it holds half of a surrogate pair")
