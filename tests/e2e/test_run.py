"""`yelpaze run` as a user meets it: processes, files, signals, exit codes."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.demo import flow_file, lines, start_demo, stop
from support.service import YELPAZE
from support.waiting import until

ROOT = Path(__file__).parents[2]
OFFERS = ROOT / "examples" / "offers" / "flow.py"


def yelpaze(*arguments, cwd, before=(), **options):
    return subprocess.run(
        [*before, *YELPAZE, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


SHOP_FLAGS = (
    "--error-rate",
    "0.01",
)


def write_rows(path: Path, shop: str, count: int) -> Path:
    rows = ({"url": f"{shop}/products/home", "json": {"customer": n}} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ECHO = """
flow = Flow("echo")

@flow.compute
def same(row):
    return row
"""


def test_offers_end_to_end(shop, tmp_path):
    write_rows(tmp_path / "rows.jsonl", shop, 500)
    done = yelpaze(
        "run",
        OFFERS,
        "rows.jsonl",
        "--json",
        "--workers",
        2,
        cwd=tmp_path,
        env={**os.environ, "SHOP": shop},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["rows"] == summary["succeeded"] == 500
    assert summary["requests"] == 2000
    assert summary["retries"] > 0
    assert summary["failed"] == 0
    assert summary["peak_rss_mb"] > 10
    assert set(summary["latency_ms"]) == {"p50", "p95", "p99"}
    assert {"seconds", "rows_per_second"} <= set(summary)
    results = lines(tmp_path / "rows.results.jsonl")
    assert sorted(line["row"] for line in results) == list(range(1, 501))
    assert results[0]["result"]["total_cents"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rows.jsonl",
        "rows.results.jsonl",
        "rows.results.jsonl.journal",
    ]
    assert "done: 500 rows" in done.stderr


def test_the_same_rows_give_the_same_results_and_faults(tmp_path):
    # Not resets: libcurl itself repeats an idempotent request on a kept connection that died.
    process, shop = start_demo("--error-rate", "0.02", "--faults", "500,503")
    write_rows(tmp_path / "rows.jsonl", shop, 200)
    seen = []
    for workers in (0, 1):
        done = yelpaze(
            "run", OFFERS, "rows.jsonl", "--json", "--workers", workers, "-o", f"{workers}.jsonl",
            cwd=tmp_path, env={**os.environ, "SHOP": shop},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = sorted(lines(tmp_path / f"{workers}.jsonl"), key=lambda line: line["row"])
        seen.append((results, json.loads(done.stdout)["retries"]))
    stop(process)
    assert seen[0] == seen[1]
    assert seen[0][1] > 0


def test_bad_rows_are_recorded_and_the_run_goes_on(shop, tmp_path):
    good = json.dumps({"url": f"{shop}/products/home", "json": {}})
    bad = [
        "not json",
        '{"url": 17, "json": {}}',
        '{"json": {}}',
        '{"url": "", "json": {}}',
        '{"url": "file:///etc/passwd", "json": {}}',
        '{"url": "http://a.test/\\r\\nX: y", "json": {}}',
        '{"url": "http://[::1", "json": {}}',
        json.dumps({"url": f"{shop}/nowhere", "json": {}}),
    ]
    (tmp_path / "rows.jsonl").write_bytes(
        b"\xef\xbb\xbf" + "\n".join([good, "", *bad, good]).encode() + b"\n\xff\xfe\n" + good.encode()
    )
    done = yelpaze("run", OFFERS, "rows.jsonl", "--json", cwd=tmp_path, env={**os.environ, "SHOP": shop})
    assert done.returncode == 1, done.stderr
    assert {line["row"] for line in lines(tmp_path / "rows.results.jsonl")} == {1, 11, 13}
    failures = {line["row"]: line for line in lines(tmp_path / "rows.results.failures.jsonl")}
    assert [failures[n]["error"]["kind"] for n in range(3, 11)] == [
        "input", "input", "input", "misuse", "misuse", "misuse", "misuse", "status",
    ]  # fmt: skip
    assert failures[12]["error"]["kind"] == "input"
    assert failures[3]["input"] == "not json"
    assert failures[3]["step"] is None
    assert "`$.url`" in failures[4]["error"]["message"]
    assert failures[10]["step"] == "base"
    assert failures[10]["error"]["status"] == 404
    assert failures[10]["attempts"][0]["status"] == 404
    assert failures[10]["input"]["url"].endswith("/nowhere")
    assert len(failures[10]["trace_id"]) == 32
    assert json.loads(done.stdout)["failures"]["misuse"] == 4
    # A clean run over the same output keeps the old failures beside.
    (tmp_path / "rows.jsonl").write_text(good)
    env = {**os.environ, "SHOP": shop}
    assert yelpaze("run", OFFERS, "rows.jsonl", "--restart", cwd=tmp_path, env=env).returncode == 0
    assert not (tmp_path / "rows.results.failures.jsonl").exists()
    assert len(lines(tmp_path / "rows.results.failures.1.jsonl")) == 9


def test_failures_of_user_code_have_a_traceback_and_bad_results_a_reason(tmp_path):
    flow_file(
        tmp_path,
        """
        flow = Flow("picky")

        @flow.compute
        def check(row: dict):
            print("seen", row["n"])
            if row["n"] == 1:
                raise LookupError("not this one")
            return object() if row["n"] == 2 else row["n"]
        """,
    )
    (tmp_path / "in.jsonl").write_text('{"n": 0}\n{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    for workers in (0, 1):
        done = yelpaze("run", "flow.py", "in.jsonl", "--workers", workers, "-o", "-", cwd=tmp_path)
        assert done.returncode == 1
        assert sorted(done.stdout.splitlines()) == ['{"row":1,"result":0}', '{"row":4,"result":3}']
        assert "seen 3" in done.stderr
        raised, unwritable = lines(tmp_path / "in.failures.jsonl")
        assert raised["error"]["kind"] == "exception"
        assert "LookupError: not this one" in raised["error"]["traceback"]
        assert "flow.py" in raised["error"]["traceback"]
        assert unwritable["error"]["kind"] == "result"


def test_empty_input_limit_stdin_and_quiet(tmp_path):
    flow_file(tmp_path, ECHO)
    (tmp_path / "empty.jsonl").write_text("")
    done = yelpaze("run", "flow.py", "empty.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] == 0
    assert (tmp_path / "empty.results.jsonl").read_text() == ""
    done = yelpaze("run", "flow.py", "-", "-o", "-", "-q", "--limit", 2, cwd=tmp_path, input="1\n2\n3\n")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ['{"row":1,"result":1}', '{"row":2,"result":2}']
    assert done.stderr == ""
    done = yelpaze("run", "flow.py", "-", cwd=tmp_path, input="1\n")
    assert done.returncode == 0
    assert (tmp_path / "stdin.results.jsonl").read_text() == '{"row":1,"result":1}\n'
    done = yelpaze("run", "flow.py", "empty.jsonl", "--limit", 0, cwd=tmp_path)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({}, ["none.py", "in.jsonl"], "none.py: there is no such file"),
        ({}, ["in.jsonl", "in.jsonl"], "a flow is a Python file"),
        ({"flow.py": ECHO}, ["flow.py", "none.jsonl"], "none.jsonl: there is no such file"),
        ({"flow.py": ECHO}, ["flow.py", "."], "is a folder"),
        ({"flow.py": "def broken(:\n"}, ["flow.py", "in.jsonl"], "flow.py:2: syntax error"),
        ({"flow.py": "\nimport nowhere\n"}, ["flow.py", "in.jsonl"], "flow.py:3: cannot be imported"),
        ({"flow.py": "x = 1"}, ["flow.py", "in.jsonl"], "no flow in it"),
        ({"flow.py": ECHO + "\ntwo = Flow('two')"}, ["flow.py", "in.jsonl"], "several flows: name one"),
        ({"flow.py": ECHO}, ["flow.py:other", "in.jsonl"], "no flow 'other'; flows are: flow"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "-o", "no/out.jsonl"], "the folder no does not exist"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "-o", "."], "is a folder"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "-o", "flow.py"], "is the flow itself"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "-o", "in.jsonl"], "is the input itself"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "--json", "-o", "-"], "both want stdout"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "--concurrency", "0"], "--concurrency"),
        ({"flow.py": ECHO}, ["flow.py", "in.jsonl", "-o", "/proc/out.jsonl"], "/proc/out.jsonl: cannot be written"),
        (
            {"flow.py": "flow = Flow('f')\n@flow.request\ndef a(b): ...\n@flow.request\ndef b(a): ...\n"},
            ["flow.py", "in.jsonl"],
            "in a circle: a → b → a",
        ),
        (
            {"flow.py": "flow = Flow('f')\n@flow.request\ndef a(rwo): ...\n"},
            ["flow.py", "in.jsonl"],
            "flow.py:3: step 'a' needs 'rwo'",
        ),
        ({"flow.py": ECHO.replace("Flow(", "Flow(engine={'concurency': 1}, name=")}, ["flow.py", "in.jsonl"], "concurency"),
    ],
)  # fmt: skip
def test_misuse_is_one_clear_message_and_exit_2(tmp_path, files, arguments, said):
    (tmp_path / "in.jsonl").write_text("1\n")
    for name, body in files.items():
        flow_file(tmp_path, body, name)
    done = yelpaze("run", *arguments, cwd=tmp_path)
    assert said in done.stderr
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "in.jsonl").read_text() == "1\n"


def test_a_named_flow_of_several(tmp_path):
    flow_file(tmp_path, ECHO + "\ntwo = Flow('two')")
    (tmp_path / "in.jsonl").write_text("1\n")
    assert yelpaze("run", "flow.py:flow", "in.jsonl", cwd=tmp_path).returncode == 0


def test_a_body_above_the_cap_fails_its_row(shop, tmp_path):
    flow_file(
        tmp_path,
        f"""
        flow = Flow("small", engine={{"max_body": 20}})

        @flow.request
        def only(row):
            return get("{shop}/ping")
        """,
    )
    (tmp_path / "in.jsonl").write_text("1\n")
    assert yelpaze("run", "flow.py", "in.jsonl", cwd=tmp_path).returncode == 1
    assert lines(tmp_path / "in.results.failures.jsonl")[0]["error"]["kind"] == "too_large"


def test_a_crashing_step_costs_its_row_only(tmp_path):
    flow_file(
        tmp_path,
        """
        import os, time
        flow = Flow("crash")

        @flow.compute(timeout=2)
        def risky(row):
            if row == 50:
                os.abort()
            while row == 60:
                time.sleep(0.01)
            return row
        """,
    )
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(1, 101)))
    done = yelpaze("run", "flow.py", "in.jsonl", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 1
    failures = {line["row"]: line["error"] for line in lines(tmp_path / "in.results.failures.jsonl")}
    assert {row: error["kind"] for row, error in failures.items()} == {
        50: "crashed",
        60: "timeout.compute",
    }
    assert "SIGABRT" in failures[50]["message"]
    assert len(lines(tmp_path / "in.results.jsonl")) == 98


def test_disk_full_stops_with_whole_lines_and_exit_3(tmp_path):
    flow_file(tmp_path, ECHO)
    (tmp_path / "in.jsonl").write_text("".join(f'"{n:0>100}"\n' for n in range(5000)))

    # Python ignores SIGXFSZ, so a write past the limit gives EFBIG. The shell sets the limit, in blocks of
    # 512 bytes: a `preexec_fn` would fork this process, which has threads of gRPC's.
    limited = ["sh", "-c", 'ulimit -f 196; exec "$@"', "sh"]
    done = yelpaze("run", "flow.py", "in.jsonl", "--workers", 0, cwd=tmp_path, before=limited)
    assert done.returncode == 3, done.stderr
    assert "in.results.jsonl: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "in.results.jsonl").read_bytes().rpartition(b"\n")[2]
    again = yelpaze("run", "flow.py", "in.jsonl", "--workers", 0, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert sorted(line["row"] for line in lines(tmp_path / "in.results.jsonl")) == list(range(1, 5001))


SLOW = """
import os, time
flow = Flow("slow")

@flow.compute
def slow(row):
    time.sleep(0.02)
    return row
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly(tmp_path, workers, number):
    flow_file(tmp_path, SLOW)
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(100_000)))
    process = subprocess.Popen(
        [*YELPAZE, "run", "flow.py", "in.jsonl", "--workers", str(workers)],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    output = tmp_path / "in.results.jsonl"
    until(lambda: output.exists() and output.stat().st_size)
    os.killpg(process.pid, number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    rows = [line["row"] for line in lines(output)]
    assert len(rows) == len(set(rows)) > 0


def test_ctrl_c_while_stdin_is_silent(tmp_path):
    flow_file(tmp_path, ECHO)
    process = subprocess.Popen(
        [*YELPAZE, "run", "flow.py", "-", "-o", "-"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdin.write("1\n")
    process.stdin.flush()
    assert select.select([process.stdout], [], [], 60)[0], "a row on stdin is answered while stdin is open"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130  # stdin is still open
    stdout, _ = process.communicate(timeout=60)
    assert stdout == '{"row":1,"result":1}\n'


def test_the_failures_of_a_run_can_be_its_next_input_but_not_its_victim(tmp_path):
    flow_file(tmp_path, ECHO)
    (tmp_path / "x.failures.jsonl").write_text("1\n")
    done = yelpaze("run", "flow.py", "x.failures.jsonl", "-o", "x.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "is the input itself" in done.stderr
    assert (tmp_path / "x.failures.jsonl").read_text() == "1\n"
    assert yelpaze("run", "flow.py", "x.failures.jsonl", cwd=tmp_path).returncode == 0


def test_a_full_or_unusual_output(tmp_path):
    flow_file(tmp_path, ECHO)
    (tmp_path / "in.jsonl").write_text("1\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*YELPAZE, "run", "flow.py", "in.jsonl", "-o", "-"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert yelpaze("run", "flow.py", "in.jsonl", "-o", "/dev/null", cwd=tmp_path).returncode == 0


def test_a_message_that_utf8_cannot_carry_is_recorded_all_the_same(tmp_path):
    flow_file(
        tmp_path,
        """
        flow = Flow("odd")

        @flow.compute
        def odd(row):
            raise ValueError(b"caf\\xe9".decode("utf-8", "surrogateescape"))
        """,
    )
    (tmp_path / "in.jsonl").write_text("1\n")
    for workers in (0, 1):
        done = yelpaze("run", "flow.py", "in.jsonl", "--workers", workers, "--restart", cwd=tmp_path)
        assert done.returncode == 1
        assert "caf" in lines(tmp_path / "in.results.failures.jsonl")[0]["error"]["message"]


def test_killing_the_run_leaves_no_worker(tmp_path):
    flow_file(
        tmp_path,
        SLOW.replace("time.sleep(0.02)", "open('pid', 'w').write(str(os.getpid())); time.sleep(60)"),
    )
    (tmp_path / "in.jsonl").write_text("1\n")
    process = subprocess.Popen([*YELPAZE, "run", "flow.py", "in.jsonl", "--workers", "1", "-q"], cwd=tmp_path)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    until(gone)
    assert gone()


def test_plain_lines_on_a_pipe_and_a_bar_on_a_terminal(tmp_path):
    pexpect = pytest.importorskip("pexpect")
    flow_file(tmp_path, SLOW)
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(30)))
    done = yelpaze("run", "flow.py", "in.jsonl", "--workers", 0, cwd=tmp_path)
    assert "\x1b" not in done.stderr
    child = pexpect.spawn(
        sys.executable, ["-m", "yelpaze.cli.main", "run", "flow.py", "in.jsonl", "--workers", "0", "--restart"],
        cwd=str(tmp_path), encoding="utf-8", dimensions=(24, 110),
    )  # fmt: skip
    child.expect("rows/s")
    child.expect("done: 30 rows")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path):
    flow_file(tmp_path, ECHO)
    (tmp_path / "in.jsonl").write_text("".join(f'"{n:0>200}"\n' for n in range(20_000)))
    command = " ".join([*YELPAZE, "run", "flow.py", "in.jsonl", "-o", "-", "--workers", "0"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_help_and_version(tmp_path):
    assert "yelpaze, version" in yelpaze("--version", cwd=tmp_path).stdout
    commands = ["", "run", "retry", "runs", "runs show", "check", "graph", "demo", "demo serve", "bench"]
    for command in map(str.split, commands):
        done = yelpaze(*command, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert "Usage:" in done.stdout
    done = yelpaze("wroker", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no command 'wroker': did you mean worker?" in done.stderr
    done = subprocess.run([sys.executable, "-m", "yelpaze", "--version"], capture_output=True, text=True)
    assert "yelpaze, version" in done.stdout
    assert yelpaze("demo", "serve", "--listen", "nowhere", cwd=tmp_path).returncode == 2
    assert yelpaze("demo", "serve", "--faults", "odd", cwd=tmp_path).returncode == 2
