"""File names, arguments and the environment are bytes: what is no UTF-8 works, and is shown escaped."""

import json
import os
import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.service import YELPAZE
from yelpaze.model.json_text import decode_json, encode_json

ODD = os.fsdecode(b"sat\xfdr")  # as Windows-1254 writes it
FLOW = "flow = Flow('f')\n@flow.compute\ndef out(row: dict): return 1 // row['a']\n"


def run(place, *arguments, **environment):
    command = [*YELPAZE, *map(str, arguments)]
    env = place.env | environment
    done = subprocess.run(command, cwd=place.path, env=env, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("output", ["results.jsonl", "results.csv", "results.parquet", "results.db"])
def test_a_run_with_such_names(place, output):
    place.rows([{"a": 1}, {"a": 0}], f"{ODD}.jsonl")
    place.flow(FLOW, f"{ODD}.py")
    options = (f"{ODD}.py", f"{ODD}.jsonl", "-o", f"{ODD}.{output}", "--workers", 1)
    done = run(place, "run", *options, "--json")
    assert done.returncode == 1, done.stderr
    assert decode_json(done.stdout, dict)["output"] == f"{ODD}.{output}"
    assert b"sat\\udcfdr." in done.stderr
    assert os.path.exists(place.path / f"{ODD}.{output}")
    assert b"is finished" in run(place, "run", *options).stderr
    assert b"sat\\udcfdr." in run(place, "runs").stdout
    assert b"sat\\udcfdr." in run(place, "runs", "show", "last").stdout
    assert run(place, "runs", "--json").returncode == 0
    assert run(place, "runs", "show", "last", "--html", f"{ODD}.html").returncode == 0
    place.flow(FLOW.replace("1 //", "1 +"), f"{ODD}.py")
    assert run(place, "retry", f"{ODD}.{output}", "--workers", 0).returncode == 0


def test_a_bad_line_names_its_file(place):
    (place.path / f"{ODD}.jsonl").write_text("no JSON\n")
    place.flow(FLOW)
    done = run(place, "run", "flow.py", f"{ODD}.jsonl")
    assert done.returncode == 1
    assert run(place, "run", "flow.py", f"{ODD}.none").stderr.startswith(b"yelpaze: sat\\udcfdr.none: ")


def test_fetch_passes_bytes_on(place):
    url = place.service.url
    options = ["-o", f"{ODD}.txt", "--outcomes", f"{ODD}.jsonl", "-H", f"X-Name: {ODD}", "-d", f"name={ODD}"]
    done = run(place, "fetch", f"{url}/{ODD}", *options)
    assert done.returncode == 0, done.stderr
    (call,) = place.service.calls
    assert (call.path, call.body) == ("/sat%FDr", b"name=sat\xfdr")
    assert call.headers["x-name"] == "sat\xfdr"  # as Latin-1
    line = (place.path / f"{ODD}.jsonl").read_bytes()
    assert decode_json(line, dict)["path"] == f"{ODD}.txt"
    again = run(place, "fetch", f"{url}/{ODD}", *options, "--resume")
    assert again.returncode == 0
    assert len(place.service.calls) == 1  # it is known to be done


def test_an_environment_that_is_no_utf8(place):
    place.rows([{"a": 1}])
    place.flow(FLOW)
    done = run(place, "run", "flow.py", "in.jsonl", NAME=ODD, XDG_STATE_HOME=str(place.path / ODD))
    assert done.returncode == 0
    assert os.path.isdir(place.path / ODD / "yelpaze" / "runs")


def test_a_message_that_json_cannot_carry(place):
    """An exception of a step with a lone surrogate goes into the record of the run."""
    place.rows(1)
    place.flow("flow = Flow('f')\n@flow.compute\ndef out(row): raise ValueError('\\ud83d')\n")
    done = run(place, "run", "flow.py", "in.jsonl", "--workers", 0)
    assert done.returncode == 1
    assert run(place, "runs", "show", "last").returncode == 0


class Record(msgspec.Struct):
    names: dict[str, str | None]


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0")), st.text() | st.none()))
def test_any_text_comes_back(names):
    names = {name: text and text.replace("\0", "") for name, text in names.items()}
    data = encode_json(Record(names))
    assert json.loads(data)
    assert decode_json(data, Record).names == names


@pytest.mark.parametrize("text", ["\udcfd", "x\ud83d", "a\udc80\udcffb", "\0d8"])
def test_surrogates_come_back(text):
    assert decode_json(encode_json({text: [text]}), dict) == {text: [text]}
