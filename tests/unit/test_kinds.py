"""What a file is, told from its content where its name says something else; nothing guessed in silence."""

import gzip
import json

import pytest

from yelpaze.io.backends import open_sink, open_source
from yelpaze.model.errors import InputError


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", gzip.compress(b"{}\n"), "is a gzip file"),
        ("a.csv", gzip.compress(b"a,b\n"), "is a gzip file"),
        ("a.csv", b"PK\x03\x04" + bytes(99), "office document"),
        ("a.tsv", b"SQLite format 3\0" + bytes(99), "name a table in it"),
        ("a.jsonl", b"PAR1" + bytes(99), "ending .parquet"),
        ("a.ndjson", b"\x28\xb5\x2f\xfd" + bytes(99), "ending .zst"),
        ("a.jsonl", b"%PDF-1.7", "PDF"),
        ("a.json", b'[\n  {"a": 1}\n]\n', "over several lines"),
        ("a.json", b'\xef\xbb\xbf[{\n  "a": 1}]\n', "over several lines"),
        ("a.jsonl", b'\n{\n  "a": 1\n}\n', "over several lines"),
        ("a.jsonl", b'{ "a": [\n 1, 2]}', "over several lines"),
        ("a.jsonl", b"[" + b"\n{}," * 100_000 + b"\n{}]", "over several lines"),
        ("a.JSON", b'[{"a": 1}, {"a": 2}]', "one JSON array"),
    ],
    ids=range(13),
)
def test_inputs_that_are_something_else_are_refused(tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        open_source((str(path),))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n\n"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2}\n'),
        ("a.jsonl", b'{"a": \n{"a": 2}\n'),  # a bad line is a failed row
        ("a.jsonl", b'["https://a.test/", {"a": 1}]\n'),
        ("a.json", b'["https://a.test/", {"a": 1}]'),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]\n'),
        ("a.json", b'{"a": 1}'),
        ("a.jsonl", json.dumps({"a": "x" * 200_000}).encode()),
        ("a.jsonl.gz", gzip.compress(b"{}\n")),
        ("a.CSV.GZ", gzip.compress(b"a,b\n")),
        ("a.csv", b"[,{\n1,2\n"),
    ],
    ids=range(12),
)
def test_inputs_that_are_what_they_say_are_taken(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    open_source((str(path),))


@pytest.mark.parametrize("name", ["out.xlsx", "out.txt", "out.2026-11-30", "out.jsonl.bak", "out.CSVX"])
def test_outputs_of_an_unknown_format_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="there is no format"):
        open_sink(str(tmp_path / name), (), None)


@pytest.mark.parametrize("name", ["out", "out.jsonl", "out.NDJSON", "out.json", "out.CSV", "out.Tsv"])
def test_outputs_of_known_formats_are_taken(tmp_path, name):
    open_sink(str(tmp_path / name), (), None)
