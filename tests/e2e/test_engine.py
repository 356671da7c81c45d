"""The engine against servers: what it sends, what it gives back, what it refuses."""

import asyncio
import gzip
import ssl
import uuid
from pathlib import Path

import pytest
import trustme

from support.raw import Peer, answers
from yelpaze import (
    Engine,
    ErrorKind,
    FanOutError,
    Flow,
    MisuseError,
    Retry,
    Timeout,
    Tls,
    delete,
    get,
    head,
    patch,
    post,
    put,
    request,
)
from yelpaze.testing import MockTransport, Reply, run_simulated

ONCE = {"retry": None}


async def echo(peer: Peer) -> None:
    while data := await peer.request():
        await peer.answer(data)


async def sent(raw, request_) -> bytes:
    server = await raw(echo)
    async with Engine(rng=None) as engine:
        outcome = await engine.send(request_(server.url))
    assert outcome.ok, outcome.error
    return outcome.body


# ── requests ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("build", "start", "body"),
    [
        (
            lambda url: get(f"{url}/a?x=1", params={"q": "to do"}),
            b"GET /a?x=1&q=to+do HTTP/1.1",
            b"",
        ),
        (lambda url: post(url, json={"a": [1, 2]}), b"POST / HTTP/1.1", b'{"a":[1,2]}'),
        (lambda url: put(url, body="text"), b"PUT / HTTP/1.1", b"text"),
        (lambda url: patch(url, form={"a": "b c"}), b"PATCH / HTTP/1.1", b"a=b+c"),
        (lambda url: delete(url), b"DELETE / HTTP/1.1", b""),
        (lambda url: delete(url, json=1), b"DELETE / HTTP/1.1", b"1"),
        (lambda url: get(url, body=b"odd"), b"GET / HTTP/1.1", b"odd"),
        (lambda url: request("PURGE", url), b"PURGE / HTTP/1.1", b""),
        (lambda url: post(url, json={}, idempotent=True), b"POST / HTTP/1.1", b"{}"),
        (lambda url: post(url), b"POST / HTTP/1.1", b""),
    ],
)
async def test_methods_and_bodies_arrive_as_built(raw, build, start, body):
    data = await sent(raw, build)
    head_, _, content = data.partition(b"\r\n\r\n")
    assert head_.startswith(start)
    assert content == body
    if start[:4] in (b"POST", b"PUT ", b"PATC"):
        assert f"Content-Length: {len(body)}".encode() in head_
    assert b"Expect" not in head_
    assert b"chunked" not in head_.lower()


async def test_headers_arrive_once_and_as_given(raw):
    data = await sent(
        raw,
        lambda url: post(
            url,
            json={},
            headers={"Content-Type": "application/x-special", "X-Empty": "", "X-Name": "Ünal"},
        ),
    )
    assert data.lower().count(b"content-type:") == 1
    assert b"Content-Type: application/x-special\r\n" in data
    assert b"X-Empty:" in data
    assert "X-Name: Ünal".encode() in data


async def test_a_raw_body_gets_no_form_content_type(raw):
    assert b"content-type" not in (await sent(raw, lambda url: post(url, body=b"x"))).lower()


async def test_traceparent_is_new_for_each_attempt_and_carries_an_incoming_one(raw):
    seen = []

    async def fails_first(peer: Peer) -> None:
        while data := await peer.request():
            seen.append(data.split(b"traceparent: ")[1].split(b"\r\n")[0].decode())
            await peer.answer(status="503 Busy" if len(seen) == 1 else "200 OK")

    server = await raw(fails_first)
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with Engine(retry=Retry(base=0)) as engine:
        outcome = await engine.send(
            get(server.url, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-00"})
        )
    assert outcome.trace_id == trace
    (first, second) = (value.split("-") for value in seen)
    assert first[1] == second[1] == trace
    assert first[2] != second[2] != "b7ad6b7169203331"
    assert first[3] == "00"


# ── answers ─────────────────────────────────────────────────────────────────────


async def test_an_outcome_tells_everything(nginx, ca_file):
    async with Engine(ca_file=ca_file) as engine:
        first = await engine.send(get(nginx.url("http1", "/x")))
        second = await engine.send(get(nginx.url("http1", "/x")))
    assert first.ok
    assert first.status == 200
    assert first.json()["path"] == "/x"
    assert first.json()["connection"] == second.json()["connection"]
    assert first.headers["Content-Type"] == "application/json"
    assert first.remote_ip == "127.0.0.1"
    assert first.http_version == "1.1"
    assert 0 < first.timings.connect < first.timings.tls < first.timings.first_byte <= first.timings.total
    assert second.timings.connect == second.timings.tls == 0
    assert len(first.trace_id) == 32


async def test_http2_over_tls_shares_one_connection(nginx, ca_file):
    async with Engine(ca_file=ca_file, http_version="2") as engine:
        urls = [get(nginx.url("http2", f"/{n}")) for n in range(40)]
        outcomes = [outcome async for outcome in engine.stream(urls)]
    assert {outcome.http_version for outcome in outcomes} == {"2"}
    assert len({outcome.json()["connection"] for outcome in outcomes}) == 1


async def test_one_stalled_call_holds_up_no_other_on_a_cold_engine(raw):
    async def stalls_first(peer: Peer) -> None:
        while await peer.request():
            if peer.number == 1:
                await asyncio.Event().wait()
            await peer.answer()

    server = await raw(stalls_first)
    async with Engine(retry=None, timeout=Timeout(attempt=30)) as engine:
        stalled = engine.submit(get(server.url), lambda outcome: None)
        outcomes = [outcome async for outcome in engine.stream(get(server.url) for _ in range(20))]
        assert all(outcome.ok for outcome in outcomes)
        assert not stalled.abandoned


async def test_http_version_can_be_set(nginx, ca_file):
    async with Engine(ca_file=ca_file) as engine:
        assert (await engine.send(get(nginx.url("http2")))).http_version == "2"
    async with Engine(ca_file=ca_file, http_version="1.1") as engine:
        assert (await engine.send(get(nginx.url("http2")))).http_version == "1.1"
    async with Engine(http_version="2") as engine:
        assert (await engine.send(get(nginx.url("h2c")))).http_version == "2"


async def test_compressed_answers_are_decoded(nginx):
    async with Engine() as engine:
        outcome = await engine.send(get(nginx.url("plain", "/text/long.txt")))
    assert outcome.headers["content-encoding"] == "gzip"
    assert outcome.body == b"many words " * 10_000


async def test_a_head_answer_has_no_body(nginx):
    async with Engine() as engine:
        outcome = await engine.send(head(nginx.url("plain", "/text/long.txt")))
    assert outcome.ok
    assert outcome.body == b""


async def test_an_error_status_keeps_its_answer(nginx):
    async with Engine() as engine:
        outcome = await engine.send(get(nginx.url("plain", "/status/404")))
    assert not outcome.ok
    assert outcome.status == 404
    assert b"404" in outcome.body
    assert outcome.error.kind == "status"
    assert "Not Found" in outcome.error.message


# ── TLS ─────────────────────────────────────────────────────────────────────────


async def tls_error(raw, cert: trustme.LeafCert, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(context)
    server = await raw(answers, tls=context)
    async with Engine(retry=None, **options) as engine:
        return await engine.send(get(server.url))


async def test_an_expired_certificate_is_a_tls_error(raw, ca, ca_file):
    from datetime import UTC, datetime

    cert = ca.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    outcome = await tls_error(raw, cert, ca_file=ca_file)
    assert outcome.error.kind == "tls"
    assert "expired" in outcome.error.message


async def test_a_wrong_host_is_a_tls_error(raw, ca, ca_file):
    outcome = await tls_error(raw, ca.issue_cert("elsewhere.test"), ca_file=ca_file)
    assert outcome.error.kind == "tls"


async def test_an_unknown_authority_is_a_tls_error_and_verify_false_accepts_it(raw, ca_file):
    stranger = trustme.CA().issue_cert("127.0.0.1")
    assert (await tls_error(raw, stranger, ca_file=ca_file)).error.kind == "tls"
    assert (await tls_error(raw, stranger, verify=False)).ok


async def test_client_certificates(nginx, ca, ca_file, tmp_path):
    cert = ca.issue_cert("client@example.test")
    pem = tmp_path / "client.pem"
    pem.write_bytes(cert.private_key_and_cert_chain_pem.bytes())
    async with Engine(ca_file=ca_file) as engine:
        assert (await engine.send(get(nginx.url("clients")))).status == 400
    async with Engine(ca_file=ca_file, client_cert=str(pem)) as engine:
        assert (await engine.send(get(nginx.url("clients")))).ok


async def test_a_request_may_have_tls_settings_of_its_own(nginx, ca, ca_file, tmp_path):
    """Connections are matched by them: none is used for a request with others."""
    pem = tmp_path / "client.pem"
    pem.write_bytes(ca.issue_cert("client@example.test").private_key_and_cert_chain_pem.bytes())
    known, trusting, anyone = Tls(ca_file, str(pem)), Tls(ca_file), Tls(verify=False)
    plain = nginx.url("clients")
    async with Engine() as engine:  # which trusts the system's authorities only
        seen = {}
        for turn in range(2):
            assert (await engine.send(get(plain, retry=False))).error.kind == "tls"
            assert (await engine.send(get(plain, tls=trusting))).status == 400  # no certificate was sent
            assert (await engine.send(get(plain, tls=anyone))).status == 400
            outcome = await engine.send(get(plain, tls=known))
            assert outcome.ok
            seen[turn] = outcome.json()["connection"]
            assert (await engine.send(get(plain, tls=Tls(ca_file, str(pem))))).json()["connection"] == seen[
                turn
            ]
        assert seen[0] == seen[1]


async def test_tls_settings_stay_behind_when_a_redirect_leaves_the_origin(nginx, raw, ca_file):
    away = nginx.url("http1", "/there")

    async def redirects(peer):
        await peer.request()
        await peer.answer(status="302 Found", headers=f"Location: {away}\r\n")

    server = await raw(redirects)
    async with Engine(retry=None) as engine:
        outcome = await engine.send(get(server.url, tls=Tls(verify=False)))
        assert outcome.error.kind == "tls"
        assert (await engine.send(get(nginx.url("http1", "/away"), tls=Tls(verify=False)))).ok


async def test_identical_requests_with_other_tls_settings_share_no_call(nginx, ca_file):
    async with Engine(dedupe=True) as engine:
        url = nginx.url("http1")
        requests = [get(url, tls=Tls(ca_file)), get(url, tls=Tls(verify=False)), get(url, tls=Tls(ca_file))]
        outcomes = await asyncio.gather(*(engine.send(request) for request in requests))
        assert all(outcome.ok for outcome in outcomes)
        assert engine.statistics().shared == 1


def test_tls_settings_that_make_no_sense_are_refused(ca, tmp_path):
    first, second = (ca.issue_cert(f"{name}.test") for name in ("a", "b"))
    names = {}
    for name, blob in {
        "cert": first.cert_chain_pems[0],
        "key": first.private_key_pem,
        "other": second.private_key_pem,
        "both": first.private_key_and_cert_chain_pem,
    }.items():
        names[name] = str(tmp_path / f"Müller {name}.pem")
        blob.write_to_path(names[name])
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing")
    for options in (
        {"ca_file": str(tmp_path / "none.pem")},
        {"ca_file": str(tmp_path)},
        {"ca_file": str(garbage)},
        {"ca_file": 7},
        {"client_cert": str(tmp_path / "none.pem")},
        {"client_cert": str(garbage)},
        {"client_cert": (names["cert"], str(tmp_path / "none.key"))},
        {"client_cert": (names["cert"], names["other"])},
        {"client_cert": (names["cert"], names["key"], 7)},
        {"client_cert": ()},
        {"client_cert": 7},
        {"client_cert": (None, names["key"])},
        {"client_cert": ("a", "b", "c", "d")},
        {"verify": "no"},
    ):
        with pytest.raises(MisuseError):
            Tls(**options)
        with pytest.raises(MisuseError):
            Engine(**options)
    with pytest.raises(MisuseError, match=r"tls takes Tls\(…\)"):
        get("https://a.test/", tls={"verify": False})
    with pytest.raises(MisuseError, match="the key is not that of the certificate"):
        Tls(client_cert=(names["cert"], names["other"]))
    good = Tls(client_cert=[Path(names["cert"]), names["key"], "hunter2"])
    assert good == Tls(client_cert=(names["cert"], names["key"], "hunter2"))
    assert len({good, Tls(client_cert=names["both"])}) == 2
    assert "hunter2" not in repr(good)


async def test_certificates_with_any_path(nginx, ca, tmp_path):
    folder = tmp_path / "Müller & Söhne"
    folder.mkdir()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    pem = folder / "client.pem"
    pem.write_bytes(ca.issue_cert("client@example.test").private_key_and_cert_chain_pem.bytes())
    async with Engine() as engine:
        assert (await engine.send(get(nginx.url("clients"), tls=Tls(folder / "ca.pem", pem)))).ok


# ── faulty servers ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"garbage that is no HTTP\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", "protocol"),
        (b"", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "protocol"),
    ],
)
async def test_broken_answers_are_named(raw, reply, kind):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)

    server = await raw(script)
    async with Engine(**ONCE) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error is not None
    assert outcome.error.kind == kind
    assert outcome.status == 0


async def test_endless_headers_end(raw):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while not peer.writer.is_closing():
            await peer.send(b"X-More: " + b"a" * 1000 + b"\r\n")

    server = await raw(script)
    async with Engine(**ONCE) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error.kind == "protocol"


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_decompression_bomb_stops_at_the_cap(raw, encoding):
    # 8 MiB of zeros: as gzip, and as a hand-made brotli stream of repeated copies.
    zeros = gzip.compress(bytes(8 << 20)) if encoding == "gzip" else brotli_zeros()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(zeros, headers=f"Content-Encoding: {encoding}\r\n")

    server = await raw(script)
    async with Engine(**ONCE, max_body=1 << 20) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error is not None
    assert outcome.error.kind == "too_large"
    assert outcome.body == b"" or len(outcome.body) <= 1 << 20


def brotli_zeros() -> bytes:
    """8 MiB of zeros as brotli, by the encoder of the test environment."""
    import brotlicffi

    return brotlicffi.compress(bytes(8 << 20))


async def test_the_three_timeouts_are_told_apart(raw):
    async def silent(peer: Peer) -> None:
        await peer.request()
        await asyncio.Event().wait()

    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        await asyncio.Event().wait()

    quiet, slow = await raw(silent), await raw(drips)
    async with Engine(**ONCE) as engine:
        no_byte = await engine.send(get(quiet.url, timeout=Timeout(first_byte=0.1, attempt=30)))
        too_long = await engine.send(get(slow.url, timeout=Timeout(first_byte=1, attempt=1.2)))
        whole = await engine.send(get(quiet.url, timeout=0.1))
    assert no_byte.error.kind == "timeout.first_byte"
    assert too_long.error.kind == "timeout.attempt"
    assert whole.error.kind == "timeout.attempt"


async def test_waiting_for_a_slot_is_queued_time_and_no_timeout(raw):
    async def slow(peer: Peer) -> None:
        while await peer.request():
            await asyncio.sleep(0.3)
            await peer.answer()

    server = await raw(slow)
    async with Engine(concurrency=1, per_host=1, timeout=Timeout(attempt=1), **ONCE) as engine:
        outcomes = await asyncio.gather(*(engine.send(get(server.url)) for _ in range(5)))
    assert all(outcome.ok for outcome in outcomes)
    assert max(outcome.timings.total for outcome in outcomes) < 1
    assert max(outcome.elapsed for outcome in outcomes) > 1  # longer than an attempt may last


# ── retries ─────────────────────────────────────────────────────────────────────


async def test_statuses_are_retried_by_the_rules(raw):
    counts: dict[bytes, int] = {}

    async def by_path(peer: Peer) -> None:
        while data := await peer.request():
            method, path, _ = data.split(b" ", 2)
            key = method + path
            counts[key] = counts.get(key, 0) + 1
            await peer.answer(status=f"{path[1:].decode()} X")

    server = await raw(by_path)
    async with Engine(retry=Retry(attempts=3, base=0)) as engine:
        for status in (500, 503, 404):
            await engine.send(get(f"{server.url}/{status}"))
            await engine.send(post(f"{server.url}/{status}", body=b"x"))
        await engine.send(post(f"{server.url}/502", body=b"x", headers={"Idempotency-Key": '"k"'}))
        await engine.send(get(f"{server.url}/504", retry=False))
    assert counts == {
        b"GET/500": 3,
        b"POST/500": 1,
        b"GET/503": 3,
        b"POST/503": 3,
        b"GET/404": 1,
        b"POST/404": 1,
        b"POST/502": 3,
        b"GET/504": 1,
    }


async def test_retry_after_is_obeyed(raw):
    async def busy_once(peer: Peer) -> None:
        await peer.request()
        await peer.answer(status="429 Slow down", headers="Retry-After: 1\r\n")
        await peer.request()
        await peer.answer()

    server = await raw(busy_once)
    async with Engine(retry=Retry(base=0)) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.ok
    assert [attempt.status for attempt in outcome.attempts] == [429, 200]
    assert outcome.elapsed >= 1.0


async def test_a_refused_connection_is_tried_again_even_for_post(raw):
    server = await raw(answers)
    await server.stop()
    async with Engine(retry=Retry(attempts=3, base=0)) as engine:
        outcome = await engine.send(post(server.url, json={}))
    assert outcome.error.kind == "connect"
    assert len(outcome.attempts) == 3


# ── redirects ───────────────────────────────────────────────────────────────────


async def test_redirects_are_followed_in_bounds(raw, nginx):
    async with Engine() as engine:
        outcome = await engine.send(get(nginx.url("plain", "/away")))
        assert outcome.ok
        assert outcome.url.endswith("/here")
        assert [attempt.status for attempt in outcome.attempts] == [302, 200]
    async with Engine(max_redirects=0) as engine:
        assert (await engine.send(get(nginx.url("plain", "/away")))).status == 302

    async def loops(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(status="302 Found", headers="Location: /again\r\n")

    server = await raw(loops)
    async with Engine(max_redirects=3) as engine:
        outcome = await engine.send(get(server.url))
    assert outcome.error.kind == "protocol"
    assert "more than 3 redirects" in outcome.error.message


async def test_credentials_stay_behind_across_origins(raw):
    target = await raw(echo)

    async def away(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(status="307 Away", headers=f"Location: {target.url}/x\r\n")

    server = await raw(away)
    secrets = {
        "Authorization": "Bearer s",
        "Cookie": "c=s",
        "X-Token": "s",
        "X-Plain": "kept",
        "Host": "in.corp",
    }
    async with Engine(secret_headers=["X-Token"]) as engine:
        outcome = await engine.send(post(server.url, json={"a": 1}, headers=secrets))
    lines = outcome.body.lower()
    assert b"authorization" not in lines
    assert b"cookie" not in lines
    assert b"x-token" not in lines
    assert b"in.corp" not in lines
    assert b"x-plain: kept" in lines
    assert outcome.body.endswith(b'{"a":1}')


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[::1", "http://a\\b/"])
async def test_a_redirect_to_what_cannot_be_called_is_refused(raw, location):
    async def away(peer: Peer) -> None:
        await peer.request()
        await peer.answer(status="302 Found", headers=f"Location: {location}\r\n")

    server = await raw(away)
    async with Engine() as engine:
        outcome = await asyncio.wait_for(engine.send(get(server.url)), 30)
    assert outcome.error.kind == "protocol"
    assert "redirected to" in outcome.error.message


async def test_a_callback_that_raises_costs_no_other_call(raw):
    server = await raw(answers)
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))

    def raises(outcome):
        raise LookupError("mine")

    async with Engine(concurrency=2, per_host=2) as engine:
        for _ in range(5):
            engine.submit(get(server.url), raises)
        assert (await asyncio.wait_for(engine.send(get(server.url)), 30)).ok
        assert engine._core.slots.busy == 0
    assert len(told) == 5


async def test_the_error_body_of_any_server_stays_out_of_the_file(raw, tmp_path):
    async def fails(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(b"sorry", status="500 X", headers="Server: SimpleHTTP/0.6 Python/3.12\r\n")

    server = await raw(fails)
    chunks: list[bytes] = []
    async with Engine(retry=Retry(base=0)) as engine:
        outcome = await engine.send(get(server.url), to=chunks.append)
    assert chunks == []
    assert outcome.body == b"sorry"
    assert len(outcome.attempts) == 3


# ── many at once ────────────────────────────────────────────────────────────────


async def test_gather_settles_in_the_order_given(raw):
    server = await raw(answers)
    async with Engine(retry=None) as engine:
        outcomes = await engine.gather({"b": get(server.url), "a": get("http://127.0.0.1:1/")})
        assert await engine.gather({}) == {}
    assert list(outcomes) == ["b", "a"]
    assert outcomes["b"].ok
    assert outcomes["a"].error.kind == "connect"


async def test_gather_fail_fast_cancels_the_rest(raw):
    async def silent(peer: Peer) -> None:
        await peer.request()
        await asyncio.Event().wait()

    stuck = await raw(silent)
    async with Engine(retry=None) as engine:
        with pytest.raises(FanOutError) as caught:
            await engine.gather({"slow": get(stuck.url), "bad": get("http://127.0.0.1:1/")}, mode="fail_fast")
        assert engine.statistics().in_flight == 0
    assert caught.value.name == "bad"
    assert caught.value.outcome.error.kind == "connect"
    assert caught.value.arrived == {}


async def test_stream_takes_its_input_lazily_and_bounds_what_it_holds(raw):
    server = await raw(answers)
    taken = 0

    def requests():
        nonlocal taken
        while True:
            taken += 1
            yield get(server.url)

    async with Engine() as engine:
        given = 0
        stream = engine.stream(requests(), concurrency=5)
        async for outcome in stream:
            assert outcome.ok
            given += 1
            assert taken <= given + 5
            if given == 30:
                break
        await stream.aclose()
        assert engine.statistics().in_flight == 0


async def test_stream_takes_async_input_and_can_keep_the_order(raw):
    async def odd_ones_are_slow(peer: Peer) -> None:
        while data := await peer.request():
            if int(data.split(b" ")[1][1:]) % 2:
                await asyncio.sleep(0.02)
            await peer.answer(data.split(b" ")[1])

    server = await raw(odd_ones_are_slow)

    async def requests():
        for number in range(20):
            yield get(f"{server.url}/{number}")

    async with Engine() as engine:
        bodies = [outcome.body async for outcome in engine.stream(requests(), concurrency=4, ordered=True)]
    assert bodies == [f"/{number}".encode() for number in range(20)]


async def test_stream_raises_what_its_input_raises(raw):
    server = await raw(answers)

    async def breaks():
        yield get(server.url)
        raise LookupError("no more")

    async with Engine() as engine:
        with pytest.raises(LookupError):
            async for outcome in engine.stream(breaks()):
                assert outcome.ok


# ── streaming to a file ─────────────────────────────────────────────────────────


async def test_a_body_goes_to_a_file_whole_or_not_at_all(nginx, raw, tmp_path):
    path = tmp_path / "long.txt"
    async with Engine(retry=None) as engine:
        outcome = await engine.send(get(nginx.url("plain", "/text/long.txt")), to=path)
        assert outcome.ok
        assert outcome.body == b""
        assert path.read_bytes() == b"many words " * 10_000

        async def truncates(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")

        server = await raw(truncates)
        missing = tmp_path / "missing"
        assert not (await engine.send(get(server.url), to=missing)).ok
        not_found = await engine.send(get(nginx.url("plain", "/status/404")), to=missing)
        assert b"404" in not_found.body
        with pytest.raises(FileNotFoundError):
            await engine.send(get(nginx.url("plain")), to=tmp_path / "no" / "folder")
        chunks: list[bytes] = []
        await engine.send(get(nginx.url("plain", "/text/long.txt")), to=chunks.append)
        assert b"".join(chunks) == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.txt"]


# ── proxies ─────────────────────────────────────────────────────────────────────


async def test_a_proxy_is_used_for_plain_and_for_tunnels(raw, nginx, ca_file):
    asked = []

    async def proxy(peer: Peer) -> None:
        head_ = await peer.request()
        asked.append(head_.split(b"\r\n")[0])
        if not head_.startswith(b"CONNECT"):
            await peer.answer(b"by proxy")
            return
        host, port = head_.split(b" ")[1].split(b":")
        reader, writer = await asyncio.open_connection(host.decode(), int(port))
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pipe(source, sink) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()

        try:
            await asyncio.gather(pipe(peer.reader, writer), pipe(reader, peer.writer))
        finally:
            writer.close()

    server = await raw(proxy)
    async with Engine(proxy=server.url, ca_file=ca_file) as engine:
        plain = await engine.send(get("http://nowhere.test/x"))
        assert plain.body == b"by proxy"
        tunnel = await engine.send(get(nginx.url("http1", "/t")))
        assert tunnel.json()["path"] == "/t"
        assert tunnel.headers["server"].startswith("nginx")
    assert asked[0] == b"GET http://nowhere.test/x HTTP/1.1"
    assert asked[1].startswith(b"CONNECT 127.0.0.1:")


@pytest.mark.parametrize("status", [407, 403, 502])
async def test_a_proxy_that_refuses_a_tunnel_says_so_for_good(raw, status):
    async def refuses(peer):
        await peer.request()
        await peer.answer(status=f"{status} No", headers="Connection: close\r\n")

    server = await raw(refuses)
    async with Engine(proxy=server.url) as engine:
        if status == 502:  # which may pass
            assert len((await engine.send(get("https://a.test/"))).attempts) == 3
            return
        outcomes = [outcome async for outcome in engine.stream([get("https://a.test/")] * 25)]
        assert {(outcome.error.kind, len(outcome.attempts)) for outcome in outcomes} == {("proxy", 1)}
        assert f"the proxy refused: {status}" in outcomes[0].error.message
        (host,) = engine.statistics().hosts.values()
        assert (host.failures, host.state) == (0, "closed")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'\xef\xbb\xbf{"a": "\xc5\x9f"}', "application/json"),
        ('{"a": "ş"}'.encode("utf-16"), "application/json"),
        ('{"a": "ş"}'.encode("utf-16-be"), "application/json; charset=utf-16-be"),
        ('{"a": "ş"}'.encode("utf-32"), "application/json"),
        ('{"a": "ş"}'.encode("iso-8859-9"), "application/json; Charset=ISO-8859-9"),
        ('{"a": "ş"}'.encode(), "application/json; charset=nonsense"),
        ('{"a": "ş"}'.encode(), "application/json; charset=utf-8"),
    ],
)
def test_json_in_whatever_charset(body, content_type):
    mock = MockTransport({"*": Reply(body=body, headers={"Content-Type": content_type})})
    flow = Flow("f")

    @flow.request
    def call(row):
        return get("https://a.test/")

    @flow.compute
    def out(call: dict):
        return call

    (result,) = run_simulated(flow.run([1], engine={"transport": mock}))
    assert result.value == {"a": "ş"}


# ── misuse ──────────────────────────────────────────────────────────────────────


async def test_misuse_raises_at_once():
    with pytest.raises(MisuseError, match="async with"):
        await Engine().send(get("http://a.test/"))
    for options in (
        {"concurrency": 0},
        {"http_version": "3"},
        {"ca_file": "/none"},
        {"per_host": -1},
    ):
        with pytest.raises(MisuseError):
            Engine(**options)
    with pytest.raises(MisuseError):
        Timeout(connect=0)
    with pytest.raises(MisuseError):
        Retry(attempts=0)
    async with Engine() as engine:
        with pytest.raises(MisuseError):
            await engine.gather({}, mode="hope")


async def test_errors_compare_to_their_names():
    assert ErrorKind.CONNECT_TIMEOUT == "timeout.connect"


async def test_one_trace_id_for_a_page_and_tags_of_the_callers_own(raw):
    seen = []

    async def notes(peer: Peer) -> None:
        while data := await peer.request():
            seen.append(data.decode())
            await peer.answer()

    server = await raw(notes)
    page = "0af7651916cd43dd8448eb211c80319c"
    async with Engine(correlation_header="X-Request-ID") as engine:
        requests = {name: get(f"{server.url}/{name}", tag=name.upper()) for name in ("a", "b")}
        outcomes = await engine.gather(requests, trace_id=page)
        one = await engine.send(get(server.url, tag=3), trace_id=str(uuid.UUID(page)))
        other = await engine.send(get(server.url))
    assert {name: outcome.tag for name, outcome in outcomes.items()} == {"a": "A", "b": "B"}
    assert (one.tag, other.tag) == (3, None)
    assert {outcome.trace_id for outcome in (*outcomes.values(), one)} == {page}
    assert other.trace_id != page
    assert sum(f"traceparent: 00-{page}-" in text for text in seen) == 3
    assert sum(f"X-Request-ID: {page}" in text for text in seen) == 3
    parents = {text.partition(f"00-{page}-")[2][:16] for text in seen}
    assert len(parents) == 4  # a span id of its own for each


@pytest.mark.parametrize("bad", ["", "abc", "0" * 32, "g" * 32, 7])
async def test_a_trace_id_that_is_none(bad):
    async with Engine() as engine:
        with pytest.raises(MisuseError, match="32 hex digits"):
            await engine.send(get("http://a.test/"), trace_id=bad)
        with pytest.raises(MisuseError, match="32 hex digits"):
            await engine.gather({"a": get("http://a.test/")}, trace_id=bad)
