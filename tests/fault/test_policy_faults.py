"""Policies against real faults: services that go away, stall, drip, flood, truncate or redirect.

A proxy before a real nginx misbehaves as told; raw servers do what nginx cannot be made to do.
Time-outs and pauses pass on the loop's clock, which the tests put forward; everything else waits for
what it needs to see.
"""

import asyncio
import json
import os
import random
import ssl
import sys
import zlib
from collections import Counter

import pytest

from support.raw import Peer, answers
from support.toxic import Toxic
from support.waiting import until_true
from yelpaze import Breaker, Engine, ErrorKind, Hedge, Retry, Timeout, get
from yelpaze.http.spool import Spool
from yelpaze.http.timers import Timers


@pytest.fixture
async def toxic(nginx):
    """A factory of proxies: `await toxic()` stands before the real nginx."""
    proxies: list[Toxic] = []

    async def start(port: int = nginx.ports["plain"], **options) -> Toxic:
        proxy = Toxic(port, **options)
        await proxy.start()
        proxies.append(proxy)
        return proxy

    yield start
    for proxy in proxies:
        await proxy.stop()


async def stuck(peer: Peer) -> None:
    await peer.request()
    await peer.reader.read()


def engine_of(**options) -> Engine:
    """An engine whose time is the loop's."""
    return Engine(clock=asyncio.get_running_loop().time, **options)


def host_of(engine: Engine, url: str):
    return engine.statistics().hosts[url]


def kinds_of(outcomes) -> Counter:
    return Counter("ok" if outcome.ok else outcome.error.kind for outcome in outcomes)


# ── services that go away ───────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["refuse", "reset", "stall"])
async def test_a_service_that_comes_back_costs_no_request_made_in_bulk(toxic, fault):
    loop = asyncio.get_running_loop()
    proxy = await toxic()
    events, outcomes = [], []

    async def away() -> None:
        await proxy.turn(fault)
        await loop.advance_until(lambda: events.count("breaker.open") == 4, step=1)  # probes find it away
        await proxy.turn("pass")
        loop.advance(3)

    async with engine_of(
        breaker=Breaker(pause=3),
        timeout=Timeout(first_byte=3, attempt=10),
        on_event=lambda event: events.append(event.kind),
    ) as engine:
        async for outcome in engine.stream(get(f"{proxy.url}/{n}") for n in range(2000)):
            outcomes.append(outcome)
            if len(outcomes) == 500:
                outage = asyncio.create_task(away())
        await outage
        host = host_of(engine, proxy.url)
    assert kinds_of(outcomes) == {"ok": 2000}
    assert {outcome.json()["path"] for outcome in outcomes} == {f"/{n}" for n in range(2000)}
    assert events[0] == "breaker.open"
    assert events[-1] == "breaker.closed"
    assert "host.down" not in events
    assert host.state == "closed"
    assert host.failures >= 20
    # 64 are under way, and 20 fail before the breaker opens. A round of probes ends once 3 of 5 have failed; the
    # slots of those, and of what is left of the round before, have been given to others by then.
    probes = 10 * events.count("breaker.half_open")
    assert host.attempts <= 2000 + 64 + 20 + probes  # parked, not hammered


@pytest.mark.parametrize("fault", ["refuse", "stall"])
async def test_a_service_that_never_comes_back_is_given_up(toxic, fault):
    loop = asyncio.get_running_loop()
    proxy = await toxic()
    events, outcomes = [], []
    async with engine_of(
        breaker=Breaker(pause=3),
        park=15,
        timeout=Timeout(first_byte=3, attempt=10),
        on_event=lambda event: events.append(event.kind),
    ) as engine:
        gone, passing = 0.0, None
        async for outcome in engine.stream(get(proxy.url) for _ in range(2000)):
            outcomes.append(outcome)
            if len(outcomes) == 300:
                await proxy.turn(fault)
                gone = loop.time()
                passing = asyncio.create_task(loop.advance_until(lambda: len(outcomes) == 2000, step=1))
        await passing
        took = loop.time() - gone
        assert host_of(engine, proxy.url).state == "down"
        assert engine._core.slots.busy == 0
    kinds = kinds_of(outcomes)
    assert kinds.total() == 2000
    assert set(kinds) == {"ok", "host_down"}
    assert kinds["ok"] >= 300
    assert 14 < took < 60
    assert events.count("host.down") == 1


async def test_gather_gives_what_has_come_by_the_deadline(toxic):
    dead, slow, fine = await toxic(), await toxic(delay=lambda _: 0.3), await toxic()
    await dead.turn("stall")
    async with engine_of() as engine:
        loop = asyncio.get_running_loop()
        began = loop.time()
        calls = {"dead": get(dead.url), "slow": get(slow.url), "fine": get(fine.url)}
        gathering = asyncio.create_task(engine.gather(calls, deadline=2))
        await until_true(lambda: dead.stalled and engine.statistics().in_flight == 2)
        loop.advance(0.3)
        await until_true(lambda: engine.statistics().in_flight == 1)
        loop.advance(1.7)
        page = await gathering
        took = loop.time() - began
        assert engine.statistics().in_flight == 0
        assert engine._core.slots.busy == 0
    assert list(page) == ["dead", "slow", "fine"]
    assert 1.95 < took < 30  # when the dead one would have had no first byte for too long
    assert page["dead"].error.kind == ErrorKind.DEADLINE_TIMEOUT
    assert page["slow"].ok
    assert page["slow"].elapsed >= 0.29
    assert page["fine"].ok


async def test_hedging_hides_slow_answers_and_leaks_no_slot(raw):
    visits: Counter[bytes] = Counter()
    over = asyncio.Event()

    async def slow_at_first(peer: Peer) -> None:
        """One path in twenty is slow, the first time that it is asked for: its answer comes after all others."""
        while request := await peer.request():
            path = request.split(b" ")[1]
            visits[path] += 1
            if int(path[1:]) % 20 == 0 and visits[path] == 1:
                await over.wait()
            await peer.answer()

    server = await raw(slow_at_first)
    outcomes = []
    async with engine_of(hedge=Hedge(after=0.1, share=1.0)) as engine:
        loop = asyncio.get_running_loop()
        for turn in range(10):
            urls = [f"{server.url}/{turn * 20 + number}" for number in range(20)]
            sending = asyncio.gather(*(engine.send(get(url)) for url in urls))
            await until_true(lambda: visits[b"/%d" % (turn * 20)] and engine.statistics().in_flight <= 1)  # noqa: B023
            loop.advance(0.1)
            outcomes += await sending
        assert kinds_of(outcomes) == {"ok": 200}
        assert max(outcome.elapsed for outcome in outcomes) < 30  # when attempts would time out
        assert engine.statistics().hedges >= 10
        assert engine.statistics().in_flight == 0
        over.set()
        await until_true(lambda: engine._core.slots.busy == 0)
        assert host_of(engine, server.url).in_flight == 0
        assert not engine._core.transport._active


async def test_no_hedge_is_sent_when_the_deadline_comes_first(toxic):
    proxy = await toxic()
    async with engine_of(hedge=Hedge(after=0.5, share=1.0)) as engine:
        assert (await engine.send(get(proxy.url))).ok
        await proxy.turn("stall")
        sending = asyncio.create_task(engine.send(get(proxy.url), deadline=0.2))
        await until_true(lambda: proxy.stalled)
        asyncio.get_running_loop().advance(0.2)
        outcome = await sending
        assert engine.statistics().hedges == 0
    assert outcome.error.kind == ErrorKind.DEADLINE_TIMEOUT


# ── pauses ──────────────────────────────────────────────────────────────────────


def busy(times: float = float("inf"), after: str = "9999999999"):
    """A server that refuses so many requests, asking for a pause."""

    async def script(peer: Peer) -> None:
        nonlocal times
        while await peer.request():
            times -= 1
            if times >= 0:
                await peer.answer(status="503 Busy", headers=f"Retry-After: {after}\r\n")
            else:
                await peer.answer()

    return script


@pytest.mark.parametrize(
    "after", ["9999999999", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
)
async def test_an_absurd_retry_after_fails_at_once_where_there_is_a_deadline(raw, after):
    server = await raw(busy(after=after))
    async with engine_of() as engine:
        first = await engine.send(get(server.url), deadline=60)
        second = await engine.send(get(server.url), deadline=60)
    assert first.error.kind == second.error.kind == ErrorKind.DEADLINE_TIMEOUT
    assert (first.status, len(first.attempts)) == (503, 1)
    assert (second.status, second.attempts) == (0, ())  # the host is paused: not even sent
    assert first.elapsed < 30
    assert second.elapsed < 30


async def test_an_absurd_retry_after_is_cut_to_its_cap(raw):
    server = await raw(busy(times=1))
    async with engine_of(retry=Retry(retry_after_cap=0.2)) as engine:
        sending = asyncio.create_task(engine.send(get(server.url)))
        await until_true(lambda: engine.troubles())
        asyncio.get_running_loop().advance(0.2)
        outcome = await sending
    assert [attempt.status for attempt in outcome.attempts] == [503, 200]
    assert 0.2 <= outcome.elapsed < 30


# ── redirects ───────────────────────────────────────────────────────────────────

WHERE = ["relative", "same origin", "other port", "other host", "other scheme"]
KEPT = {"relative", "same origin"}


@pytest.fixture
async def redirecting(raw, toxic, ca):
    """Starts servers that redirect from /start to a place; gives its URL, and what they receive."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    async def start(where: str):
        seen: list[bytes] = []

        async def script(peer: Peer) -> None:
            while data := await peer.request():
                seen.append(data.lower())
                path = data.split(b" ")[1].decode()
                if path in places:
                    await peer.answer(status="307 Away", headers=f"Location: {places[path]}\r\n")
                else:
                    await peer.answer()

        plain, other, secure = await raw(script), await raw(script), await raw(script, tls=context)
        front = await toxic(plain.port, tls_port=secure.port)  # plain and TLS on one port
        places = {
            "/start": {
                "relative": "next",
                "same origin": f"HTTP://127.0.0.1:{front.port}/next",
                "other port": f"{other.url}/next",
                "other host": f"http://localhost:{front.port}/next",
                "other scheme": f"https://127.0.0.1:{front.port}/next",
            }[where],
            "/away": f"{other.url}/back",
            "/back": f"{front.url}/home",
        }
        return front, seen

    return start


SECRETS = {"AUTHORIZATION": "Bearer s", "cookie": "c=s", "x-API-key": "s", "X-Session": "s"}


@pytest.mark.parametrize("where", WHERE)
async def test_secret_headers_go_to_their_own_origin_only(redirecting, ca_file, where):
    front, seen = await redirecting(where)
    async with engine_of(secret_headers=["x-SESSION"], ca_file=ca_file) as engine:
        outcome = await engine.send(get(f"{front.url}/start", headers={**SECRETS, "X-Plain": "p"}))
    assert outcome.ok, outcome.error
    first, second = seen
    assert b"\r\nx-plain: p\r\n" in second
    for name in SECRETS:
        assert f"\r\n{name.lower()}:".encode() in first
        assert (f"\r\n{name.lower()}:".encode() in second) == (where in KEPT), name


@pytest.mark.parametrize(
    "where",
    WHERE,
)
async def test_a_password_in_the_url_goes_to_its_own_origin_only(redirecting, ca_file, where):
    front, seen = await redirecting(where)
    async with engine_of(ca_file=ca_file) as engine:
        outcome = await engine.send(get(f"http://user:pass@127.0.0.1:{front.port}/start"))
        assert outcome.ok, outcome.error
        assert (await engine.send(get(f"{front.url}/later"))).ok
    first, second, later = seen
    assert b"\r\nauthorization: basic" in first
    assert (b"\r\nauthorization:" in second) == (where in KEPT)
    assert b"\r\nauthorization:" not in later  # nor kept by a handle that is used again


async def test_secrets_do_not_come_back_with_the_way_back(redirecting):
    front, seen = await redirecting("relative")
    with_password = f"http://user:pass@127.0.0.1:{front.port}/away"
    async with engine_of(secret_headers=["X-Session"]) as engine:
        assert (await engine.send(get(f"{front.url}/away", headers=SECRETS))).url.endswith("/home")
        assert (await engine.send(get(with_password))).url.endswith("/home")
    assert len(seen) == 6
    for data in (seen[1], seen[2], seen[4], seen[5]):
        assert not any(f"\r\n{name.lower()}:".encode() in data for name in SECRETS)


# ── floods ──────────────────────────────────────────────────────────────────────

# ru_maxrss of a child begins at its parent's; VmHWM is its own.
CLIENT = """
import asyncio, json, sys, time
from yelpaze import Engine, get

def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

async def main(fine, bad):
    async with Engine(retry=None, max_body=1 << 20, timeout=60) as engine:
        assert (await engine.send(get(fine))).ok
        before, began = peak_kib(), time.monotonic()
        outcomes = [await engine.send(get(bad)) for _ in range(5)]
        took, grown = time.monotonic() - began, peak_kib() - before
        after = await engine.send(get(fine))
    print(json.dumps({
        "kinds": [outcome.error and outcome.error.kind for outcome in outcomes],
        "body": max(len(outcome.body) for outcome in outcomes),
        "seconds": took, "grown_mib": grown / 1024, "usable": after.ok,
    }))

asyncio.run(main(*sys.argv[1:]))
"""


async def flooded(nginx, server) -> dict:
    """What becomes of a process of its own that calls the server five times."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, nginx.url("plain"), server.url, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(printed)


def bomb(encoding: str) -> bytes:
    """64 MiB of zeros."""
    zeros = bytes(64 << 20)
    if encoding == "br":
        import brotlicffi

        return brotlicffi.compress(zeros, quality=5)
    packed = zlib.compress(zeros, 1, wbits=31)
    return zlib.compress(packed, wbits=31) if encoding == "gzip, gzip" else packed


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
async def test_a_decompression_bomb_costs_no_memory(raw, nginx, encoding):
    packed = bomb(encoding)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(packed, headers=f"Content-Encoding: {encoding}\r\n")

    seen = await flooded(nginx, await raw(script))
    assert seen["kinds"] == ["too_large"] * 5
    assert seen["body"] <= 1 << 20
    assert seen["grown_mib"] < 16
    assert seen["usable"]


@pytest.mark.parametrize("how", ["one field", "many fields", "interim answers"])
async def test_ten_megabytes_of_headers_are_refused(raw, nginx, how):
    flood = {
        "one field": b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000_000 + b"\r\n\r\n",
        "many fields": b"HTTP/1.1 200 OK\r\n" + b"X-More: %s\r\n" % (b"a" * 90) * 100_000 + b"\r\n",
        "interim answers": b"HTTP/1.1 103 Early Hints\r\nLink: %s\r\n\r\n" % (b"a" * 60) * 105_000,
    }[how]
    assert len(flood) > 10_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(flood)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    seen = await flooded(nginx, await raw(script))
    assert seen["kinds"] == ["protocol"] * 5
    assert seen["seconds"] < 30
    assert seen["grown_mib"] < 24
    assert seen["usable"]


# ── drips ───────────────────────────────────────────────────────────────────────

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("at_once", "drip", "kinds"),
    [
        (OK + b"Content-Length: 1000000\r\n\r\n", b"x", {"timeout.attempt"}),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", {"timeout.attempt"}),
        (OK + b"Connection: close\r\n\r\n", b"x", {"timeout.attempt"}),
        (OK + b"X-Slow: ", b"x", {"timeout.attempt"}),
        (OK, b"X-Slow: x\r\n", {"timeout.attempt"}),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", {"timeout.attempt", "timeout.first_byte"}),
        (b"HTTP/1.1 200 ", b"O", {"timeout.attempt", "timeout.first_byte"}),
    ],
    ids=["body", "chunks", "until close", "one field", "many fields", "interim answers", "status line"],
)
async def test_an_answer_that_drips_for_ever_ends(raw, at_once, drip, kinds):
    left = asyncio.Event()

    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(at_once)
        while not peer.reader.at_eof():
            await peer.send(drip)
            await asyncio.sleep(0.05)
        left.set()

    server = await raw(drips)
    async with engine_of(retry=None, timeout=Timeout(first_byte=0.5, attempt=1)) as engine:
        sending = asyncio.create_task(engine.send(get(server.url)))
        if kinds == {"timeout.attempt"}:
            await until_true(lambda: any(one.head for one in engine._core.transport._active.values()))
        await asyncio.get_running_loop().advance_until(sending.done, step=0.05)
        outcome = await sending
        assert engine._core.slots.busy == 0
        await until_true(left.is_set)  # the connection is closed at once, too
    assert outcome.error.kind in kinds
    assert 0.45 < outcome.elapsed < 30


# ── downloads ───────────────────────────────────────────────────────────────────

LONG = b"many words " * 10_000


@pytest.fixture(params=["nameless", "part"])
def spooling(request, monkeypatch):
    """Files without a name until they are whole, and file systems that have no such thing."""
    if request.param == "part":
        monkeypatch.setattr("yelpaze.http.spool._NAMELESS", None)
    return request.param


@pytest.mark.parametrize("compressed", [True, False])
async def test_a_truncated_download_leaves_nothing_and_a_retry_makes_it_whole(
    toxic, tmp_path, spooling, compressed
):
    at = 400 if compressed else 50_000  # within the body, packed or not
    proxy = await toxic(cut=lambda number: at if number <= 2 else None)
    path = tmp_path / "long.txt"
    path.write_bytes(b"old")
    async with engine_of(retry=Retry(attempts=2, base=0), compressed=compressed) as engine:
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt", retry=False), to=tmp_path / "new")
        assert outcome.error.kind == ErrorKind.PROTOCOL
        assert os.listdir(tmp_path) == ["long.txt"]
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt"), to=path)
    assert [attempt.status for attempt in outcome.attempts] == [0, 200]
    assert path.read_bytes() == LONG
    assert os.listdir(tmp_path) == ["long.txt"]


async def test_the_old_file_stays_until_the_new_one_is_whole(toxic, tmp_path, spooling):
    proxy = await toxic(cut=lambda _: 50_000)
    path = tmp_path / "long.txt"
    path.write_bytes(b"old")
    async with engine_of(retry=Retry(attempts=2, base=0), compressed=False) as engine:
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt"), to=path)
    assert len(outcome.attempts) == 2
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["long.txt"]


async def test_a_callable_gets_no_second_beginning(toxic):
    proxy = await toxic(cut=lambda number: 50_000 if number == 1 else None)
    chunks: list[bytes] = []
    async with engine_of(retry=Retry(base=0), compressed=False) as engine:
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt"), to=chunks.append)
        assert proxy.connections == 1
    assert outcome.error.kind == ErrorKind.PROTOCOL
    assert len(outcome.attempts) == 1
    assert 0 < len(b"".join(chunks)) < 50_000
    assert LONG.startswith(b"".join(chunks))


async def test_a_callable_that_got_nothing_gets_another_attempt(toxic):
    proxy = await toxic(cut=lambda number: 10 if number == 1 else None)
    chunks: list[bytes] = []
    async with engine_of(retry=Retry(base=0), compressed=False) as engine:
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt"), to=chunks.append)
    assert len(outcome.attempts) == 2
    assert b"".join(chunks) == LONG


async def test_a_callable_that_can_restart_gets_another_attempt(toxic):
    class Buffer(bytearray):
        def __call__(self, data: bytes) -> None:
            self.extend(data)

        restart = bytearray.clear

    proxy = await toxic(cut=lambda number: 50_000 if number == 1 else None)
    buffer = Buffer()
    async with engine_of(retry=Retry(base=0), compressed=False) as engine:
        outcome = await engine.send(get(f"{proxy.url}/text/long.txt"), to=buffer)
    assert len(outcome.attempts) == 2
    assert buffer == LONG


async def spooled(engine: Engine, url: str, spool: Spool):
    done = asyncio.get_running_loop().create_future()
    engine.submit(get(url), done.set_result, spool=spool)
    return await asyncio.wait_for(done, 30)


@pytest.mark.parametrize("when", ["before", "during"])
async def test_without_clobber_no_file_is_replaced(raw, tmp_path, spooling, when):
    path = tmp_path / "file"

    async def halves(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK + b"Content-Length: 8\r\n\r\nhalf")
            await until_true(lambda: spool.delivered == 4)
            if when == "during":
                path.write_bytes(b"other")
            await peer.send(b"half")

    server = await raw(halves)
    if when == "before":
        path.write_bytes(b"other")
    spool = Spool(path, clobber=False)
    async with engine_of() as engine:
        outcome = await spooled(engine, server.url, spool)
        assert engine._core.slots.busy == 0
    assert isinstance(spool.error, FileExistsError)
    assert not outcome.ok
    assert path.read_bytes() == b"other"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "spooling",
    ["nameless", "part"],
    indirect=True,
)
async def test_without_clobber_a_new_file_is_made(nginx, tmp_path, spooling):
    spool = Spool(tmp_path / "file", clobber=False)
    async with engine_of() as engine:
        assert (await spooled(engine, nginx.url("plain", "/text/long.txt"), spool)).ok
    assert (tmp_path / "file").read_bytes() == LONG
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 200", id="status line"),
        pytest.param(OK, id="no field"),
        pytest.param(OK + b"Content-Length: 10\r\n", id="no empty line, length"),
        pytest.param(OK + b"Server: ngi", id="half a field"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n", id="no empty line, chunked"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: x", id="interim fields"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", id="interim only"),
    ],
)
async def test_an_answer_cut_anywhere_is_no_answer(raw, tmp_path, reply, how):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)
        peer.close() if how == "close" else peer.reset()

    server = await raw(script)
    async with engine_of(retry=None) as engine:
        outcome = await engine.send(get(server.url), to=tmp_path / "file")
    assert outcome.error is not None
    assert outcome.error.kind == ErrorKind.PROTOCOL
    assert os.listdir(tmp_path) == []


# ── closing ─────────────────────────────────────────────────────────────────────


def resources() -> tuple[int, int, int]:
    """Descriptors, tasks and timers."""
    timers = asyncio.get_running_loop()._scheduled
    return (
        len(os.listdir("/proc/self/fd")),
        len(asyncio.all_tasks()),
        sum(not timer.cancelled() for timer in timers),
    )


def no_more_than(before: tuple[int, int, int]) -> bool:
    return all(now <= then for now, then in zip(resources(), before, strict=True))


async def assert_closes_in_mid_flight(before, engine: Engine, tasks) -> None:
    await engine.close()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert {outcome.error.kind for outcome in outcomes} == {ErrorKind.CANCELLED}
    assert engine.statistics().in_flight == 0
    assert len(engine._core.timers) == 0
    await until_true(lambda: no_more_than(before))


async def test_closing_ends_hedged_calls(toxic):
    proxy = await toxic()
    before = resources()
    async with engine_of(hedge=Hedge(after=0.05, share=1.0)) as engine:
        for _ in range(5):
            assert (await engine.send(get(proxy.url))).ok
        await until_true(lambda: engine._core.slots.busy == 0)  # one that was slow has been hedged, too
        hedges = engine.statistics().hedges
        await proxy.turn("stall")
        tasks = [asyncio.create_task(engine.send(get(proxy.url))) for _ in range(5)]
        await until_true(lambda: proxy.stalled == 10)
        assert engine.statistics().hedges == hedges + 5
        await assert_closes_in_mid_flight(before, engine, tasks)


async def test_closing_ends_what_a_hedge_has_beaten(raw):
    is_next_stuck = False

    async def answers_all_but_one(peer: Peer) -> None:
        nonlocal is_next_stuck
        while await peer.request():
            if is_next_stuck:
                is_next_stuck = False
                await peer.reader.read()
                return
            await peer.answer()

    server = await raw(answers_all_but_one)
    before = resources()
    async with engine_of(connections=0, hedge=Hedge(after=0.05, share=1.0)) as engine:
        for _ in range(2):
            assert (await engine.send(get(server.url))).ok
        await until_true(lambda: engine._core.slots.busy == 0)
        hedges, is_next_stuck = engine.statistics().hedges, True
        assert (await engine.send(get(server.url))).ok
        assert engine.statistics().hedges == hedges + 1
        assert engine._core.slots.busy == 1  # the one that is stuck, unheard
    await until_true(lambda: no_more_than(before))


async def test_timers_set_by_timers_wake_the_loop_once_each():
    loop = asyncio.get_running_loop()
    timers = Timers(loop, loop.time)
    before, wakes, fire = resources(), 0, timers._fire
    done = asyncio.Event()

    def counted() -> None:
        nonlocal wakes
        wakes += 1
        fire()

    def again(left: int) -> None:
        if left:
            timers.at(loop.time() + 0.001, lambda: again(left - 1))
        else:
            done.set()

    timers._fire = counted
    timers.at(loop.time() + 60, lambda: None)
    again(50)
    await asyncio.wait_for(done.wait(), 30)
    timers.close()
    assert wakes <= 60
    assert no_more_than(before)


async def test_closing_ends_parked_calls(toxic):
    proxy = await toxic()
    await proxy.turn("refuse")
    before = resources()
    async with engine_of() as engine:
        stream = engine.stream(get(proxy.url) for _ in range(100))
        tasks = [asyncio.create_task(anext(stream))]
        await until_true(lambda: proxy.url in engine.statistics().hosts)
        await until_true(lambda: host_of(engine, proxy.url).waiting == 100)
        assert host_of(engine, proxy.url).state == "open"
        await engine.close()
        outcomes = [await tasks[0]] + [outcome async for outcome in stream]
    assert kinds_of(outcomes) == {"cancelled": 100}
    assert len(engine._core.timers) == 0
    await until_true(lambda: no_more_than(before))


async def test_closing_ends_paused_calls(raw):
    server = await raw(busy(after="60"))
    before = resources()
    async with engine_of() as engine:
        tasks = [asyncio.create_task(engine.send(get(server.url)))]
        await until_true(lambda: server.url in engine.statistics().hosts)
        await until_true(lambda: host_of(engine, server.url).paused > 1)
        tasks.append(asyncio.create_task(engine.send(get(server.url))))
        await until_true(lambda: host_of(engine, server.url).waiting == 1)
        await assert_closes_in_mid_flight(before, engine, tasks)


async def test_closing_ends_calls_that_look_a_name_up_or_wait_for_a_slot(raw):
    server = await raw(stuck)
    before = resources()
    async with engine_of(concurrency=2, per_host=1) as engine:
        tasks = [asyncio.create_task(engine.send(get(server.url), deadline=9)) for _ in range(5)]
        tasks.append(asyncio.create_task(engine.send(get(f"http://localhost:{server.port}/"), deadline=9)))
        await until_true(lambda: server.connections)
        await assert_closes_in_mid_flight(before, engine, tasks)


# ── callbacks that raise ────────────────────────────────────────────────────────


@pytest.fixture
async def reported():
    messages: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    return messages


def raises(_outcome) -> None:
    raise LookupError("mine")


async def test_a_callback_that_raises_does_not_stop_closing(raw, reported):
    server = await raw(stuck)
    told = []
    before = resources()
    async with engine_of() as engine:
        engine.submit(get(server.url), raises)
        engine.submit(get(server.url), told.append)
        await until_true(lambda: server.connections == 2)
        await engine.close()
    assert kinds_of(told) == {"cancelled": 1}
    assert len(reported) == 1
    await until_true(lambda: no_more_than(before))


async def test_a_callback_that_raises_costs_no_other_call_when_the_breaker_opens(raw, reported):
    async def fails(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(status="500 X")

    server = await raw(fails)
    told = []
    async with engine_of(per_host=1, retry=None, breaker=Breaker(calls=1)) as engine:
        engine.submit(get(server.url), told.append)
        engine.submit(get(server.url), raises)
        engine.submit(get(server.url), told.append)
        await until_true(lambda: host_of(engine, server.url).state == "open")
        await until_true(lambda: len(told) == 2)
        assert engine.statistics().in_flight == 0
        assert engine._core.slots.busy == 0
    assert kinds_of(told) == {"status": 1, "breaker_open": 1}


async def test_a_callback_that_raises_costs_no_other_who_shares_the_call(raw, reported):
    server = await raw(answers)
    told = []
    async with engine_of(dedupe=True) as engine:
        engine.submit(get(server.url), raises)
        engine.submit(get(server.url), told.append)
        await until_true(lambda: server.connections)
        await until_true(lambda: told)
        assert engine.statistics().shared == 1
    assert kinds_of(told) == {"ok": 1}


# ── chance ──────────────────────────────────────────────────────────────────────


async def test_whatever_the_proxy_does_every_call_ends_once(toxic):
    loop = asyncio.get_running_loop()
    rng = random.Random(7)
    proxy = await toxic(
        delay=lambda number: rng.choice((0.0, 0.0, 0.0, 0.2)),
        cut=lambda number: rng.choice((None, None, 0)),  # nothing but whole answers, or none
    )
    outcomes = []

    async def moody() -> None:
        for mode in ("stall", "pass", "refuse", "pass", "reset", "pass"):
            await proxy.turn(mode)
            end = loop.time() + 0.3
            await loop.advance_until(lambda: loop.time() > end, step=0.05)  # noqa: B023

    async with engine_of(
        breaker=Breaker(pause=0.1),
        hedge=Hedge(after=0.05, share=0.5),
        timeout=Timeout(first_byte=0.25, attempt=0.5),
        retry=Retry(attempts=3, base=0.01),
    ) as engine:
        urls = [f"{proxy.url}/{n}" for n in range(1000)]
        moods = None
        async for outcome in engine.stream(get(url) for url in urls):
            outcomes.append(outcome)
            moods = moods or asyncio.create_task(moody())
        await moods
        await until_true(lambda: engine._core.slots.busy == 0)
        assert engine.statistics().in_flight == 0
    assert sorted(outcome.request.url for outcome in outcomes) == sorted(urls)
    assert all(outcome.json()["path"] in outcome.url for outcome in outcomes if outcome.ok)
