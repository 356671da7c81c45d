"""`yelpaze fetch` as people call it, against nginx and servers that misbehave."""

import base64
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pexpect
import pytest

from support.demo import lines
from support.needed import absent
from support.service import YELPAZE
from support.waiting import until


class Echo(http.server.BaseHTTPRequestHandler):
    """Says what it was asked; a path tells it how to behave."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[Counter] = Counter()

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        Echo.seen[self.path] += 1
        status, extra = 200, []
        answer = json.dumps(
            {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        ).encode()
        if self.path.startswith("/status/"):
            status = int(self.path.split("/")[2])
        elif self.path.startswith("/once/") and Echo.seen[self.path] == 1:
            status = 503
        elif self.path.startswith("/redirect"):
            status, extra = 302, [("Location", "/target")]
        elif self.path == "/empty":
            answer = b""
        elif self.path == "/binary":
            answer = b"\0\1\2"
        elif self.path == "/half":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 500_000)
            Echo.seen["half sent"] += 1
            time.sleep(20)
            return
        elif self.path.startswith("/slow"):
            time.sleep(float(self.path.split("/")[2]))
        self.send_response(status)
        for name, value in extra:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(answer)
            except ConnectionError:
                self.close_connection = True

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815  the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def echo():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(*arguments, cwd, stdin=None, **options):
    return subprocess.run(
        [*YELPAZE, "fetch", *map(str, arguments)], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


@pytest.fixture
def refusing():
    """Where nobody listens; the port stays ours meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/"


# ── one URL, as curl ────────────────────────────────────────────────────────────────


def test_one_url_goes_to_stdout_and_nothing_else_is_said(echo, tmp_path):
    done = fetch(f"{echo}/x", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["path"] == "/x"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-X", "DELETE"], {"method": "DELETE"}),
        (["-d", "a=1", "-d", "b=2"], {"method": "POST", "body": "a=1&b=2", "Content-Type": "application/x-www-form-urlencoded"}),
        (["--data-urlencode", "q=a b&c"], {"method": "POST", "body": "q=a+b%26c"}),
        (["--data-urlencode", "@body.txt"], {"body": "one%0Atwo%0A"}),
        (["--data-urlencode", "n@body.txt"], {"body": "n=one%0Atwo%0A"}),
        (["-b", "a=1", "-b", "b=2"], {"Cookie": "a=1; b=2"}),
        (["-d", "@body.txt"], {"body": "onetwo"}),
        (["--data-binary", "@body.txt"], {"body": "one\ntwo\n"}),
        (["--data-raw", "@body.txt"], {"body": "@body.txt"}),
        (["-G", "-d", "a=1"], {"method": "GET", "path": "/x?a=1"}),
        (["--json", '{"a":1}'], {"method": "POST", "body": '{"a":1}', "Content-Type": "application/json", "Accept": "application/json"}),
        (["-H", "X-One: 1", "-H", "@headers.txt"], {"X-One": "1", "X-Two": "2", "X-Three": "3"}),
        (["-H", "X-Empty;"], {"X-Empty": ""}),
        (["-A", "me/1"], {"User-Agent": "me/1"}),
        (["-u", "me:secret"], {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}),
        (["-e", "http://from/", "-b", "a=b"], {"Referer": "http://from/", "Cookie": "a=b"}),
        (["--compressed"], {"Accept-Encoding": None}),
        (["-X", "PUT", "-d", "z"], {"method": "PUT", "body": "z"}),
    ],
)  # fmt: skip
def test_flags_mean_what_they_mean_in_curl(echo, tmp_path, flags, expected):
    (tmp_path / "body.txt").write_text("one\ntwo\n")
    (tmp_path / "headers.txt").write_text("X-Two: 2\n\nX-Three: 3\n")
    done = fetch(f"{echo}/x", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for name, value in expected.items():
        found = said.get(name, said["headers"].get(name))
        assert (found == value) if value is not None else found, name


def test_curl_itself_sends_the_same(echo, tmp_path):
    """Debian's curl as the judge, for what both can say."""
    if shutil.which("curl") is None:
        absent("curl")
    flags = ["-d", "a=1", "-H", "X-A: b", "-u", "me:secret", "-e", "http://from/"]
    ours = json.loads(fetch(f"{echo}/x", *flags, cwd=tmp_path).stdout)
    theirs = json.loads(
        subprocess.run(["curl", "-s", f"{echo}/x", *flags], capture_output=True, check=True).stdout
    )
    for said in (ours, theirs):
        for name in ("User-Agent", "traceparent", "Host", "Accept"):
            said["headers"].pop(name, None)
    assert ours == theirs


def test_headers_redirects_and_statuses(echo, tmp_path):
    assert fetch(f"{echo}/x", "-i", cwd=tmp_path).stdout.startswith("HTTP/1.1 200 OK")
    only = fetch(f"{echo}/x", "-I", cwd=tmp_path).stdout
    assert only.startswith("HTTP/1.1 200 OK")
    assert "{" not in only
    assert json.loads(fetch(f"{echo}/redirect", cwd=tmp_path).stdout)["path"] == "/redirect"
    assert json.loads(fetch(f"{echo}/redirect", "-L", cwd=tmp_path).stdout)["path"] == "/target"
    plain = fetch(f"{echo}/status/404", cwd=tmp_path)
    assert (plain.returncode, json.loads(plain.stdout)["path"]) == (0, "/status/404")
    failing = fetch(f"{echo}/status/404", "-f", cwd=tmp_path)
    assert (failing.returncode, failing.stdout) == (1, "")
    assert "404" in failing.stderr
    silent = fetch(f"{echo}/status/404", "-fs", cwd=tmp_path)
    assert (silent.returncode, silent.stderr) == (1, "")
    assert "404" in fetch(f"{echo}/status/404", "-fsS", cwd=tmp_path).stderr


def test_retries(echo, tmp_path):
    assert fetch(f"{echo}/once/a", "-f", cwd=tmp_path).returncode == 0
    assert fetch(f"{echo}/once/b", "-f", "--retry", "0", cwd=tmp_path).returncode == 1
    before = Echo.seen["/status/503"]
    fetch(f"{echo}/status/503", "-f", "--retry", "4", cwd=tmp_path)
    assert Echo.seen["/status/503"] - before == 5
    before = Echo.seen["/status/500"]
    fetch(f"{echo}/status/500", "-f", "--retry", "50", "--retry-max-time", "2", cwd=tmp_path)
    assert 1 < Echo.seen["/status/500"] - before < 30


def test_verbose_hides_secrets(echo, tmp_path):
    done = fetch(f"{echo}/x", "-v", "-u", "me:secret", "-H", "X-A: 1", cwd=tmp_path)
    assert "> GET" in done.stderr
    assert "> X-A: 1" in done.stderr
    assert "< HTTP/1.1 200" in done.stderr
    assert "secret" not in done.stderr
    assert base64.b64encode(b"me:secret").decode() not in done.stderr


def test_time_limits(echo, tmp_path):
    done = fetch(f"{echo}/slow/5", "-m", "0.3", "--retry", "0", cwd=tmp_path)
    assert (done.returncode, "timeout.attempt" in done.stderr) == (1, True)
    done = fetch(f"{echo}/slow/5", "--deadline", "0.3", cwd=tmp_path)
    assert (done.returncode, "timeout.deadline" in done.stderr) == (1, True)


def test_binary_stays_off_the_terminal(echo, tmp_path):
    child = pexpect.spawn(
        YELPAZE[0], [*YELPAZE[1:], "fetch", f"{echo}/binary"], cwd=str(tmp_path), timeout=60
    )
    child.expect("would garble the terminal")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2


# ── many ────────────────────────────────────────────────────────────────────────────


def test_many_urls_and_a_table(echo, refusing, tmp_path):
    done = fetch(
        f"{echo}/{{a,empty,status/404}}",
        refusing,
        "-o",
        "out/{n}",
        "--retry",
        "0",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1", "2", "3"]
    assert (tmp_path / "out/2").read_bytes() == b""
    rows = done.stderr.splitlines()
    assert rows[1].startswith("connect")  # failures first
    assert "(empty)" in done.stderr
    assert "4 URLs" in done.stderr
    assert "3 succeeded, 1 failed" in done.stderr
    assert "--fail makes that a failure" in done.stderr


def test_bodies_do_not_mix_on_stdout(echo, tmp_path):
    done = fetch(f"{echo}/[1-200]", "-s", cwd=tmp_path)
    assert done.returncode == 0
    bodies = done.stdout.replace("}{", "}\n{").splitlines()
    assert sorted(int(json.loads(body)["path"][1:]) for body in bodies) == list(range(1, 201))


def test_lines_of_a_file(echo, tmp_path):
    (tmp_path / "urls").write_text(
        f'{echo}/a\n\n# a comment\nnot a url\n{{"url":"{echo}/b","method":"PUT","output":"b.json"}}\n'
        f'{{"url":"{echo}/c","output":"../out.json"}}\n'
    )
    done = fetch("--input", "urls", "-o", "{name}", "--outcomes", "o.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    outcomes = {record["n"]: record for record in lines(tmp_path / "o.jsonl")}
    assert set(outcomes) == {1, 4, 5, 6}
    assert [outcomes[n]["ok"] for n in (1, 4, 5, 6)] == [True, False, True, False]
    assert outcomes[4]["error"]["kind"] == "input"
    assert json.loads((tmp_path / "b.json").read_text())["method"] == "PUT"
    assert outcomes[5]["path"] == "b.json"
    assert not (tmp_path.parent / "out.json").exists()


def test_stdin_feeds_while_it_comes(echo, tmp_path):
    process = subprocess.Popen(
        [*YELPAZE, "fetch", "--input", "-", "-o", "{name}", "-s"], cwd=tmp_path, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(f"{echo}/first\n".encode())
    process.stdin.flush()
    until((tmp_path / "first").exists)  # though stdin is still open
    process.stdin.write(f"{echo}/second".encode())
    process.stdin.close()
    assert process.wait(60) == 0
    assert (tmp_path / "second").exists()


def test_nothing_is_replaced_without_clobber(echo, tmp_path):
    (tmp_path / "x").write_text("mine")
    done = fetch(f"{echo}/x", "-O", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "x").read_text()) == (1, "mine")
    assert "--clobber" in done.stderr
    assert fetch(f"{echo}/x", "-O", "--clobber", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "x").read_text())["path"] == "/x"
    two = fetch(f"{echo}/[1-2]", "-o", "same", cwd=tmp_path)
    assert two.returncode == 1
    assert "another URL" in two.stderr or "exists" in two.stderr


def test_resume_skips_what_was_completed(echo, tmp_path):
    first = fetch(f"{echo}/r[1-5]", "-o", "#1", "--outcomes", "o.jsonl", cwd=tmp_path)
    assert first.returncode == 0
    (tmp_path / "3").unlink()
    with (tmp_path / "o.jsonl").open("a") as file:
        file.write('{"n":9,"url":"torn')
    seen = Counter(Echo.seen)
    done = fetch(f"{echo}/r[1-6]", "-o", "#1", "--outcomes", "o.jsonl", "--resume", cwd=tmp_path)
    assert done.returncode == 0
    assert {path for path, count in (Echo.seen - seen).items() if count} == {"/r3", "/r6"}
    assert "4 skipped" in done.stderr
    assert len(lines(tmp_path / "o.jsonl")) == 7
    by_files = fetch(f"{echo}/r[1-7]", "-o", "#1", "--resume", cwd=tmp_path)
    assert "6 skipped" in by_files.stderr
    refused = fetch(f"{echo}/r[1-6]", "--outcomes", "o.jsonl", cwd=tmp_path)
    assert (refused.returncode, "--resume goes on" in refused.stderr) == (2, True)


def test_a_large_file_is_whole_or_absent(echo, tmp_path):
    process = subprocess.Popen([*YELPAZE, "fetch", "-s", f"{echo}/half", "-o", "big"], cwd=tmp_path)
    until(lambda: Echo.seen["half sent"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "big").exists()
    if hasattr(os, "O_TMPFILE"):
        assert list(tmp_path.iterdir()) == []  # nor anything half done


def test_ctrl_c_keeps_what_is_done(echo, tmp_path):
    process = subprocess.Popen(
        [*YELPAZE, "fetch", f"{echo}/quick", f"{echo}/slow/90", "-o", "{name}", "--outcomes", "o.jsonl"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((tmp_path / "quick").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "interrupted" in process.communicate()[1]
    assert [record["url"] for record in lines(tmp_path / "o.jsonl")] == [f"{echo}/quick"]


def test_a_rate_spreads_the_starts(echo, tmp_path):
    began = time.monotonic()
    assert fetch(f"{echo}/[1-11]", "-s", "--rate", "20/s", cwd=tmp_path).returncode == 0
    assert time.monotonic() - began >= 0.45


def test_explain_prints_and_calls_nobody(tmp_path):
    done = fetch(
        "http://api.test/[1-50]", "http://other.test:81/", "--explain", "--retry", "4", "--host-rate", "5/s",
        "--host-policy", "api.test:rate=100/s,concurrency=auto,breaker=off,share=0.1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert "http://api.test:80  (by 'api.test', 10% of the requests)" in done.stdout
    assert "100/s with a burst of 1" in done.stdout
    assert "http://other.test:81  (the default)" in done.stdout
    assert "5 attempts" in done.stdout


def test_metrics_and_log(echo, tmp_path):
    process = subprocess.Popen(
        [*YELPAZE, "fetch", f"{echo}/m[1-20]", f"{echo}/status/500", f"{echo}/slow/90", "-s", "--retry", "0", "-f",
         "--metrics", "0", "--log", "log.jsonl"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    url = re.fullmatch(r"yelpaze: metrics at (\S+)\n", process.stderr.readline())[1]
    page = ""

    def is_all_told() -> bool:
        nonlocal page
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        return all(part in page for part in parts) and bool(lines(tmp_path / "log.jsonl"))

    parts = (
        f'yelpaze_http_requests_total{{host="{echo}"}} 22.0',
        f'yelpaze_http_responses_total{{host="{echo}",status="200"}} 20.0',
        f'yelpaze_http_in_flight{{host="{echo}"}} 1.0',
    )
    try:
        until(is_all_told)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "yelpaze_http_attempt_duration_seconds_bucket" in page
    events = {record["event"]: record for record in lines(tmp_path / "log.jsonl")}
    assert events["call.failed"]["status"] == 500
    assert len(events["call.failed"]["trace_id"]) == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give URLs, or --input"),
        (["http://a/", "--input", "x"], "not both"),
        (["http://a/[1-"], "bad glob"),
        (["http://a/{a"], "bad glob"),
        (["http://a/", "-o", "../x", "--output-dir", "d"], "outside"),
        (["http://a/", "-o", "x", "-o", "y"], "2 outputs"),
        (["http://a/", "--rate", "0"], "above 0"),
        (["http://a/", "--rate", "fast"], "not a rate: 'fast'"),
        (["http://a/", "--host-rate", "5/fortnight"], "not a rate"),
        (["http://a/", "-m", "-1"], "above 0"),
        (["http://a/", "-m", "soon"], "no number of seconds"),
        (["http://a/", "--connect-timeout", "0"], "above 0"),
        (["http://a/", "--retry", "-1"], "-1"),
        (["http://a/", "--parallel-max", "0"], "0"),
        (["http://a/", "--per-host", "many"], "nor auto"),
        (["http://a/", "--host-policy", "a.test"], "HOST:KEY=VALUE"),
        (["http://a/", "--host-policy", "a.test:speed=9"], "'speed=9' is no setting"),
        (["http://a/", "--host-policy", "a.test:rate=fast"], "not a rate"),
        (["http://a/", "--host-policy", "a.test:breaker=maybe"], "on or off"),
        (["http://a/", "-H", "nonsense"], "Name: value"),
        (["http://a/", "-H", "@absent"], "cannot be read"),
        (["http://a/", "-d", "@absent"], "cannot be read"),
        (["http://a/", "--cacert", "absent"], "cannot be read"),
        (["http://a/", "-E", "absent"], "cannot be read"),
        (["http://a/", "--input", "absent"], "not both"),
        (["--input", "absent"], "no such file"),
        (["--input", "."], "is a folder"),
        (["http://a/", "--resume"], "--outcomes of a former call"),
        (["http://a/", "--metrics", "x"], "--metrics takes PORT"),
        (["http://a/", "--outcomes", "no/such/folder/o"], "cannot be written"),
        (["http://a/", "--loud"], "--loud"),
        (["http://a/", "-X", "A B"], "not a method"),
        (["http://a/", "-I", "-d", "a=1"], "HEAD"),
        (["http://a/", "-x", "ftp://proxy"], "proxy takes"),
        (["http://a/", "-b", "jar.txt"], "cookie files"),
        (["http://a/", "--json", "{}", "-d", "a=1"], "not both"),
        (["http://a/", "-u", "nobody"], "USER:PASSWORD"),
        (["--input", "-", "-d", "@-"], "--input - and @- both read standard input"),
        (["--input", "-", "--data-urlencode", "name@-"], "--input - and name@- both read standard input"),
        (["http://a/", "-H", "@-", "--data-binary", "@-"], "several options read standard input"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_clear_message(arguments, message, tmp_path):
    done = fetch(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_file_fails_that_url_alone(echo, tmp_path):
    (tmp_path / "file").write_text("")
    done = fetch(f"{echo}/a", f"{echo}/b", "-o", "file/x", "-o", "ok", cwd=tmp_path)
    assert done.returncode == 1
    assert "output: file/x" in done.stderr
    assert (tmp_path / "ok").exists()


def test_a_pattern_that_matches_nothing_is_a_warning(echo, tmp_path):
    done = fetch(f"{echo}/x", "--host-policy", "nobody.test:retries=1", cwd=tmp_path)
    assert done.returncode == 0
    assert "'nobody.test' matched no host" in done.stderr


def test_closed_stdout_is_not_a_traceback(echo, tmp_path):
    done = subprocess.run(
        f"{' '.join(YELPAZE)} fetch '{echo}/[1-500]' -s | head -c 10", shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert len(done.stdout) == 10
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_hundred_thousand_urls_in_bounded_memory(nginx, tmp_path):
    """Peak memory with 100,000 URLs from stdin is that with 10,000, and a little."""

    def peak(count: int) -> int:
        script = (
            "import sys; from pathlib import Path; from yelpaze.cli.main import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit: print(Path('/proc/self/status').read_text(), file=sys.stderr)"
        )
        url = nginx.url("plain")
        urls = "".join(f"{url}?{number}\n" for number in range(count))
        done = subprocess.run(
            [YELPAZE[0], "-c", script, "fetch", "--input", "-", "-s"], input=urls, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return int(done.stderr.partition("VmHWM:")[2].split()[0])  # kB

    if not os.path.exists("/proc/self/status"):
        pytest.skip("peak memory is read from /proc")
    small, large = peak(10_000), peak(100_000)
    assert large < small + 8_000


def test_a_request_is_known_again_by_all_that_makes_it(echo, tmp_path):
    first = ["-d", "a=1", f"{echo}/p", "--outcomes", "o.jsonl"]
    assert json.loads(fetch(*first, cwd=tmp_path).stdout)["body"] == "a=1"
    again = fetch(*first, "--resume", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "")
    other = fetch("-d", "a=2", f"{echo}/p", "--outcomes", "o.jsonl", "--resume", cwd=tmp_path)
    assert json.loads(other.stdout)["body"] == "a=2"
    bodies = "".join(f'{{"url":"{echo}/p","json":{n},"output":"{n}"}}\n' for n in range(3))
    assert fetch("--input", "-", "--outcomes", "j.jsonl", cwd=tmp_path, stdin=bodies).returncode == 0
    (tmp_path / "1").unlink()
    done = fetch("--input", "-", "--outcomes", "j.jsonl", "--resume", cwd=tmp_path, stdin=bodies)
    assert "2 skipped" in done.stderr
    assert json.loads((tmp_path / "1").read_text())["body"] == "1"


def test_resume_takes_no_file_of_another_url(echo, tmp_path):
    assert fetch(f"{echo}/A", f"{echo}/B", "-o", "{n}", "--outcomes", "o.jsonl", cwd=tmp_path).returncode == 0
    done = fetch(f"{echo}/B", f"{echo}/A", "-o", "{n}", "--outcomes", "o.jsonl", "--resume", cwd=tmp_path)
    assert done.returncode == 1
    assert "exists" in done.stderr
    assert json.loads((tmp_path / "1").read_text())["path"] == "/A"


def test_a_failure_leaves_no_file_behind_that_looks_done(echo, tmp_path):
    flags = ["-L", "--max-redirs", "0", "-o", "f", "--outcomes", "o.jsonl"]
    assert fetch(f"{echo}/slow/9", "-m", "0.3", "--retry", "0", *flags, cwd=tmp_path).returncode == 1
    assert not (tmp_path / "f").exists()


def test_after_a_kill_every_url_has_one_outcome(echo, tmp_path):
    (tmp_path / "urls").write_text("".join(f"{echo}/k{n}\n" for n in range(2000)))
    command = ["--input", "urls", "-o", "out/{name}", "--outcomes", "o.jsonl"]
    process = subprocess.Popen([*YELPAZE, "fetch", *command], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until(lambda: (tmp_path / "o.jsonl").exists() and len((tmp_path / "o.jsonl").read_bytes()) > 20_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = fetch(*command, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(record["n"] for record in lines(tmp_path / "o.jsonl")) == list(range(1, 2001))
    assert len(list((tmp_path / "out").iterdir())) == 2000


def test_devices_are_written_to_and_links_followed(echo, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "target").write_text("old")
    (tmp_path / "target").chmod(0o640)
    (tmp_path / "link").symlink_to("target")
    assert fetch(f"{echo}/[1-2]", "-s", "-o", "/dev/null", cwd=tmp_path).returncode == 0
    assert fetch(f"{echo}/x", "-s", "-o", "link", "--clobber", cwd=tmp_path).returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "target").read_text())["path"] == "/x"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o640
    with subprocess.Popen(["cat", "pipe"], cwd=tmp_path, stdout=subprocess.PIPE) as reader:
        assert fetch(f"{echo}/p", "-s", "-o", "pipe", "--clobber", cwd=tmp_path).returncode == 0
        assert json.loads(reader.communicate(timeout=60)[0])["path"] == "/p"
    assert (tmp_path / "pipe").is_fifo()


def test_no_password_is_written_anywhere(echo, tmp_path):
    url = echo.replace("http://", "http://me:hunter2@")
    done = fetch(
        f"{url}/a",
        f"{url}/status/500",
        "-v",
        "--fail",
        "--retry",
        "0",
        "--outcomes",
        "o",
        "--log",
        "l",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    for said in (done.stderr, (tmp_path / "o").read_text(), (tmp_path / "l").read_text()):
        assert said
        assert "hunter2" not in said


def test_headers_of_ours_can_be_left_out(echo, tmp_path):
    flags = [flag for name in ("User-Agent", "Accept", "traceparent") for flag in ("-H", f"{name}:")]
    said = json.loads(fetch(f"{echo}/x", *flags, cwd=tmp_path).stdout)
    assert set(said["headers"]) == {"Host"}


def test_a_host_policy_keeps_the_other_flags(tmp_path):
    done = fetch(
        "http://a.test/", "--explain", "--connect-timeout", "2", "--parallel-max", "3", "--retry-max-time", "7",
        "--host-policy", "a.test:rate=5/s,retries=1,timeout=9", cwd=tmp_path,
    )  # fmt: skip
    assert "connect 2 s" in done.stdout
    assert "attempt 9 s" in done.stdout
    assert "3 at once, 5/s" in done.stdout
    assert "none begun after 7 s" in done.stdout


def test_the_outcomes_never_replace_the_input(echo, tmp_path):
    (tmp_path / "urls").write_text(f"{echo}/x\n")
    done = fetch("--input", "urls", "--outcomes", "./urls", "--clobber", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "urls").read_text()) == (2, f"{echo}/x\n")


def test_the_help_is_one_people_know(tmp_path):
    text = fetch("--help", cwd=tmp_path).stdout
    flags = "-X -H -d --json -o -O -i -I -L -m --connect-timeout -k --cacert -E --cert -x --http2 -u -A --compressed -s -S -v --fail --retry --retry-max-time -Z --parallel --parallel-max --parallel-immediate --rate --input --outcomes --resume --clobber --explain --metrics"
    for flag in flags.split():
        assert flag in text, flag
    assert Path(tmp_path).exists()


def answer_of(call):
    return {"/empty": b"", "/404": (404, b"")}.get(call.path, b"full")


def test_an_empty_body_is_a_failure_where_that_is_asked_for(service, tmp_path):
    urls = [f"{service.url}/{name}" for name in ("full", "empty", "404")]
    outputs = ["-o", "full", "-o", "empty", "-o", "404", "--outcomes", "outcomes.jsonl"]
    assert fetch(*urls, *outputs, cwd=tmp_path).returncode == 0
    assert (tmp_path / "empty").read_bytes() == b""
    done = fetch(*urls, *outputs, "--fail-empty", "--clobber", cwd=tmp_path)
    assert done.returncode == 1
    assert [(line["ok"], (line["error"] or {}).get("kind")) for line in sorted(lines(tmp_path / "outcomes.jsonl"), key=lambda line: line["n"])] == [
        (True, None), (False, "empty"), (False, "empty"),
    ]  # fmt: skip
    assert "empty: the body is empty" in done.stderr
    (tmp_path / "empty").unlink()
    assert fetch(urls[1], "-o", "empty", "--fail-empty", cwd=tmp_path).returncode == 1
    assert not (tmp_path / "empty").exists()
    assert fetch(urls[1], "-I", "--fail-empty", cwd=tmp_path).returncode == 0
    assert fetch(urls[2], "--fail", "--fail-empty", cwd=tmp_path).returncode == 1
