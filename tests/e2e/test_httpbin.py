"""httpbin behind gunicorn: what a well-known service says of our requests."""

import base64
import subprocess
import sys

import pytest

from support.nginx import wait_for_port
from support.ports import free_port
from yelpaze import Engine, delete, get, patch, post, put, request


@pytest.fixture(scope="module")
def httpbin():
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "--threads", "4",
         "-k", "gthread", "--log-level", "error", "httpbin:app"],
    )  # fmt: skip
    wait_for_port(port, process)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


async def json_of(made):
    async with Engine() as engine:
        outcome = await engine.send(made)
    assert outcome.ok, outcome.error
    return outcome.json()


async def test_methods_params_and_bodies(httpbin):
    assert (await json_of(get(f"{httpbin}/get", params={"a": "1 & 2", "b": ["x", "y"]})))["args"] == {
        "a": "1 & 2",
        "b": ["x", "y"],
    }
    for build, path in ((post, "post"), (put, "put"), (patch, "patch"), (delete, "delete")):
        assert (await json_of(build(f"{httpbin}/{path}", json={"ü": [1, None]})))["json"] == {"ü": [1, None]}
    assert (await json_of(post(f"{httpbin}/post", form={"a": "b&c", "d": "ü"})))["form"] == {
        "a": "b&c",
        "d": "ü",
    }


async def test_multipart(httpbin):
    got = await json_of(
        post(
            f"{httpbin}/post",
            multipart={"field": "plain", "file": ('a"b.txt', b"content\r\n--x", "text/plain")},
        )
    )
    assert got["form"] == {"field": "plain"}
    assert got["files"] == {"file": "content\r\n--x"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "brotli"])
async def test_encodings(httpbin, encoding):
    assert (await json_of(get(f"{httpbin}/{encoding}")))[
        {"gzip": "gzipped", "deflate": "deflated"}.get(encoding, encoding)
    ]


async def test_redirects_with_credentials_in_the_url(httpbin):
    async with Engine() as engine:
        outcome = await engine.send(get(f"{httpbin}/redirect/3"))
        assert outcome.ok
        assert len(outcome.attempts) == 4
        with_password = httpbin.replace("//", "//user:pass@")
        assert (await engine.send(get(f"{with_password}/basic-auth/user/pass"))).ok
        token = base64.b64encode(b"user:pass").decode()
        made = get(f"{httpbin}/basic-auth/user/pass", headers={"Authorization": f"Basic {token}"})
        assert (await engine.send(made)).ok


async def test_streamed_chunks_and_unusual_methods(httpbin):
    async with Engine() as engine:
        outcome = await engine.send(get(f"{httpbin}/stream/20"))
        assert outcome.body.count(b"\n") == 20
        assert (await engine.send(request("OPTIONS", f"{httpbin}/get"))).headers["Allow"]
        big = await engine.send(post(f"{httpbin}/post", body=b"x" * 1_000_000))
        assert len(big.json()["data"]) == 1_000_000


async def test_every_status_is_an_outcome(httpbin):
    async with Engine(retry=None) as engine:
        statuses = [200, 204, 304, 400, 401, 404, 418, 500, 503]
        outcomes = await engine.gather({str(s): get(f"{httpbin}/status/{s}") for s in statuses})
    assert [outcome.status for outcome in outcomes.values()] == statuses
    assert [outcome.ok for outcome in outcomes.values()] == [status < 400 for status in statuses]
