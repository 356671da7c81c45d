"""Dead letters: what is kept of a row, and that it comes back as it was."""

import base64
import datetime as dt
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze import Failure, Flow, Response, get
from yelpaze.flow.dead_letters import answers_to, letter_of
from yelpaze.flow.execution import SKIPPED
from yelpaze.io.lines import line_of
from yelpaze.io.protocol import BadRow, DeadLetter
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Attempt, Outcome, Timings
from yelpaze.model.secrets import HIDDEN, Secrets

URL = "http://a.test/x"
FAILED = Failure(step="last", kind="status", message="503", status=503, trace_id="f" * 32)


def make_graph():
    flow = Flow("letters")

    @flow.request
    def plain(row):
        return get(URL)

    @flow.request
    def whole(row):
        return get(URL)

    @flow.compute
    def worked(plain: dict):
        return plain

    @flow.compute
    def last(whole: Response, plain: dict | list, worked: dict):
        return 1

    graph = flow.graph()
    return graph, {node.step.name: node.number for node in graph.nodes}


GRAPH, NUMBER = make_graph()


def outcome(body=b"{}", status=200, headers="", url=URL) -> Outcome:
    error = Error(ErrorKind.STATUS, str(status)) if status >= 400 else None
    block = f"HTTP/1.1 {status} x\r\n{headers}\r\n".encode("latin-1")
    return Outcome(
        get(URL), status, Headers(block), body, error, (), Timings(), 0.1, url, "1.1", "::1", "0" * 32
    )


def letter(
    raw=b'{"n":1}', value=None, answers=None, failure=FAILED, secrets=(), cursor=(0, 0, 1)
) -> DeadLetter:
    """The dead letter as it comes back from its file."""
    row = SimpleNamespace(
        number=7,
        raw=raw,
        value=value,
        graph=GRAPH,
        answers=lambda: {NUMBER[name]: answer for name, answer in (answers or {}).items()},
    )
    made = letter_of(row, failure, secrets=Secrets(secrets), cursor=cursor, wall=1_800_000_100.0, clock=500.0)
    return msgspec.json.decode(line_of(made), type=DeadLetter)


def back(answers, **options):
    """What the steps have once the row is run again."""
    kept = letter(answers=answers, **options)
    names = {number: name for name, number in NUMBER.items()}
    return {names[n]: value for n, value in answers_to(GRAPH, kept.answers, trace_id="1" * 32).items()}


# ── the row ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n": 1.0, "big": 12345678901234567890123, "z": 1, "a": 2}',
        b' {"n":1}\r',
        b'["http://a.test/?id=1", {}]',
        b'{"same": 1, "same": 2}',
        b"null",
        b'"\\ud83c\\udf2c"',
        '{"ö": "ş"}'.encode(),
    ],
)
def test_a_row_without_secrets_is_kept_to_the_letter(raw):
    row = SimpleNamespace(number=7, raw=raw, value=None, graph=GRAPH, answers=dict)
    made = letter_of(row, FAILED, secrets=Secrets(), cursor=None, wall=0.0, clock=0.0)
    assert bytes(made.input) == raw.strip()
    assert (made.is_partial, made.is_text) == (False, False)
    assert msgspec.json.decode(line_of(made))["input"] == msgspec.json.decode(raw)


def test_a_row_with_secrets_is_partial():
    found = letter(raw=b'{"n":1,"password":"hunter2","url":"http://me:hunter2@a.test/"}')
    assert found.input == {"n": 1, "password": HIDDEN, "url": "http://a.test/"}
    assert (found.is_partial, found.is_text) == (True, False)
    assert found.cursor == [0, 0, 1]
    found = letter(raw=b'{"shop-id":1}', secrets=["shop_id"])
    assert (found.input, found.is_partial) == ({"shop-id": HIDDEN}, True)


@pytest.mark.parametrize("raw", [b"not json", b'{"a":', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_a_text(raw):
    found = letter(raw=raw)
    assert (found.is_partial, found.is_text) == (False, True)
    assert found.input == raw.decode("utf-8", "replace")


def test_what_is_no_json_and_has_a_secret_is_not_shown():
    found = letter(raw=b'{"password": "hunter2"')
    assert (found.input, found.is_partial) == (HIDDEN, True)


def test_a_bad_row_is_its_text():
    found = letter(raw=None, value=BadRow("has 3 fields", "a,b,c"))
    assert (found.input, found.is_partial, found.is_text) == ("a,b,c", False, True)


@pytest.mark.parametrize(
    ("value", "is_partial"),
    [
        ({"n": "1"}, False),
        ([1, "a", None, 1.5], False),
        ({"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, True),
        ({"raw": b"\x00\xff"}, True),
        ({"n": float("nan")}, True),
        ({"n": {1, 2}}, True),
        ({"token": "hunter2"}, True),
    ],
)
def test_a_value_that_json_does_not_bring_back_is_partial(value, is_partial):
    found = letter(raw=None, value=value)
    assert found.is_partial == is_partial
    if not is_partial:
        assert found.input == value


# ── the failure ─────────────────────────────────────────────────────────────────


def test_attempts_have_their_times_on_the_wall():
    attempts = (
        Attempt(0, Error(ErrorKind.CONNECT, "refused"), 0.25, 490.0),
        Attempt(503, Error(ErrorKind.STATUS, "503"), 0.5, 499.0),
        Attempt(200, None, 0.1, 499.75),
    )
    found = letter(failure=msgspec.structs.replace(FAILED, attempts=attempts, traceback="Traceback …"))
    assert found.attempts == [
        {"at": "2027-01-15T08:01:30.000Z", "status": None, "error": "connect", "message": "refused", "seconds": 0.25},
        {"at": "2027-01-15T08:01:39.000Z", "status": 503, "error": "status", "message": "503", "seconds": 0.5},
        {"at": "2027-01-15T08:01:39.750Z", "status": 200, "error": None, "message": None, "seconds": 0.1},
    ]  # fmt: skip
    assert found.at == "2027-01-15T08:01:40.000Z"
    assert found.error == {"kind": "status", "status": 503, "message": "503", "traceback": "Traceback …"}
    assert (found.row, found.step, found.trace_id, found.kind, found.status) == (
        7,
        "last",
        "f" * 32,
        "status",
        503,
    )


# ── answers ─────────────────────────────────────────────────────────────────────


@given(
    body=st.binary(max_size=64) | st.text(max_size=32).map(str.encode),
    status=st.sampled_from([200, 204, 299, 304, 400, 404, 599]),
    value=st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=12
    ),
)
def test_an_answer_comes_back_as_it_was(body, status, value):
    sent = outcome(
        body, status, headers=f"Content-Type: text/plain\r\nX-Two: a\r\nX-Two: b\r\nX-V: {value}\r\n"
    )
    (got,) = back({"whole": sent}).values()
    assert (got.status, got.body, got.ok, got.url) == (sent.status, sent.body, sent.ok, sent.url)
    assert got.headers.pairs == sent.headers.pairs
    assert got.text == sent.text
    assert got.trace_id == "1" * 32


def test_lists_dicts_and_skipped_steps_come_back():
    got = back({"plain": [outcome(b"1"), outcome(b"\xff"), outcome(b"3")], "whole": SKIPPED})
    assert [answer.body for answer in got["plain"]] == [b"1", b"\xff", b"3"]
    assert got["whole"] is SKIPPED
    got = back({"plain": {"b": outcome(b"1"), "a": outcome(b"2")}})
    assert [(name, answer.body) for name, answer in got["plain"].items()] == [("b", b"1"), ("a", b"2")]
    assert back({"plain": []}) == {"plain": []}
    assert back({"plain": {}}) == {"plain": {}}


def test_a_dict_of_other_names_than_texts_is_not_kept():
    assert back({"plain": {1: outcome()}, "whole": outcome()}).keys() == {"whole"}


def test_what_is_too_long_or_secret_is_not_kept():
    assert back({"plain": outcome(b"x" * (1 << 20))}).keys() == {"plain"}
    assert back({"plain": outcome(b"x" * ((1 << 20) + 1))}) == {}
    assert back({"plain": [outcome(), outcome(b'{"a":{"access_token":"hunter2"}}')]}) == {}
    assert back({"plain": outcome(b'{"pin" : 1}')}).keys() == {"plain"}
    assert back({"plain": outcome(b'{"pin" : 1}')}, secrets=["pin"]) == {}


def test_a_secret_header_is_hidden_and_a_step_that_wants_headers_asks_again():
    answer = outcome(headers="Set-Cookie: hunter2\r\nX-Shop: hunter2\r\nX-Open: 1\r\n")
    kept = letter(answers={"plain": answer, "whole": answer}, secrets=["x-shop"])
    assert kept.answers["plain"]["headers"] == [["Set-Cookie", HIDDEN], ["X-Shop", HIDDEN], ["X-Open", "1"]]
    assert "whole" not in kept.answers
    assert b"hunter2" not in line_of(kept)


def test_the_url_of_an_answer_is_kept_without_its_secrets():
    kept = letter(answers={"plain": outcome(url="http://me:hunter2@a.test/?token=hunter2")})
    assert kept.answers["plain"]["url"] == f"http://a.test/?token={HIDDEN}"
    assert back({"plain": outcome(url="http://me:hunter2@a.test/?token=hunter2")})["plain"].status == 200


def test_answers_of_a_flow_that_has_changed():
    kept = letter(answers={"plain": outcome(b"1")}).answers
    other = {**kept, "gone": kept["plain"], "worked": kept["plain"], "last": kept["plain"]}
    assert list(answers_to(GRAPH, other, trace_id="")) == [NUMBER["plain"]]
    assert answers_to(GRAPH, {}, trace_id="") == {}


def test_bodies_that_are_no_text_are_base64():
    kept = letter(answers={"plain": outcome(b"\xff\x00")}).answers["plain"]
    assert base64.b64decode(kept["body_base64"]) == b"\xff\x00"
    assert "body" not in kept
