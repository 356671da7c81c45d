"""`yelpaze runs`, `check`, `graph`: what is kept of a run, and what is told of a flow."""

import json
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pexpect
import pytest

from support.service import YELPAZE
from support.waiting import until

CALL = """
flow = Flow("calls")

@flow.request
def call(row: dict):
    return get(f"{URL}/call/{row['n']}")
"""
RUN = ("run", "flow.py", "in.jsonl", "--workers", "0")


def answer_of(call):
    return (422, {}) if call.number % 2 == 0 else {}


def listed(place):
    return [json.loads(line) for line in place.ask("runs", "--json", code=0).stdout.splitlines()]


def test_the_list_the_latest_first(place):
    done = place.ask("runs", code=0)
    assert (done.stdout, done.stderr) == ("", "no runs yet\n")
    place.flow(CALL)
    place.rows(5)
    place(*RUN, code=1)
    place.flow(CALL.replace("calls", "Others & more"), "other.py")
    place("run", "other.py", "in.jsonl", "-o", "out.jsonl", "--limit", 1, "--workers", 0, code=0)
    done = place.ask("runs", code=0)
    head, other, first = (line.split() for line in done.stdout.splitlines())
    assert head == ["RUN", "STATE", "ROWS", "FAILED", "WORKED", "STARTED", "(UTC)", "OUTPUT"]
    assert re.fullmatch(r"others---more-\d{8}-\d{6}-[0-9a-f]{4}", other[0])
    assert first[0].startswith("calls-")
    assert (first[1:4], other[1:4]) == (["finished", "5", "2"], ["finished", "1", "0"])
    assert other[-1] == "out.jsonl"
    done = place.ask("runs", "--last", 1, code=0)
    assert len(done.stdout.splitlines()) == 2
    assert "and 1 older ones" in done.stderr
    found = listed(place)
    assert [run["flow"] for run in found] == ["Others & more", "calls"]
    run = found[1]
    assert {name: run[name] for name in ("state", "rows", "succeeded", "failed", "requests", "sessions")} == {
        "state": "finished", "rows": 5, "succeeded": 3, "failed": 2, "requests": 5, "sessions": 1,
    }  # fmt: skip
    assert run["kinds"] == {"status": 2}
    assert run["inputs"] == [str(place.path / "in.jsonl")]


def test_one_run_by_its_id_its_beginning_its_output_or_last(place, service):
    place.flow(CALL)
    place.rows(4)
    place(*RUN, code=1)
    place(*RUN, "-o", "two.jsonl", code=1)
    second, first = (run["run"] for run in listed(place))
    names = {
        first: first,
        second[:-1] if second[:-1] != first[:-1] else second: second,
        str(place.path / "in.results.jsonl"): first,
        "in.results.jsonl": first,
        "two.jsonl": second,
        "last": second,
    }
    for name, run in names.items():
        done = place.ask("runs", "show", name, code=0)
        assert re.search(rf"^run: +{run}$", done.stdout, re.MULTILINE), name
    for part in (
        "state:        finished",
        "rows:         4: 2 succeeded, 2 failed",
        "status ",
        f"row 2 (call): 422 Unprocessable Entity (GET {service.url}/call/2)",
        "step call",
        f"host {service.url}: 4 requests, and 0 retries; 200: 2, 422: 2",
        "slowest rows: ",
    ):
        assert part in done.stdout
    record = json.loads(place.ask("runs", "show", first, "--json", code=0).stdout)
    assert (record["run"], record["failed"]) == (first, 2)
    done = place.ask("runs", "show", "calls-", code=2)
    assert "several runs begin so: " in done.stderr
    assert first in done.stderr
    for name in ("nothing", "../../etc/passwd", "calls-*"):
        done = place.ask("runs", "show", name, code=2)
        assert f"{name}: there is no such run; `yelpaze runs` lists them" in done.stderr
        assert not done.stdout


def test_show_last_where_there_is_none(place):
    assert "last: there is no such run" in place.ask("runs", "show", "last", code=2).stderr
    assert "last: there is no such run" in place("retry", "last", code=2).stderr


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_html_report_needs_nothing_else_and_escapes_names(place, service):
    place.flow("""
        flow = Flow("<b>&\\"'offers")

        @flow.request
        def call(row: dict):
            return get(f"{URL}/call/{row['n']}")

        @flow.compute
        def end(call: dict, row: dict):
            raise ValueError("<script>alert('&amp;')</script>")
    """)
    place.rows(6)
    place(*RUN, code=1)
    done = place.ask("runs", "show", "last", "--html", "report.html", code=0)
    assert "written: report.html" in done.stderr
    source = (place.path / "report.html").read_text()
    page = Page()
    page.feed(source)
    page.close()
    assert page.open == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "b", "image", "use"}
    allowed = ("svg", "xmlns", "http://www.w3.org/2000/svg")
    for attribute in page.attributes:
        assert attribute == allowed or not re.search(r"https?:|//|url\(|javascript:", attribute[2] or "")
        assert attribute[1] not in ("src", "href", "xlink:href", "action", "onload")
    assert not re.search(r"@import|url\(", source)
    assert "<b>&\"'offers" in page.text
    assert "<script>alert('&amp;')</script>" in page.text
    assert service.url in page.text
    drawings = re.findall(r"<svg .*?</svg>", source, re.DOTALL)
    assert len(drawings) >= 2
    for drawing in drawings:
        assert ET.fromstring(drawing).tag.endswith("svg")


def test_a_report_that_cannot_be_written(place):
    place.flow(CALL)
    place.rows(1)
    place(*RUN, code=0)
    for path in ("no/report.html", ".", "flow.py/report.html"):
        assert (
            f"{path}: cannot be written" in place.ask("runs", "show", "last", "--html", path, code=2).stderr
        )


def test_a_killed_run_is_listed_as_such_with_what_it_had_done(place, service):
    place.flow(CALL)
    place.rows(9)
    service.hold(lambda call: call.number > 4)
    process = place.start(*RUN)
    until(lambda: sorted([*place.numbers(), *place.letters]) == [1, 2, 3, 4])
    place.recorded(4)
    assert [run["state"] for run in listed(place)] == ["running"]
    process.kill()
    process.wait()
    (run,) = listed(place)
    assert run["state"] == "killed"
    assert "killed: its process is gone" in place.ask("runs", "show", "last", code=0).stdout
    service.release()
    place(*RUN, code=1)
    (run,) = listed(place)
    assert (run["state"], run["sessions"], run["rows"], run["failed"]) == ("finished", 2, 9, 4)
    assert "started 2 times" in place.ask("runs", "show", "last", code=0).stdout
    assert run["kinds"] == {"status": 4}


def test_the_rows_of_a_killed_run_are_those_that_were_committed(place, service):
    place.flow(CALL)
    place.rows(9)
    service.hold(lambda call: call.number > 4)
    process = place.start(*RUN)
    until(lambda: sorted([*place.numbers(), *place.letters]) == [1, 2, 3, 4])
    place.recorded(4)
    process.kill()
    process.wait()
    (run,) = listed(place)
    assert (run["rows"], run["failed"]) == (4, 2)


def test_retry_keeps_the_record_right(place, service):
    place.flow(CALL)
    place.rows(6)
    place(*RUN, code=1)
    service.answer = lambda call: (404, {}) if call.number == 4 else {}
    place("retry", "last", "--workers", 0, code=1)
    (run,) = listed(place)
    assert (run["rows"], run["succeeded"], run["failed"], run["sessions"]) == (6, 5, 1, 2)
    assert run["kinds"] == {"status": 1}
    assert [example[0] for example in run["examples"]["status"]] == [4]
    assert run["requests"] == 9
    service.answer = lambda call: {}
    place("retry", "last", "--workers", 0, code=0)
    (run,) = listed(place)
    assert (run["state"], run["failed"], run["kinds"], run["examples"]) == ("finished", 0, {}, {})


def test_the_state_folder(place):
    place.flow(CALL)
    place.rows(1)
    place(*RUN, code=0)
    assert [path.suffix for path in sorted((place.path / "state/yelpaze/runs").iterdir())] == [
        ".json",
        ".lock",
    ]
    home = {name: value for name, value in place.env.items() if name != "XDG_STATE_HOME"}
    home["HOME"] = str(place.path / "home")
    place(*RUN, "-o", "two.jsonl", env=home, code=0)
    assert list((place.path / "home/.local/state/yelpaze/runs").glob("calls-*.json"))
    assert len(listed(place)) == 1


def test_a_state_folder_that_cannot_be_written_is_a_warning(place):
    place.flow(CALL)
    place.rows(1)
    env = place.env | {"XDG_STATE_HOME": str(place.path / "flow.py")}
    done = place(*RUN, env=env, code=0)
    assert "the run is not listed in " in done.stderr
    assert place.numbers() == [1]
    assert "no runs yet" in place.ask("runs", code=0, env=env).stderr


def test_a_record_that_is_damaged_hides_no_other(place):
    place.flow(CALL)
    place.rows(1)
    place(*RUN, code=0)
    folder = place.path / "state/yelpaze/runs"
    (folder / "torn.json").write_text('{"run": "to')
    (folder / "odd.json").write_text("[]")
    (folder / "bytes.json").write_bytes(b"\xff\xfe")
    os.mkdir(folder / "folder.json")
    assert [run["flow"] for run in listed(place)] == ["calls"]


# ── check and graph ─────────────────────────────────────────────────────────────

GOOD = """
import msgspec
from yelpaze import Limit

class Offer(msgspec.Struct):
    price: float

flow = Flow("offers", deadline=9, engine={"limit": Limit(rate="5/s")})

@flow.request(idempotent=True)
def base(row: dict):
    return post(URL, json=row)

@flow.request(optional=True, accept={200, 404})
def stock(base: dict):
    return get(URL)

@flow.request(idempotency_key=True, retry=False)
def prices(base: dict):
    return get(URL)

@flow.compute(timeout=5)
def offer(stock: dict | Failure, prices: list[dict], row: dict) -> Offer:
    return Offer(1.0)
"""


def test_check_tells_of_graph_types_and_policies(place, service):
    place.flow(GOOD)
    text = place.ask("check", "flow.py", code=0).stdout
    for line in (
        "  a row has 9 s",
        "stage 1:",
        "  base(row: dict)  [request, idempotent]",
        "stage 2, at the same time:",
        "  stock(base: dict)  [request, optional, with its own idea of failure]",
        "  prices(base: dict)  [request, with an Idempotency-Key, one attempt]",
        "stage 3:",
        "  offer(stock: dict | Failure, prices: list[dict], row: dict)  [compute, 5 s at the most]",
        "result: offer → Offer",
        "policies:",
    ):
        assert line in text.splitlines()
    assert re.match(r"offers \(.*flow\.py:\d+\)$", text.splitlines()[0])
    assert "5/s with a burst of 1" in text
    assert not service.calls


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("flow = Flow('f')\n@flow.request\ndef a(rwo): ...\n", "flow.py:4: step 'a' needs 'rwo'"),
        ("flow = Flow('f')\n@flow.request\ndef a(b): ...\n@flow.request\ndef b(a): ...\n", "flow.py:4: the steps"),
        (
            "flow = Flow('f')\n@flow.request\ndef a(row): ...\n@flow.request\ndef b(row): ...\n",
            "flow.py:6: the flow 'f' must end in one step",
        ),
        ("flow = Flow('f')\n@flow.compute\ndef a(row: 'Nowhere'): ...\n", "flow.py:4: step 'a': an annotation"),
        (
            "flow = Flow('f')\n@flow.request(optional=True)\ndef a(row): ...\n@flow.request\ndef b(a: dict): ...\n",
            "flow.py:6: step 'b' takes 'a', which is optional",
        ),
        ("flow = Flow('f')\n@flow.compute\nasync def a(row): ...\n", "flow.py:4: step 'a' must be a plain function"),
        ("flow = Flow('f'\n", "flow.py:3: syntax error"),
        ("flow = Flow('f')\nflow.nothing()\n", "flow.py:4: cannot be imported: AttributeError"),
        ("flow = Flow('f')\n", "flow.py:3: the flow 'f' has no steps"),
        ("flow = Flow('f', engine={'rtae': 1})\n@flow.request\ndef a(row): ...\n", "flow.py:3: Flow(engine=…): "),
        ("", "flow.py: there is no flow in it"),
    ],
)  # fmt: skip
def test_a_flow_that_cannot_run_is_told_with_file_and_line(place, body, says):
    (place.path / "flow.py").write_text(f"from yelpaze import Flow, get\n\n{body}")
    done = place.ask("check", "flow.py", code=2)
    assert says in done.stderr
    assert not done.stdout


def test_graph_as_mermaid_and_svg(place):
    place.flow(GOOD)
    text = place.ask("graph", "flow.py", code=0).stdout
    assert text.splitlines()[:2] == ["flowchart LR", "    row([row])"]
    assert "    s_stock -.-> s_offer" in text.splitlines()
    assert place.ask("graph", "flow.py", "-o", "-", code=0).stdout == text
    place.ask("graph", "flow.py", "-o", "graph.md", code=0)
    assert (place.path / "graph.md").read_text() == text
    drawing = place.ask("graph", "flow.py", "--format", "svg", code=0).stdout
    place.ask("graph", "flow.py", "-o", "graph.svg", code=0)
    assert (place.path / "graph.svg").read_text() == drawing
    assert ET.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
    assert (
        "no/graph.svg: cannot be written"
        in place.ask("graph", "flow.py", "-o", "no/graph.svg", code=2).stderr
    )
    assert "none.py: there is no such file" in place.ask("graph", "none.py", code=2).stderr
    place.flow("flow = Flow('f')\n@flow.request\ndef a(rwo): ...\n", "wrong.py")
    assert "wrong.py:4: step 'a' needs 'rwo'" in place.ask("graph", "wrong.py", code=2).stderr
    assert "'pdf' is not one of" in place.ask("graph", "flow.py", "--format", "pdf", code=2).stderr


def test_last_is_the_last_run_of_this_folder(place):
    place.flow("flow = Flow('f')\n@flow.compute\ndef out(row): return 1 // (row['n'] - 1)\n")
    for name in ("here", "there", "empty"):
        (place.path / name).mkdir()
    place.rows(2, "here/in.jsonl")
    place.rows(3, "there/in.jsonl")
    for name in ("here", "there"):
        place("run", "../flow.py", "in.jsonl", "--workers", 0, cwd=place.path / name, code=1)
    done = place("retry", "last", "--workers", 0, cwd=place.path / "here", code=1)
    first = done.stderr.splitlines()[0]
    assert first.startswith("yelpaze: retrying f-")
    assert first.endswith(f": 1 failed row of 2 rows, output {place.path / 'here' / 'in.results.jsonl'}")
    shown = place("runs", "show", "last", cwd=place.path / "there", code=0)
    assert str(place.path / "there" / "in.results.jsonl") in shown.stdout
    for command in (["retry", "last"], ["runs", "show", "last"]):
        done = place(*command, cwd=place.path / "empty", code=2)
        assert "no run was started in this folder; the last one is f-" in done.stderr
        assert done.stderr.endswith(f" in {place.path / 'here'}: name it\n")


def test_last_asks_where_there_is_somebody_to_ask(place):
    place.flow("flow = Flow('f')\n@flow.compute\ndef out(row): return 1 // (row['n'] - 1)\n")
    place.rows(2)
    place("run", "flow.py", "in.jsonl", "--workers", 0, code=1)
    (place.path / "elsewhere").mkdir()
    command = [*YELPAZE[1:], "retry", "last", "--workers", "0"]
    for answer, said in (("n", "no run was started in this folder"), ("y", "retrying f-")):
        terminal = pexpect.spawn(
            YELPAZE[0],
            command,
            cwd=str(place.path / "elsewhere"),
            env=place.env,
            timeout=60,
            encoding="utf-8",
        )
        terminal.expect(r"Retry it\? \[y/N\]")
        terminal.sendline(answer)
        terminal.expect(said)
        terminal.expect(pexpect.EOF)
        terminal.close()


def test_a_graph_in_a_format_that_is_not_known_is_refused(place):
    place.flow("flow = Flow('f')\n@flow.compute\ndef out(row): return 1\n")
    done = place("graph", "flow.py", "-o", "graph.png", code=2)
    assert done.stderr == (
        "yelpaze: graph.png: there is no format .png: graphs are written as .svg, .mmd, .mermaid, .md, .txt\n"
    )
    assert not (place.path / "graph.png").exists()
