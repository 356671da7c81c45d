"""The known edges of libcurl, each held by a test; and zero CPU when idle.

Sockets are made by servers that do exactly what a script says, so that nothing here
depends on time but the time-outs under test themselves.
"""

import asyncio
import gzip
import resource
import socket
import ssl
import threading
import zlib
from contextlib import suppress

import brotli
import pytest

import yelpaze
from support.raw import Peer, answers, open_sockets
from yelpaze import Engine, ErrorKind, Flow, Response, Retry, Timeout, get, post, put


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def turns_while(seconds: float) -> float:
    """CPU seconds that the process uses while nothing should happen."""
    await asyncio.sleep(0)
    before = cpu()
    await asyncio.sleep(seconds)
    return cpu() - before


async def test_idle_connections_use_no_cpu(raw):
    server = await raw(answers)
    async with Engine() as engine:
        for _ in range(50):
            assert (await engine.send(get(server.url))).ok
        assert await turns_while(0.5) < 0.1
        assert engine._core.transport._released  # kept, registered, and silent


async def test_idle_close_by_the_peer_is_noticed_once_and_costs_nothing(raw):
    gone = asyncio.Event()

    async def closes_after_one(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        peer.close()
        gone.set()

    server = await raw(closes_after_one)
    async with Engine() as engine:
        assert (await engine.send(get(server.url))).ok
        await gone.wait()
        assert await turns_while(0.5) < 0.1
        assert not engine._core.transport._released
        assert (await engine.send(get(server.url))).ok
    assert server.connections == 2


async def test_a_descriptor_number_that_comes_back_is_watched_again(raw):
    """Closed by the peer, number reused by the next connection: once a hang of seconds."""

    async def closes_after_one(peer: Peer) -> None:
        await peer.request()
        await peer.answer(headers="Connection: close\r\n")

    server = await raw(closes_after_one)
    async with Engine(timeout=Timeout(attempt=30)) as engine:
        for _ in range(200):
            outcome = await engine.send(get(server.url, retry=False))
            assert outcome.ok, outcome.error
    assert server.connections == 200


async def test_connect_timeout_then_descriptor_reuse(raw):
    """A socket given up while connecting, its number reused at once by a good one."""
    server = await raw(answers)
    with socket.socket() as full:  # a listener whose queue is full answers no SYN
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            filler.append(client)
        dead = f"http://127.0.0.1:{full.getsockname()[1]}/"
        async with Engine(timeout=Timeout(connect=0.2), retry=None) as engine:
            for _ in range(3):
                outcome = await engine.send(get(dead))
                assert outcome.error is not None
                assert outcome.error.kind == ErrorKind.CONNECT_TIMEOUT
                good = await asyncio.wait_for(engine.send(get(server.url)), 30)
                assert good.ok
            assert await turns_while(0.3) < 0.1
        for client in filler:
            client.close()


async def test_cancelling_gives_slot_and_socket_back_at_once(raw):
    async def never_answers(peer: Peer) -> None:
        await peer.request()
        await asyncio.Event().wait()

    stuck = await raw(never_answers)
    fine = await raw(answers)
    async with Engine(concurrency=2, per_host=2) as engine:
        tasks = [asyncio.create_task(engine.send(get(stuck.url))) for _ in range(2)]
        while stuck.connections < 2:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert engine._core.slots.busy == 0
        assert engine.statistics().in_flight == 0
        assert (await asyncio.wait_for(engine.send(get(fine.url)), 30)).ok


async def test_a_post_on_a_dying_kept_connection_is_never_sent_twice(raw):
    """The peer takes the second request of a kept connection and dies without an answer."""
    posts = []

    async def dies_on_the_second(peer: Peer) -> None:
        while data := await peer.request():
            posts.append(data)
            if len(posts) == 2:
                peer.reset() if peer.number % 2 else peer.close()
                return
            await peer.answer()

    server = await raw(dies_on_the_second)
    async with Engine() as engine:
        assert (await engine.send(post(server.url, json={"pay": 1}))).ok
        outcome = await engine.send(post(server.url, json={"pay": 2}))
        assert outcome.error is not None
        assert outcome.error.kind == ErrorKind.PROTOCOL
        assert len(outcome.attempts) == 1
    assert sum(b'"pay":2' in data for data in posts) == 1


@pytest.mark.parametrize("options", [{}, {"body": b""}, {"form": {}}], ids=str)
async def test_a_post_without_a_body_gets_a_fresh_connection(raw, options):
    server = await raw(answers)
    async with Engine() as engine:
        for _ in range(3):
            assert (await engine.send(post(server.url, **options))).ok
    assert server.connections == 3


async def test_an_idempotent_request_survives_a_dying_kept_connection(raw):
    seen = []

    async def dies_on_the_second(peer: Peer) -> None:
        while data := await peer.request():
            seen.append(data)
            if len(seen) == 2:
                peer.reset()
                return
            await peer.answer()

    server = await raw(dies_on_the_second)
    async with Engine() as engine:
        assert (await engine.send(put(server.url, body=b"x"))).ok
        assert (await engine.send(put(server.url, body=b"x"))).ok


async def test_closing_in_mid_flight_ends_every_call_and_leaves_no_socket(raw):
    async def never_answers(peer: Peer) -> None:
        await peer.request()
        await asyncio.Event().wait()

    server = await raw(never_answers)
    before = open_sockets() + 0
    async with Engine(concurrency=100, per_host=100) as engine:
        tasks = [asyncio.create_task(engine.send(get(server.url))) for _ in range(100)]
        while server.connections < 100:
            await asyncio.sleep(0)
        await engine.close()
        outcomes = await asyncio.gather(*tasks)
    assert {outcome.error.kind for outcome in outcomes} == {ErrorKind.CANCELLED}
    await server.stop()
    async with asyncio.timeout(30):
        while open_sockets() > before:
            await asyncio.sleep(0)


async def test_closing_while_connecting_and_looking_up_does_not_block():
    class Never:
        def cached(self, host):
            return None

        def look_up(self, host, done, timeout):
            pass

        async def close(self):
            pass

    engine = Engine(resolver=Never)
    async with engine:
        task = asyncio.create_task(engine.send(get("http://never.test/")))
        await asyncio.sleep(0)
    outcome = await asyncio.wait_for(task, 30)
    assert outcome.error.kind == ErrorKind.CANCELLED


async def test_drain_lets_calls_end(raw):
    release = asyncio.Event()

    async def answers_when_told(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.answer()

    server = await raw(answers_when_told)
    async with Engine() as engine:
        task = asyncio.create_task(engine.send(get(server.url)))
        while not server.connections:
            await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close(drain=60))
        await asyncio.sleep(0)
        release.set()
        await closing
    assert (await task).ok


@pytest.mark.parametrize("how", ["reset", "close", "truncate"])
async def test_a_failing_get_is_tried_again_and_says_what_happened(raw, how):
    async def fails_once(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            if how == "truncate":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
            if how == "reset":
                peer.reset()
            return
        await peer.answer()

    server = await raw(fails_once)
    async with Engine(retry=Retry(base=0)) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.ok
    assert [attempt.error and attempt.error.kind for attempt in outcome.attempts] == [
        "protocol",
        None,
    ]


STRAY = {
    "a late 408": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a second answer": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
    "a line break": b"\r\n",
    "its end": b"",
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize(
    "request_of", [get, lambda url: post(url, body=b"x"), post], ids=["get", "post", "empty"]
)
async def test_what_arrives_on_an_idle_connection_is_nobodys_answer(
    raw, ca, ca_file, stray, secure, request_of
):
    """RFC 9112 §9.2."""
    idle, done = asyncio.Event(), asyncio.Event()

    async def says_more(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        if peer.number == 1:
            await idle.wait()
            await peer.send(STRAY[stray])
            if not STRAY[stray]:
                peer.close()
            done.set()
        while await peer.request():
            await peer.answer()

    context = None
    if secure:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("127.0.0.1").configure_cert(context)
    server = await raw(says_more, tls=context)
    async with Engine(ca_file=ca_file, retry=None) as engine:
        assert (await engine.send(get(server.url))).ok
        idle.set()
        await done.wait()
        outcome = await engine.send(request_of(server.url))
        assert (outcome.status, outcome.body) == (200, b"ok")
        assert (await engine.send(get(server.url))).body == b"ok"
    assert server.connections == 2


async def test_the_end_of_a_connection_that_was_answered_at_once_is_noticed():
    """The answer is there when the request is sent: libcurl has never waited to read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with Engine(retry=None) as engine:
            for _ in range(5):
                sending = asyncio.create_task(engine.send(post(url, body=b"x")))
                peer = None
                while peer is None:
                    await asyncio.sleep(0)
                    assert not sending.done(), sending.result().error
                    with suppress(BlockingIOError):
                        peer, _address = listener.accept()
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                outcome = await sending
                assert outcome.ok, outcome.error
                peer.shutdown(socket.SHUT_RDWR)
                peer.close()
                while engine._core.transport._released:
                    await asyncio.sleep(0)


async def test_many_kept_connections_that_end_at_once_cost_no_request(raw):
    ending = asyncio.Event()

    async def ends_when_told(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        if server.connections <= 50:
            await ending.wait()
            peer.close()
        while await peer.request():
            await peer.answer()

    server = await raw(ends_when_told)
    async with Engine(retry=None) as engine:
        requests = {n: post(server.url, body=b"x") for n in range(50)}
        assert all(outcome.ok for outcome in (await engine.gather(requests)).values())
        ending.set()
        while engine._core.transport._released:
            await asyncio.sleep(0)
        outcomes = await engine.gather(requests)
    assert [outcome.error for outcome in outcomes.values() if not outcome.ok] == []


def coded(text: bytes, coding: str) -> bytes:
    return {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding](text)


async def serves(raw, body: bytes, coding: str, framing: str):
    async def script(peer: Peer) -> None:
        while await peer.request():
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n"
            if framing == "length":
                await peer.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            elif framing == "chunked":
                chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                await peer.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n")
            else:
                await peer.send(f"{head}Connection: close\r\n\r\n".encode() + body)
                peer.close()
                return

    return await raw(script)


FRAMINGS = pytest.mark.parametrize("framing", ["length", "chunked", "close"])
CODINGS = pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])


@FRAMINGS
@CODINGS
async def test_a_coded_body_is_decoded_or_a_failure(raw, tmp_path, coding, framing):
    text = b"".join(b"%d," % n for n in range(20_000))
    whole = await serves(raw, coded(text, coding), coding, framing)
    cut = await serves(raw, coded(text, coding)[:-1], coding, framing)
    empty = await serves(raw, b"", coding, framing)
    async with Engine(retry=None) as engine:
        assert (await engine.send(get(whole.url))).body == text
        assert (await engine.send(get(whole.url), to=tmp_path / "whole")).ok
        assert (tmp_path / "whole").read_bytes() == text
        assert (await engine.send(get(empty.url))).ok
        for target in (None, tmp_path / "cut"):
            outcome = await engine.send(get(cut.url), to=target)
            assert (outcome.status, outcome.body) == (0, b"")
            assert outcome.error.kind == ErrorKind.PROTOCOL
            assert outcome.error.message == f"the {coding} body is cut short: its end is missing"
    assert not (tmp_path / "cut").exists()


async def test_a_coded_body_is_bounded_and_left_alone_where_nobody_asked(raw, tmp_path):
    packed = gzip.compress(bytes(1 << 20))
    server = await serves(raw, packed, "gzip", "length")
    async with Engine(max_body=1 << 19, retry=None) as engine:
        for target in (None, tmp_path / "bomb"):
            outcome = await engine.send(get(server.url), to=target)
            assert outcome.error.kind == ErrorKind.TOO_LARGE
    assert not (tmp_path / "bomb").exists()
    async with Engine(compressed=False) as engine:
        assert (await engine.send(get(server.url))).body == packed


async def test_a_coding_that_nobody_asked_for_is_named(raw):
    server = await serves(raw, b"x", "compress", "length")
    async with Engine(retry=None) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error.message == "Content-Encoding: 'compress' can't be decoded"


def test_what_arrives_while_a_callback_works_is_nobodys_answer(tmp_path):
    """A flow's second step works while its first answer's connection gets a second one."""
    sent, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))

    def serve():
        for number in range(2):
            peer, _ = listener.accept()
            with peer:
                while data := peer.recv(65536):
                    path = data.split(b" ")[1]
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
                    if not number:
                        stepping.wait(60)
                        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY")
                        sent.set()
                        break

    stepping = threading.Event()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    flow = Flow("f")

    @flow.request
    def first(row):
        return get(f"{url}/first")

    @flow.request
    def second(first):
        stepping.set()
        assert sent.wait(60)
        return get(f"{url}/second")

    @flow.compute
    def last(second: Response):
        return second.text

    (result,) = yelpaze.run(flow, [1])
    assert result.value == "/second"
    listener.close()
    thread.join(60)


async def test_libcurls_own_resending_uses_no_stale_connection(raw):
    """One kept connection dies when the request comes, and a stray answer waits on another one."""
    both, strayed = asyncio.Barrier(2), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number <= 2:
            await both.wait()
        await peer.answer()
        if peer.number == 1:
            await strayed.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY")
        while await peer.request():
            if peer.number == 2:
                strayed.set()
                await asyncio.sleep(0)
                peer.reset()
                return
            await peer.answer()

    server = await raw(script)
    async with Engine() as engine:
        outcomes = await engine.gather({"a": get(server.url), "b": get(server.url)})
        assert all(outcome.ok for outcome in outcomes.values())
        assert (await engine.send(get(server.url))).body == b"ok"


async def test_a_range_of_a_coded_body_is_given_as_it_is(raw):
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        headers = "Content-Encoding: gzip\r\nContent-Range: bytes 3-7/100\r\n"
        await peer.answer(b"\x08\x00\x00\x00\x00", status="206 Partial Content", headers=headers)

    server = await raw(script)
    async with Engine(retry=None) as engine:
        outcome = await engine.send(get(server.url, headers={"Range": "bytes=3-7"}))
    assert (outcome.status, outcome.body) == (206, b"\x08\x00\x00\x00\x00")
    assert b"accept-encoding" not in seen[0].lower()
