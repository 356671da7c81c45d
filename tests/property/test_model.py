"""Requests, URLs and headers: accepted, or the declared error, never another."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yelpaze import Headers, MisuseError, Request, Timeout, get, head, post, request
from yelpaze.model.histogram import Histogram
from yelpaze.model.url import checked, join, origin_of, with_params
from yelpaze.policy.acks import AckTracker


@given(st.text())
@example("http://[::1")
@example("http://a.test:99999/")
@example("http://\u2100.test/")
@example("http://a\u0661.test/")
@example("http://xn--a.test/\ud800")
def test_any_text_is_a_url_or_misuse(text):
    for candidate in (text, f"http://{text}", f"http://a.test/{text}"):
        try:
            url = checked(candidate)
        except MisuseError:
            continue
        assert url.isascii()
        assert not set(url) & set("\r\n\0 \\")
        assert checked(url) == url
        assert origin_of(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.test",
        "file:///etc/passwd",
        "ftp://a.test/",
        "http://",
        "http:///path",
        "http://a.test/\r\nX: y",
        "http://a.test/\x00",
        "http://a.test\\@b.test/",
        "http://a.test:99999/",
        "http://a.test:x/",
        "http://[::1/",
        "http://a b.test/",
        "http://\u00ad/",
        "http://a\u200db.test/",
        "http://a%2Fb.test/",
        "http://a%FF.test/",
        "http://a%0D%0Ab.test/",
        "javascript:alert(1)",
        None,
        17,
    ],
)
def test_bad_urls_are_misuse(url):
    with pytest.raises(MisuseError):
        get(url)


@pytest.mark.parametrize(
    ("given_url", "sent"),
    [
        ("http://a.test/ü?q=ö", "http://a.test/%C3%BC?q=%C3%B6"),
        ("http://a.test/a b", "http://a.test/a%20b"),
        ("http://bücher.test/", "http://xn--bcher-kva.test/"),
        # UTS 46, not transitional: what curl and browsers look up.
        ("http://straße.test/", "http://xn--strae-oqa.test/"),
        ("http://λόγος.test/", "http://xn--oxapnm1c.test/"),
        ("http://\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.test/", "http://xn--mgba3gch31f060k.test/"),
        ("http://ＭÜＮＣＨＥＮ。test/", "http://xn--mnchen-3ya.test/"),
        ("http://b%C3%BCcher.test/", "http://xn--bcher-kva.test/"),
        ("http://a_b.bücher.test./", "http://a_b.xn--bcher-kva.test./"),
        ("HTTP://a.test/", "http://a.test/"),
        ("http://a.test/%20{x}", "http://a.test/%20%7Bx%7D"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("http://u:p@a.test/", "http://u:p@a.test/"),
    ],
)
def test_urls_are_encoded(given_url, sent):
    assert get(given_url).url == sent


@pytest.mark.parametrize(
    ("url", "is_address"),
    [
        ("http://127.0.0.1/", True),
        ("http://[::1]/", True),
        ("http://127.1/", True),
        ("http://2130706433/", True),
        ("http://0x7f.0.0.1/", True),
        ("http://a.test/", False),
        ("http://1.a.test/", False),
    ],
)
def test_addresses_are_told_from_names(url, is_address):
    assert origin_of(url).is_address is is_address


def test_origins():
    assert origin_of("http://a.test/") == origin_of("http://A.test:80/x")
    assert origin_of("http://a.test/") != origin_of("https://a.test/")
    assert str(origin_of("https://[::1]/")) == "https://[::1]:443"
    assert join("http://a.test/b/c", "../d?x") == "http://a.test/d?x"


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ("/café?q=ü".encode(), "http://a.test/caf%C3%A9?q=%C3%BC"),
        ("/caf%C3%A9/ş".encode(), "http://a.test/caf%C3%A9/%C5%9F"),
        ("/café".encode("latin-1"), "http://a.test/caf%E9"),
        ("//bücher.test/ü".encode(), "http://xn--bcher-kva.test/%C3%BC"),
        (b"http://b.test/%", "http://b.test/%"),
    ],
)
def test_a_location_keeps_its_bytes(sent, target):
    headers = Headers(b"HTTP/1.1 302 Found\r\nLocation: " + sent + b"\r\n\r\n")
    assert join("http://a.test/", headers["location"]) == target


@given(st.binary(max_size=40))
def test_any_location_is_a_url_or_misuse(raw):
    location = raw.decode("latin-1")
    try:
        target = join("http://a.test/b", location)
    except MisuseError:
        return
    assert checked(target) == target


def test_params_are_added():
    assert with_params("http://a.test/#top", {"a": True, "b": [1, "x y"]}) == (
        "http://a.test/?a=true&b=1&b=x+y#top"
    )
    assert with_params("http://a.test/?", [("a", 1), ("a", 2)]) == "http://a.test/?a=1&a=2"


@given(st.text(), st.text())
def test_headers_are_sent_as_given_or_refused(name, value):
    try:
        made = get("http://a.test/", headers={name: value})
    except MisuseError:
        return
    assert not set(name + value) & set("\r\n\0")
    assert made.headers == ((name, value),)


@pytest.mark.parametrize(
    "headers",
    [
        {"A\r\nB": "x"},
        {"A": "x\r\nB: y"},
        {"": "x"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
        {"A": 1},
        {"A b": "x"},
    ],
)
def test_forged_headers_are_misuse(headers):
    with pytest.raises(MisuseError):
        get("http://a.test/", headers=headers)


def test_request_misuse():
    for call in (
        lambda: request("GET\r\n", "http://a.test/"),
        lambda: request("", "http://a.test/"),
        lambda: post("http://a.test/", json=1, body=b"x"),
        lambda: post("http://a.test/", json=object()),
        lambda: head("http://a.test/", body=b"x"),
        lambda: get("http://a.test/", timeout=-1),
        lambda: Timeout(attempt=float("inf")),
        lambda: Request(method="GET", url="nonsense"),
    ):
        with pytest.raises(MisuseError):
            call()


@given(st.dictionaries(st.text(min_size=1), st.binary(), min_size=1))
def test_multipart_can_be_read_back(fields):
    from email.parser import BytesParser

    made = post("http://a.test/", multipart={name: ("f", data) for name, data in fields.items()})
    content_type = dict(made.headers)["Content-Type"]
    boundary = content_type.partition("boundary=")[2].encode()
    assert all(boundary not in data for data in fields.values())
    parts = made.body.split(b"--" + boundary)
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    assert len(parts) == len(fields) + 2
    for part, data in zip(parts[1:-1], fields.values(), strict=True):
        head_, _, content = part.partition(b"\r\n\r\n")
        assert content == data + b"\r\n"
        assert BytesParser().parsebytes(head_[2:]).get_content_type() == "application/octet-stream"


def test_idempotency():
    assert get("http://a.test/").replayable
    assert not post("http://a.test/").replayable
    assert post("http://a.test/", idempotent=True).replayable
    assert not get("http://a.test/", idempotent=False).replayable
    assert post("http://a.test/", headers={"idempotency-key": '"1"'}).replayable


@given(st.binary())
def test_any_bytes_are_headers(raw):
    headers = Headers(raw)
    assert len(headers) == len(dict(headers))
    for name in headers:
        assert headers.get_all(name)


def test_header_blocks():
    raw = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\n"
        b"set-cookie: b=2\r\nX-Long: one\r\n  two\r\nbroken\r\n\r\n"
    )
    headers = Headers(raw)
    assert "link" not in headers
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert headers["SET-COOKIE"] == "a=1, b=2"
    assert headers["x-long"] == "one two"
    assert headers.get("absent") is None


@given(st.lists(st.floats(1e-6, 10_000), min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_right_within_two_percent(values, share):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    rank = max(0, -(-int(share * len(values) * 1_000_000) // 1_000_000) - 1)
    exact = sorted(values)[min(rank, len(values) - 1)]
    got = histogram.quantile(share)
    neighbours = [v for v in sorted(values) if abs(v - got) <= 0.021 * v + 1e-6]
    assert neighbours
    assert got <= max(values) * 1.03
    assert share < 1 or got >= exact * 0.97


@given(st.lists(st.integers(1, 60), unique=True).map(sorted), st.randoms(use_true_random=False))
def test_acknowledged_is_exactly_what_is_done(numbers, rng):
    tracker = AckTracker()
    started: list[int] = []
    open_: list[int] = []
    for number in numbers:
        tracker.start(number)
        started.append(number)
        open_.append(number)
        if rng.random() < 0.6:
            tracker.done(open_.pop(rng.randrange(len(open_))))
        progress = tracker.state()
        assert {n for n in started if n <= progress.through and n not in progress.open} == set(started) - set(
            open_
        )
    assert msgspec.json.decode(msgspec.json.encode(progress)) if numbers else True
