"""Globs, templates and lines of `yelpaze fetch`: pure, and hostile input stays inside."""

import os.path
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.fetch.globs import count, expand
from yelpaze.fetch.items import REMOTE_NAME, Shape, from_arguments, line_reader
from yelpaze.fetch.paths import Template, inside
from yelpaze.model.errors import MisuseError


@pytest.mark.parametrize(
    ("pattern", "urls"),
    [
        ("http://a/x", ["http://a/x"]),
        ("http://a/{x,y}", ["http://a/x", "http://a/y"]),
        ("http://a/{x,,y}", ["http://a/x", "http://a/", "http://a/y"]),
        ("http://a/[1-3]", ["http://a/1", "http://a/2", "http://a/3"]),
        ("http://a/[008-010]", ["http://a/008", "http://a/009", "http://a/010"]),
        ("http://a/[1-10:4]", ["http://a/1", "http://a/5", "http://a/9"]),
        ("http://a/[a-c]", ["http://a/a", "http://a/b", "http://a/c"]),
        ("http://a/[a-e:2]", ["http://a/a", "http://a/c", "http://a/e"]),
        ("http://{a,b}/[1-2]", ["http://a/1", "http://a/2", "http://b/1", "http://b/2"]),
        ("http://[::1]:80/[1-2]", ["http://[::1]:80/1", "http://[::1]:80/2"]),
        (r"http://a/\{x\}\[1\]", ["http://a/{x}[1]"]),
        (r"http://a/{x\,y,z}", ["http://a/x,y", "http://a/z"]),
    ],
)
def test_globs_are_those_of_curl(pattern, urls):
    assert [url for url, _ in expand(pattern)] == urls
    assert count(pattern) == len(urls)


def test_what_a_glob_took_can_be_named():
    assert list(expand("http://a/{x,y}/[1-2]"))[1] == ("http://a/x/2", ("x", "2"))
    assert list(expand("http://a/{x}", globbing=False)) == [("http://a/{x}", ())]


def test_a_huge_range_costs_nothing_until_it_is_used():
    urls = expand("http://a/[1-999999999999]")
    assert [url for url, _ in islice(urls, 2)] == ["http://a/1", "http://a/2"]
    assert count("http://a/[1-999999999999]") == 999_999_999_999


@pytest.mark.parametrize(
    "pattern",
    [
        "{a",
        "a}",
        "[1-",
        "1]",
        "[1]",
        "[5-1]",
        "[1-9:0]",
        "[a-Z]",
        "[1-2",
        "{}",
        "{a{b}}",
        "[1-9999999999999999999]",
        "[-1-3]",
    ],
)
def test_a_malformed_glob_says_what_is_wrong(pattern):
    with pytest.raises(MisuseError, match="bad glob"):
        list(expand(f"http://a/{pattern}"))


@given(st.text(alphabet="ab{}[],-:1\\0", max_size=12))
def test_globs_take_anything_or_say_so(text):
    try:
        urls = list(islice(expand(text), 50))
    except MisuseError:
        return
    assert len(urls) == min(count(text), 50)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("#1_#2.json", "x_2.json"),
        ("#3", "#3"),
        ("out/{n}.json", "out/7.json"),
        ("out/{host}/{name}", "out/a.test/page.html"),
        ("../{n}", "../7"),
        ("/tmp/{n}", "/tmp/7"),
        ("plain", "plain"),
    ],
)
def test_templates(template, path):
    assert Template(template).path("http://a.test:8080/d/page.html?q", 7, ("x", "2")) == path


def test_an_output_dir_comes_first():
    assert Template("{n}", "out").path("http://a/", 1, ()) == "out/1"
    for text in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(MisuseError, match="outside"):
            Template(text, "out")


@pytest.mark.parametrize(
    "values", [("../../etc/passwd",), ("..",), ("/etc/passwd",), ("a/../../../x",), (".",), ("",)]
)
@pytest.mark.parametrize("template", ["out/#1", "#1", "../#1"])
def test_what_a_url_says_cannot_leave_the_folder(template, values):
    where = Template(template)
    try:
        path = where.path("http://a/", 1, values)
    except MisuseError:
        return
    base = os.path.abspath(where.base)
    assert os.path.abspath(path).startswith(base + os.sep)


@given(st.text(max_size=30), st.sampled_from(["", "out", "..", "/srv/x", "a/../b"]))
def test_no_path_of_the_input_leaves_the_folder(path, folder):
    try:
        found = inside(path, folder)
    except MisuseError:
        return
    base = os.path.abspath(folder or ".")
    assert os.path.abspath(found).startswith(base + os.sep)


def paths(urls, outputs, **options):
    options = {"folder": "", "globbing": True, "name_all": False, **options}
    return [item.path for item in from_arguments(urls, outputs, Shape(), **options)]


def test_outputs_pair_with_urls_as_in_curl():
    assert paths(["http://a/1", "http://a/2", "http://a/3"], ["x", REMOTE_NAME]) == ["x", "2", None]
    assert paths(["http://a/1", "http://a/2"], ["{n}.json"]) == ["1.json", "2.json"]
    assert paths(["http://a/1", "http://a/2"], [], name_all=True) == ["1", "2"]
    assert paths(["a.test/x"], ["-"]) == [None]
    with pytest.raises(MisuseError, match="2 outputs"):
        paths(["http://a/"], ["x", "y"])


@pytest.mark.parametrize(
    ("line", "method", "body", "bad"),
    [
        (b"http://a/x", "GET", None, ""),
        (b'{"url":"http://a/x"}', "GET", None, ""),
        (b'{"url":"http://a/x","json":{"a":1}}', "POST", b'{"a":1}', ""),
        (b'{"url":"http://a/x","json":null}', "POST", b"null", ""),
        (b'{"url":"http://a/x","method":"put","data":"x"}', "PUT", b"x", ""),
        (b'{"url":"http://a/x","headers":{"X-A":"1"}}', "GET", None, ""),
        (b"nonsense", None, None, "only http"),
        (b"file:///etc/passwd", None, None, "only http"),
        (b'{"url":1}', None, None, "Expected `str`"),
        (b'{"method":"PUT"}', None, None, "missing required field `url`"),
        (b'{"url":"http://a","retries":1}', None, None, "unknown field `retries`"),
        (b'{"url":"http://a","output":"../x"}', None, None, "outside the folder"),
        (b'{"url":"http://a","output":"/etc/x"}', None, None, "outside the folder"),
        (b'{"url":"http://a","headers":{"a":"b\\r\\nc"}}', None, None, "CR"),
        (b"{", None, None, "not a request"),
        (b"\xff\xfe", None, None, "only http"),
    ],
)
def test_lines(line, method, body, bad):
    item = line_reader([], Shape(), folder="")(3, line)
    assert item.number == 3
    assert bad in item.bad
    assert bool(item.request) == (not bad)
    if item.request:
        assert (item.request.method, item.request.body) == (method, body)


def test_comments_are_no_lines_and_flags_hold_for_lines():
    read = line_reader(
        ["d/{n}"], Shape(method="PUT", headers=(("X-A", "1"), ("X-B", "2")), body=b"z"), folder=""
    )
    assert read(1, b"# a comment") is None
    item = read(2, b'{"url":"http://a/","headers":{"x-a":"9"}}')
    assert item.path == "d/2"
    assert (item.request.method, item.request.body) == ("PUT", b"z")
    assert dict(item.request.headers) == {"X-B": "2", "x-a": "9"}
