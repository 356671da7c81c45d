"""File descriptors that run out: fewer calls at once, and never a failure of the host."""

import asyncio
import os
import resource
import subprocess
import time
from contextlib import contextmanager

import pytest

from support.raw import Peer, answers
from support.service import YELPAZE
from yelpaze import Breaker, Engine, Retry, post
from yelpaze.process.descriptors import are_used_up, room_for_calls


def answer_of(call):
    time.sleep(0.02)  # so that calls overlap
    return {"k": 1}


@contextmanager
def none_left():
    """Every descriptor is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 1, hard))
    held = []
    try:
        while not are_used_up():
            held.append(os.dup(0))
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("resolver", ["auto", "system"])
async def test_running_out_is_no_failure_of_the_host(raw, name, resolver):
    async def closes(peer: Peer) -> None:
        await peer.request()
        await peer.answer(headers="Connection: close\r\n")

    server = await raw(closes)
    url = server.url.replace("127.0.0.1", name)
    options = {"breaker": Breaker(calls=1), "retry": Retry(attempts=2, base=0), "resolver": resolver}
    async with Engine(**options) as engine:
        assert (await engine.send(post(url, body=b"x"))).ok
        with none_left():
            outcome = await engine.send(post(url, body=b"x"))
        # Nothing was sent: a POST is tried again, too.
        assert [attempt.error.kind for attempt in outcome.attempts] == ["out_of_files"] * 2
        (host,) = engine.statistics().hosts.values()
        assert (host.failures, host.state) == (0, "closed")
        assert (await engine.send(post(url, body=b"x"))).ok


async def test_none_left_for_the_first_call(raw):
    server = await raw(answers)
    async with Engine(retry=None) as engine:
        with none_left():
            outcome = await engine.send(post(server.url, body=b"x"))
        assert outcome.error.kind == "out_of_files"
        assert (await engine.send(post(server.url, body=b"x"))).ok


def test_fewer_calls_where_fewer_files_may_be_open():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 300, hard))
        assert room_for_calls(40) == 40
        assert 80 <= room_for_calls(1000) <= 130
        assert Engine(concurrency=1000).concurrency == 1000

        async def opened():
            async with Engine(concurrency=1000) as engine:
                return engine.concurrency

        assert 80 <= asyncio.run(opened()) <= 130
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        assert room_for_calls(1000) >= 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("command", ["fetch", "run"])
def test_a_low_hard_limit_makes_fewer_calls_at_once(place, command):
    place.rows(150)
    place.flow("""
        flow = Flow("f")
        @flow.request
        def call(row): return get(f"{URL}/{row['n']}")
        @flow.compute
        def out(call): return 1
    """)
    url = place.service.url
    arguments = {
        "fetch": ["fetch", f"{url}/[1-150]", "-o", "x/{n}", "--parallel-max", "100"],
        "run": ["run", "flow.py", "in.jsonl", "--workers", "1"],
    }[command]
    script = 'ulimit -n 128; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *YELPAZE, *arguments],
        cwd=place.path,
        env=place.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "the limit is 128 open files (ulimit -n)" in done.stderr
    assert "defect" not in done.stderr
    if command == "fetch":
        assert len(list((place.path / "x").iterdir())) == 150
    else:
        assert place.numbers() == list(range(1, 151))
