"""Single checks of the monitor against servers, name servers and certificates that misbehave."""

import asyncio
import contextlib
import gzip
import math
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dnslib.server import DNSServer

from support.checked_sites import (
    DAY,
    Filtered,
    Names,
    check_of,
    checked,
    context_of,
    expiring,
    incomplete_chain,
    not_yet_valid,
    now,
    old_protocol,
    over_tls,
    self_signed,
    serving_on,
    summary,
    texts,
    unknown_authority,
    wrong_host,
)
from support.mail import MailServer
from support.needed import needs
from support.ports import free_port
from support.raw import answers
from support.waiting import until
from yelpaze.http.resolver import AsyncResolver
from yelpaze.model.errors import InputError
from yelpaze.monitor.config.loading import config_of
from yelpaze.monitor.probe.checker import Checker, check_once
from yelpaze.monitor.probe.icmp import is_allowed
from yelpaze.monitor.probe.schedule import Entry

SHORT = {"client": {"timeout": "250ms"}}
UP = "[CONNECTED] == true"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nUP"


def saying(*parts, then="close"):
    """A script that sends these parts after a request, and then closes, resets or stalls."""

    async def script(peer):
        await peer.request()
        for part in parts:
            await peer.send(part)
        if then == "stall":
            await asyncio.Event().wait()
        elif then == "reset":
            peer.reset()
        else:
            peer.close()

    return script


async def silent(peer):
    await asyncio.Event().wait()


def client(ca_file="", **more):
    """Settings of an endpoint's client, with an authority to trust."""
    return {"client": {"timeout": "2s", "tls": {"ca-file": ca_file}, **more}}


@pytest.fixture(scope="module")
def names():
    names = Names()
    server = DNSServer(names, port=free_port(), address="127.0.0.1")
    server.start_thread()
    names.address = f"127.0.0.1:{server.server.server_address[1]}"
    yield names
    server.stop()
    server.server.server_close()


@pytest.fixture
def asking(names):
    """An endpoint's settings: names are asked of the fixture's server."""
    return {"client": {"timeout": "1s", "dns-resolver": f"udp://{names.address}"}}


@pytest.fixture
def system_names(names, monkeypatch):
    """Checks that are not of HTTP ask the fixture's server in place of the system's."""
    monkeypatch.setattr(
        "yelpaze.monitor.probe.checker.AsyncResolver", lambda *_, **__: AsyncResolver([names.address])
    )


@pytest.fixture
def mute():
    """The address of a name server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{hole.getsockname()[1]}"


# ── HTTP: status and redirects ──────────────────────────────────────────────────


@pytest.mark.parametrize(("head", "get"), [(200, 503), (503, 200)])
async def test_head_and_get_are_judged_apart(raw, head, get):
    async def script(peer):
        while request := await peer.request():
            is_head = request.startswith(b"HEAD")
            status = head if is_head else get
            await peer.answer(b"" if is_head else b"page", f"{status} Status")

    server = await raw(script)
    for method, status in (("HEAD", head), ("GET", get)):
        verdict = await checked(server.url, method=method)
        assert summary(verdict) == (status == 200, "", status, True)
        shown = "" if status == 200 else f" ({status})"
        assert texts(verdict) == [f"[STATUS]{shown} == 200"]


async def test_a_head_answers_length_is_not_that_of_a_body(raw):
    server = await raw(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"))
    verdict = await checked(server.url, "[STATUS] == 200", "len([BODY]) == 0", method="HEAD")
    assert summary(verdict) == (True, "", 200, True)


async def test_an_error_status_that_is_wanted_is_a_success(raw):
    server = await raw(saying(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\ndown"))
    verdict = await checked(server.url, "[STATUS] == 503", "[BODY] == down")
    assert summary(verdict) == (True, "", 503, True)


def redirecting(location, status="302 Found"):
    async def script(peer):
        while await peer.request():
            await peer.answer(b"", status, f"Location: {location}\r\n")

    return script


async def test_a_redirect_loop_ends(raw):
    server = await raw(redirecting("/"))
    verdict = await checked(server.url)
    assert not verdict.success
    assert texts(verdict) == ["[STATUS] (302) == 200"]
    assert server.connections == 11  # the first, and ten redirects


@pytest.mark.parametrize("location", ["/", "ftp://127.0.0.1/"], ids=["loop", "scheme"])
@pytest.mark.parametrize("condition", ["[STATUS] < 400", UP])
async def test_a_redirect_that_leads_nowhere_is_a_failure(raw, location, condition):
    server = await raw(redirecting(location))
    verdict = await checked(server.url, condition)
    assert not verdict.success
    assert verdict.reply.error == "protocol"
    assert "redirect" in verdict.reply.message


async def test_redirects_are_followed_unless_they_are_ignored(raw):
    async def script(peer):
        while request := await peer.request():
            if b" /old " in request:
                await peer.answer(b"moved", "301 Moved", "Location: /new\r\n")
            else:
                await peer.answer(b"new")

    server = await raw(script)
    verdict = await checked(f"{server.url}/old", "[STATUS] == 200", "[BODY] == new")
    assert summary(verdict) == (True, "", 200, True)
    ignoring = {"client": {"ignore-redirect": True}}
    verdict = await checked(f"{server.url}/old", "[STATUS] == 301", "[BODY] == moved", **ignoring)
    assert summary(verdict) == (True, "", 301, True)
    verdict = await checked(f"{server.url}/old", **ignoring)
    assert not verdict.success
    assert texts(verdict) == ["[STATUS] (301) == 200"]


async def test_an_ignored_redirect_loop_is_one_request(raw):
    server = await raw(redirecting("/"))
    verdict = await checked(server.url, "[STATUS] == 302", client={"ignore-redirect": True})
    assert summary(verdict) == (True, "", 302, True)
    assert server.connections == 1


def slow_hops(seconds):
    """Each answer takes so long; /3 leads to /2, and so on."""

    async def script(peer):
        while request := await peer.request():
            number = int(request.split(b" ")[1][1:])
            await asyncio.sleep(seconds)
            location = f"Location: /{number - 1}\r\n"
            await (peer.answer(b"", "302 Found", location) if number else peer.answer(b"UP"))

    return script


async def test_the_response_time_counts_redirects(raw):
    server = await raw(slow_hops(0.15))
    verdict = await checked(f"{server.url}/2", "[STATUS] == 200", "[RESPONSE_TIME] >= 400")
    assert texts(verdict)[0] == "[STATUS] == 200"
    assert verdict.success
    assert verdict.reply.duration >= 400


async def test_the_time_out_is_of_the_whole_check(raw):
    server = await raw(slow_hops(0.2))
    verdict = await checked(f"{server.url}/3", client={"timeout": "400ms"})
    assert not verdict.success
    assert verdict.reply.error.startswith("timeout")


async def test_a_redirect_with_retry_after_does_not_hold_up_a_check(raw):
    async def script(peer):
        while request := await peer.request():
            headers = "Location: /new\r\nRetry-After: 30\r\n"
            await (peer.answer(b"UP") if b"/new" in request else peer.answer(b"", "302 Found", headers))

    server = await raw(script)
    async with asyncio.timeout(1):
        verdict = await checked(server.url, **SHORT)
    assert verdict.success or verdict.reply.error.startswith("timeout")


# ── HTTP: answers that break off, stall or never come ───────────────────────────


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "then"),
    [
        pytest.param((HEAD + b"UP",), "close", id="Content-Length too long"),
        pytest.param((CHUNKED + b"2\r\nUP\r\n",), "close", id="chunked without its end"),
        pytest.param((CHUNKED + b"64\r\nUP",), "close", id="in the middle of a chunk"),
        pytest.param((HEAD + b"UP",), "reset", id="reset in the body"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Le",), "close", id="in the head"),
        pytest.param((), "close", id="closed before an answer"),
        pytest.param((), "reset", id="reset before an answer"),
        pytest.param((b"SSH-2.0-OpenSSH_9.2\r\n",), "close", id="not HTTP"),
    ],
)
@pytest.mark.parametrize("condition", ["[STATUS] == 200", "[BODY] == UP"])
async def test_an_answer_that_breaks_off_is_a_failure(raw, parts, then, condition):
    server = await raw(saying(*parts, then=then))
    verdict = await checked(server.url, condition)
    assert summary(verdict) == (False, "protocol", 0, False)
    assert texts(verdict) == [condition.replace("]", "] (0)" if "STATUS" in condition else "] ()")]
    assert verdict.reply.message


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="before the first byte"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Le",), id="in the head"),
        pytest.param((HEAD + b"UP",), id="in the body"),
        pytest.param((CHUNKED + b"2\r\nUP\r\n",), id="between chunks"),
    ],
)
async def test_an_answer_that_stalls_times_out(raw, parts):
    server = await raw(saying(*parts, then="stall"))
    verdict = await checked(server.url, "[STATUS] == 200", "[RESPONSE_TIME] < 200", **SHORT)
    success, error, status, connected = summary(verdict)
    assert (success, error.partition(".")[0], status, connected) == (False, "timeout", 0, False)
    status, response_time = texts(verdict)
    assert status == "[STATUS] (0) == 200"
    assert re.fullmatch(r"\[RESPONSE_TIME\] \(\d{3,}\) < 200", response_time)
    assert "0.25 s" in verdict.reply.message
    assert 240 <= verdict.reply.duration < 2000


async def test_a_time_out_is_no_connection_for_conditions(raw):
    server = await raw(saying(then="stall"))
    verdict = await checked(server.url, "[CONNECTED] == false", **SHORT)
    assert verdict.success  # since that is what was asked for
    assert verdict.reply.error.startswith("timeout")


@pytest.mark.parametrize("scheme", ["http", "tcp", "tls", "https", "starttls", "grpc"])
async def test_a_server_that_accepts_and_says_nothing_times_out(raw, scheme):
    if scheme == "grpc":
        needs("grpc", "grpc_health")
    server = await raw(silent)
    body = {"body": "ping"} if scheme == "tcp" else {}
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", UP, **SHORT, **body)
    success, error, status, connected = summary(verdict)
    assert (success, error.partition(".")[0], status, connected) == (False, "timeout", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]


@pytest.mark.parametrize("scheme", ["http", "https", "tcp", "tls", "starttls"])
async def test_a_port_that_answers_no_connection_times_out(scheme):
    with Filtered() as port:
        verdict = await checked(f"{scheme}://127.0.0.1:{port}", UP, **SHORT)
    success, error, status, connected = summary(verdict)
    assert (success, error.partition(".")[0], status, connected) == (False, "timeout", 0, False)


@pytest.mark.parametrize("scheme", ["http", "https", "tcp", "tls", "starttls", "grpc"])
async def test_a_closed_port_is_a_failure_to_connect(scheme):
    if scheme == "grpc":
        needs("grpc", "grpc_health")
    verdict = await checked(f"{scheme}://127.0.0.1:{free_port()}", UP, client={"timeout": "1s"})
    assert summary(verdict) == (False, "connect", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]
    assert verdict.reply.message


async def test_a_closed_port_may_be_what_is_wanted():
    for scheme in ("http", "tcp"):
        verdict = await checked(f"{scheme}://127.0.0.1:{free_port()}", "[CONNECTED] == false")
        assert summary(verdict) == (True, "connect", 0, False)


async def test_conditions_on_no_answer_do_not_make_a_success():
    verdict = await checked(f"http://127.0.0.1:{free_port()}", "[STATUS] != 200", "[RESPONSE_TIME] < 9000")
    assert [one.success for one in verdict.conditions] == [True, True]
    assert summary(verdict) == (False, "connect", 0, False)


# ── HTTP: content ───────────────────────────────────────────────────────────────

LOGIN = b"<!doctype html><title>Sign in</title><form action=/login><input type=password></form>"


@pytest.mark.parametrize(
    ("body", "condition", "shown"),
    [
        pytest.param(
            b'{"status":"DOWN"}',
            "[BODY].status == UP",
            "[BODY].status (DOWN) == UP",
            id="wrong content",
        ),
        pytest.param(LOGIN, "[BODY].status == UP", "[BODY].status (INVALID) == UP", id="login page for JSON"),
        pytest.param(
            LOGIN,
            "[BODY] == pat(*Welcome*)",
            "[BODY] (<!doctype html><title>Sig...(truncated)) == pat(*Welcome*)",
            id="login page",
        ),
        pytest.param(
            LOGIN,
            "[BODY] != pat(*type=password*)",
            "[BODY] (<!doctype html><title>Sig...(truncated)) != pat(*type=password*)",
            id="login page, told by its form",
        ),
        pytest.param(b"", "[BODY] == pat(*Welcome*)", "[BODY] () == pat(*Welcome*)", id="empty page"),
        pytest.param(b"", "len([BODY]) > 0", "len([BODY]) (0) > 0", id="empty page, by its length"),
        pytest.param(b"", "[BODY].status == UP", "[BODY].status (INVALID) == UP", id="empty page for JSON"),
        pytest.param(
            b'{"items":[]}', "len([BODY].items) > 0", "len([BODY].items) (0) > 0", id="an empty list"
        ),
    ],
)
async def test_content_is_judged_though_the_status_is_good(raw, body, condition, shown):
    async def script(peer):
        while await peer.request():
            await peer.answer(body)

    server = await raw(script)
    verdict = await checked(server.url, "[STATUS] == 200", condition)
    assert summary(verdict) == (False, "", 200, True)
    assert texts(verdict) == ["[STATUS] == 200", shown]


CAP = 1 << 20


@pytest.mark.parametrize("kind", ["whole", "chunked", "endless", "broken off later"])
async def test_a_large_body_is_read_to_the_cap(raw, kind):
    body = b"UP" + b"x" * 3 * CAP

    async def script(peer):
        await peer.request()
        if kind == "whole":
            await peer.answer(body)
        elif kind == "chunked":
            await peer.send(CHUNKED + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        elif kind == "endless":
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\nUP")
            while True:
                peer.writer.write(b"x" * 65536)
                await peer.writer.drain()
        else:
            await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-CAP])
            peer.close()

    server = await raw(script)
    conditions = ("[STATUS] == 200", "[BODY] == pat(UP*)", f"len([BODY]) == {CAP}")
    verdict = await checked(server.url, *conditions)
    assert texts(verdict) == list(conditions)
    assert summary(verdict) == (True, "", 200, True)


async def test_what_stands_beyond_the_cap_is_not_seen(raw):
    server = await raw(saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * CAP + b"END"))
    verdict = await checked(server.url, "[BODY] == pat(*END)")
    assert summary(verdict) == (False, "", 200, True)


async def zipped(peer):
    while await peer.request():
        await peer.answer(gzip.compress(b'{"status":"UP"}'), headers="Content-Encoding: gzip\r\n")


async def test_a_coded_body_does_not_matter_for_the_status(raw):
    server = await raw(zipped)
    assert summary(await checked(server.url)) == (True, "", 200, True)
    broken = await raw(
        saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nno gzip!")
    )
    assert summary(await checked(broken.url)) == (True, "", 200, True)


async def test_a_coded_body_is_decoded_for_conditions(raw):
    server = await raw(zipped)
    verdict = await checked(server.url, "[BODY].status == UP")
    assert texts(verdict) == ["[BODY].status == UP"]


async def test_a_request_asks_for_no_coding(raw):
    seen = []

    async def script(peer):
        seen.append(await peer.request())
        await peer.answer()

    server = await raw(script)
    await checked(server.url)
    assert b"accept-encoding" not in seen[0].lower()


# ── HTTP: what is sent, and what is known of the answer ─────────────────────────


@pytest.fixture
async def noting(raw):
    """A server that keeps the requests it gets."""

    async def script(peer):
        while request := await peer.request():
            server.requests.append(request)
            await peer.answer()

    server = await raw(script)
    return server


async def test_a_request_arrives_as_it_is_written(noting):
    await checked(
        f"{noting.url}/path?a=b%20c",
        method="put",
        headers={"X-Key": "a, b", "content-type": "text/plain", "X-Number": 7},
        body="[ENDPOINT_NAME]: caf\u00e9\n",
    )
    [request] = noting.requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"PUT /path?a=b%20c HTTP/1.1"
    assert {b"X-Key: a, b", b"content-type: text/plain", b"X-Number: 7"} <= set(headers)
    assert f"Host: 127.0.0.1:{noting.port}".encode() in headers
    assert body == "site: caf\u00e9\n".encode()
    assert not [one for one in headers if one.lower().startswith(b"traceparent")]


async def test_a_host_header_replaces_the_urls(noting):
    await checked(noting.url, headers={"Host": "shop.test"})
    [request] = noting.requests
    assert re.findall(rb"(?im)^host: (.*)\r$", request) == [b"shop.test"]


async def test_a_graphql_query_is_wrapped_in_json(noting):
    await checked(f"{noting.url}/graphql", method="POST", graphql=True, body='{ user(name: "a") { id } }')
    [request] = noting.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /graphql HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert body == b'{"query":"{ user(name: \\"a\\") { id } }"}'


@pytest.mark.parametrize("scheme", ["http", "tcp"])
async def test_what_conditions_can_know_of_a_connection(raw, scheme):
    server = await raw(answers)
    conditions = ("[IP] == 127.0.0.1", UP, "[RESPONSE_TIME] < 5000", "[IP] != ::1")
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", *conditions)
    assert verdict.success, texts(verdict)
    assert 0 <= verdict.reply.answer.response_time <= verdict.reply.duration < 5000
    look_up, connected, _, first_byte = verdict.reply.timings
    assert 0 <= look_up <= connected <= first_byte <= verdict.reply.duration


@pytest.mark.parametrize("scheme", ["http", "tcp"])
async def test_a_literal_ipv6_address_is_checked(scheme):
    server, port = await serving_on("::1")
    async with server:
        verdict = await checked(f"{scheme}://[::1]:{port}", UP, "[IP] == ::1")
    assert verdict.success, texts(verdict)


@pytest.mark.parametrize(
    "endpoint",
    [{"method": "HEAD", "body": "x"}, {"method": "GE T"}],
    ids=["HEAD with a body", "no method"],
)
async def test_a_request_that_cannot_be_made_ends_no_checker(noting, endpoint):
    try:
        verdict = await checked(noting.url, **endpoint)
    except InputError:
        return  # better still
    assert not verdict.success
    assert verdict.reply.error


# ── names ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("label", "code"),
    [("missing", "NXDOMAIN"), ("broken", "SERVFAIL"), ("refused", "REFUSED"), ("empty", "NODATA")],
)
async def test_a_name_without_an_address_is_a_failure_with_its_code(asking, label, code):
    verdict = await checked(f"http://{label}.test/", "[STATUS] == 200", UP, "[IP] == 127.0.0.1", **asking)
    assert summary(verdict) == (False, "dns", 0, False)
    assert texts(verdict) == ["[STATUS] (0) == 200", "[CONNECTED] (false) == true", "[IP] () == 127.0.0.1"]
    assert f"'{label}.test'" in verdict.reply.message
    assert verdict.reply.message.endswith(f"({code})")


async def test_a_name_server_that_does_not_answer_times_out(mute):
    settings = {"client": {"timeout": "300ms", "dns-resolver": mute}}
    verdict = await checked("http://good.test/", **settings)
    assert summary(verdict) == (False, "dns", 0, False)
    assert verdict.reply.message.endswith("within 0.3 s (TIMEOUT)")


async def test_a_name_server_that_is_away_is_told():
    settings = {"client": {"timeout": "1s", "dns-resolver": f"127.0.0.1:{free_port()}"}}
    verdict = await checked("http://good.test/", **settings)
    assert summary(verdict) == (False, "dns", 0, False)
    assert verdict.reply.message.endswith("(UNREACHABLE)")


async def test_a_name_with_the_wrong_address_is_a_failure_to_connect(raw, asking):
    server = await raw(answers)
    verdict = await checked(f"http://away.test:{server.port}/", **asking)
    assert summary(verdict) == (False, "connect", 0, False)


async def test_a_wrong_address_is_told_by_a_condition(raw, asking):
    server = await raw(answers)
    conditions = ("[STATUS] == 200", "[IP] == 192.0.2.1")
    verdict = await checked(f"http://good.test:{server.port}/", *conditions, **asking)
    assert summary(verdict) == (False, "", 200, True)
    assert texts(verdict) == ["[STATUS] == 200", "[IP] (127.0.0.1) == 192.0.2.1"]


async def test_a_name_that_has_an_ipv6_address_only_is_checked(asking):
    server, port = await serving_on("::1")
    async with server:
        verdict = await checked(f"http://six.test:{port}/", "[STATUS] == 200", "[IP] == ::1", **asking)
        assert verdict.success, texts(verdict)
        only_4 = {"client": {**asking["client"], "network": "ip4"}}
        verdict = await checked(f"http://six.test:{port}/", **only_4)
    assert summary(verdict) == (False, "dns", 0, False)
    assert "no IPv4 address" in verdict.reply.message


@pytest.mark.parametrize("address", ["127.0.0.8", "127.0.0.9"])
async def test_http_tries_each_address_of_a_name(asking, address):
    server, port = await serving_on(address)
    async with server:
        verdict = await checked(f"http://two.test:{port}/", f"[IP] == {address}", **asking)
    assert verdict.success, texts(verdict)


async def test_tcp_tries_each_address_of_a_name(system_names):
    for address in ("127.0.0.8", "127.0.0.9"):  # in whatever order they come
        server, port = await serving_on(address)
        async with server:
            verdict = await checked(f"tcp://two.test:{port}", UP, f"[IP] == {address}")
        assert verdict.success, texts(verdict)


@pytest.mark.parametrize(("label", "code"), [("missing", "NXDOMAIN"), ("broken", "SERVFAIL")])
@pytest.mark.parametrize("scheme", ["tcp", "udp", "tls", "starttls", "icmp"])
async def test_other_checks_of_a_name_without_an_address_fail(system_names, scheme, label, code):
    port = "" if scheme == "icmp" else ":9"
    verdict = await checked(f"{scheme}://{label}.test{port}", UP, client={"timeout": "1s"})
    assert summary(verdict) == (False, "dns", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]
    assert verdict.reply.message.endswith(f"({code})")


async def test_tcp_asks_the_name_server_that_is_given(raw, asking):
    server = await raw(answers)
    verdict = await checked(f"tcp://good.test:{server.port}", UP, **asking)
    assert verdict.success, verdict.reply.message


@pytest.mark.parametrize("scheme", ["tcp", "icmp"])
async def test_other_checks_use_the_family_that_is_given(system_names, scheme):
    port = "" if scheme == "icmp" else f":{free_port()}"
    for network, ip in (("ip4", "127.0.0.1"), ("ip6", "::1")):
        settings = {"client": {"timeout": "1s", "network": network}}
        verdict = await checked(f"{scheme}://both.test{port}", UP, **settings)
        assert verdict.reply.answer.ip == ip


@pytest.mark.parametrize("server", ["dns.test:53", "udp://127.0.0.1:99999"])
async def test_a_name_server_that_is_no_address_does_not_hang(server):
    async with asyncio.timeout(1):
        try:
            verdict = await checked("http://good.test/", client={"timeout": "200ms", "dns-resolver": server})
        except InputError:
            return  # better still
    assert summary(verdict) == (False, "dns", 0, False)


# ── TLS ─────────────────────────────────────────────────────────────────────────


def faulty(name, ca, folder):
    match name:
        case "expired":
            return expiring(ca, -3)
        case "not yet valid":
            return not_yet_valid(ca)
        case "wrong host":
            return wrong_host(ca)
        case "unknown authority":
            return unknown_authority(ca)
        case "self-signed":
            return self_signed(folder)
        case _:
            return incomplete_chain(ca, folder)


@pytest.mark.parametrize("scheme", ["https", "tls"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("wrong host", "127.0.0.1"),
        ("unknown authority", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("incomplete chain", "unable to get local issuer certificate"),
    ],
)
async def test_a_faulty_certificate_is_a_failure_unless_insecure(
    raw, ca, ca_file, tmp_path, scheme, name, why
):
    server = await raw(over_tls(faulty(name, ca, tmp_path), OK))
    url = f"{scheme}://127.0.0.1:{server.port}"
    verdict = await checked(url, UP, **client(ca_file))
    assert summary(verdict) == (False, "tls", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]
    assert why in verdict.reply.message.replace("self signed", "self-signed")
    verdict = await checked(url, UP, **client(ca_file, insecure=True))
    assert summary(verdict) == (True, "", 200 if scheme == "https" else 0, True)


@pytest.mark.parametrize("scheme", ["https", "tls"])
@pytest.mark.parametrize("insecure", [False, True])
async def test_a_server_that_speaks_old_tls_only_is_a_failure(raw, ca, ca_file, scheme, insecure):
    server = await raw(over_tls(old_protocol(ca), OK))
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", UP, **client(ca_file, insecure=insecure))
    assert summary(verdict) == (False, "tls", 0, False)
    assert "version" in verdict.reply.message.lower()


@pytest.mark.parametrize("scheme", ["https", "tls"])
@pytest.mark.parametrize("insecure", [False, True])
async def test_plain_http_on_the_tls_port_is_a_failure(raw, scheme, insecure):
    async def script(peer):
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await peer.reader.read()

    server = await raw(script)
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", UP, **client(insecure=insecure))
    assert summary(verdict) == (False, "tls", 0, False)
    assert "wrong version number" in verdict.reply.message.lower().replace("_", " ")


async def test_tls_on_the_plain_port_is_a_failure(raw, ca):
    server = await raw(answers, tls=expiring(ca, 30))
    verdict = await checked(f"http://127.0.0.1:{server.port}", UP)
    assert summary(verdict) == (False, "protocol", 0, False)


@pytest.mark.parametrize(
    "scheme",
    [
        "https",
        pytest.param(
            "tls",
        ),
    ],
)
async def test_a_connection_that_is_closed_in_the_handshake_is_a_failure_of_tls(raw, scheme):
    async def script(peer):
        await peer.reader.read(100)
        peer.close()

    server = await raw(script)
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", UP, **client())
    assert not verdict.success
    assert not verdict.reply.message.endswith(": ")
    assert verdict.reply.error == "tls"


IN_30_DAYS = ("[CERTIFICATE_EXPIRATION] > 719h59m", "[CERTIFICATE_EXPIRATION] <= 720h")


@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_the_expiry_of_a_certificate_is_right_to_the_minute(raw, ca, ca_file, scheme):
    expires = now() + 30 * DAY
    server = await raw(over_tls(context_of(ca.issue_cert("127.0.0.1", not_after=expires)), OK))
    url = f"{scheme}://127.0.0.1:{server.port}"
    verdict = await checked(url, *IN_30_DAYS, "[CERTIFICATE_EXPIRATION] > 30d", **client(ca_file))
    *right, wrong = verdict.conditions
    assert [one.text for one in right if one.success] == list(IN_30_DAYS)
    assert wrong.text.startswith("[CERTIFICATE_EXPIRATION] (719h59m")
    assert verdict.reply.certificate == expires.timestamp()


@pytest.mark.parametrize(
    "scheme",
    [
        "https",
        pytest.param(
            "tls",
        ),
    ],
)
async def test_the_expiry_is_known_of_a_certificate_that_is_not_trusted(raw, ca, scheme):
    server = await raw(over_tls(expiring(ca, 30), OK))
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", *IN_30_DAYS, **client(insecure=True))
    assert verdict.success, texts(verdict)


async def test_an_expired_certificate_has_expired_for_conditions(raw, ca):
    server = await raw(over_tls(expiring(ca, -3), OK))
    verdict = await checked(
        f"https://127.0.0.1:{server.port}", "[CERTIFICATE_EXPIRATION] > 0s", **client(insecure=True)
    )
    assert summary(verdict) == (False, "", 200, True)
    assert texts(verdict)[0].startswith("[CERTIFICATE_EXPIRATION] (-72h")


async def test_without_tls_there_is_no_expiry(raw):
    server = await raw(answers)
    for scheme in ("http", "tcp"):
        verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", "[CERTIFICATE_EXPIRATION] > 48h")
        assert texts(verdict) == ["[CERTIFICATE_EXPIRATION] (0s) > 48h"]
        assert verdict.reply.certificate is None


@pytest.mark.xfail(strict=True, reason="a redirect to another origin leaves the TLS settings behind")
async def test_the_expiry_is_known_after_a_redirect_to_https(raw, ca, ca_file):
    secure = await raw(over_tls(expiring(ca, 30), OK))
    plain = await raw(redirecting(f"https://127.0.0.1:{secure.port}/"))
    verdict = await checked(plain.url, "[STATUS] == 200", *IN_30_DAYS, **client(ca_file))
    assert verdict.success, texts(verdict)


class Site:
    """A check that is made again and again, as the probe does; its clock is put forward by the test."""

    def __init__(self, url, ca_file):
        self.check, _ = check_of(url, "[CERTIFICATE_EXPIRATION] > 48h", **client(ca_file))
        self.entry = Entry(self.check)
        self.now = time.time()

    async def __aenter__(self):
        self.notices = []
        self._checker = Checker([self.check], 4, None, self.notices.append, lambda: self.now)
        await self._checker.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._checker.__aexit__(*error)
        assert not self.notices

    async def verdict(self):
        done = asyncio.get_running_loop().create_future()
        self._checker.start(self.entry, done.set_result)
        return await done


def renew(context, ca, days):
    certificate = ca.issue_cert("127.0.0.1", not_before=now() - 90 * DAY, not_after=now() + days * DAY)
    certificate.configure_cert(context)


@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_a_renewed_certificate_is_seen(raw, ca, ca_file, scheme):
    context = expiring(ca, 1)
    server = await raw(over_tls(context, OK))
    url = f"{scheme}://127.0.0.1:{server.port}"
    verdict = await checked(url, "[CERTIFICATE_EXPIRATION] > 48h", **client(ca_file))
    assert not verdict.success
    assert texts(verdict)[0].startswith("[CERTIFICATE_EXPIRATION] (23h59m")
    renew(context, ca, 30)
    assert (await checked(url, *IN_30_DAYS, **client(ca_file))).success


async def test_a_renewed_certificate_is_seen_by_a_probe_within_the_hour(raw, ca, ca_file):
    context = expiring(ca, 30)
    server = await raw(over_tls(context, OK))
    async with Site(f"https://127.0.0.1:{server.port}", ca_file) as site:
        first = await site.verdict()
        assert first.success
        renew(context, ca, 60)
        site.now += 3601
        second = await site.verdict()
        assert second.success
        assert math.isclose(second.reply.certificate - first.reply.certificate, 30 * 86_400, abs_tol=60)


@pytest.mark.parametrize("days", [1, -3], ids=["soon", "expired"])
async def test_a_renewal_that_was_waited_for_is_seen_at_once(raw, ca, ca_file, days):
    context = expiring(ca, days)
    server = await raw(over_tls(context, OK))
    async with Site(f"https://127.0.0.1:{server.port}", ca_file) as site:
        assert not (await site.verdict()).success
        renew(context, ca, 30)
        site.now += 60
        verdict = await site.verdict()
    assert verdict.success, texts(verdict)


async def test_a_site_that_was_away_at_first_has_its_expiry_when_it_is_back(raw, ca, ca_file):
    server = await raw(over_tls(expiring(ca, 30), OK))
    async with Site(f"https://127.0.0.1:{server.port}", ca_file) as site:
        site.entry.check = check_of(
            f"https://127.0.0.1:{free_port()}", "[CERTIFICATE_EXPIRATION] > 48h", **client(ca_file)
        )[0]
        first = await site.verdict()
        assert (first.success, first.reply.error) == (False, "connect")
        site.entry.check, site.entry.request = site.check, None
        site.now += 60
        await site.verdict()
        verdict = await site.verdict()
    assert verdict.success, texts(verdict)


# ── mutual TLS ──────────────────────────────────────────────────────────────────


@pytest.fixture
def own_certificate(ca, tmp_path):
    """The client's certificate, as settings of `client.tls`."""
    certificate = ca.issue_cert("monitor.test")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    return {"certificate-file": str(tmp_path / "own.pem"), "private-key-file": str(tmp_path / "own.key")}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_the_clients_certificate_is_shown(raw, ca, ca_file, own_certificate, scheme, version):
    context = expiring(ca, 30)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    server = await raw(over_tls(context, OK))
    url = f"{scheme}://127.0.0.1:{server.port}"
    body = {"body": "ping"} if scheme == "tls" else {}  # by TLS 1.3 it is refused after the handshake
    settings = {"client": {"timeout": "2s", "tls": {"ca-file": ca_file, **own_certificate}}}
    verdict = await checked(url, UP, "[BODY] == pat(*UP)", **settings, **body)
    assert verdict.success, verdict.reply.message
    verdict = await checked(url, UP, **client(ca_file), **body)
    success, error, _, connected = summary(verdict)
    assert (success, connected) == (False, False)
    assert error in ("tls", "protocol")  # libcurl tells an alert after the handshake as a failure to read
    assert "alert" in verdict.reply.message.lower()


@pytest.mark.parametrize("scheme", [pytest.param("https"), "tls"])
@pytest.mark.parametrize("name", ["key", "authorities"])
async def test_client_tls_files_that_do_not_fit_end_no_checker(
    raw, ca, tmp_path, own_certificate, scheme, name
):
    """They may be replaced on disk while the monitor runs: it is not enough to look at them at first."""
    server = await raw(over_tls(expiring(ca, 30), OK))
    other = tmp_path / "other.key"
    ca.issue_cert("other.test").private_key_pem.write_to_path(str(other))
    wrong = {**own_certificate, "private-key-file": str(other)} if name == "key" else {"ca-file": str(other)}
    verdict = await checked(f"{scheme}://127.0.0.1:{server.port}", UP, client={"tls": wrong})
    assert summary(verdict)[::3] == (False, False)
    assert verdict.reply.error


# ── TCP, UDP ────────────────────────────────────────────────────────────────────


async def echo(peer):
    await peer.send(await peer.reader.read(1024))
    await peer.reader.read()


async def test_an_open_tcp_port_is_connected(raw):
    server = await raw(silent)
    verdict = await checked(f"tcp://127.0.0.1:{server.port}", UP, "[IP] == 127.0.0.1", "[BODY] == ")
    assert summary(verdict) == (True, "", 0, True)


async def test_what_a_tcp_server_answers_is_the_body(raw):
    server = await raw(echo)
    url = f"tcp://127.0.0.1:{server.port}"
    assert (await checked(url, UP, "[BODY] == PING", body="PING")).success
    verdict = await checked(url, "[BODY] == PONG", body="PING")
    assert summary(verdict) == (False, "", 0, True)
    assert texts(verdict) == ["[BODY] (PING) == PONG"]


async def test_a_tcp_server_that_hangs_up_gives_no_body(raw):
    async def script(peer):
        await peer.reader.read(100)
        peer.close()

    server = await raw(script)
    verdict = await checked(f"tcp://127.0.0.1:{server.port}", "[BODY] == PONG", body="PING")
    assert summary(verdict) == (False, "", 0, True)
    assert texts(verdict) == ["[BODY] () == PONG"]


async def test_a_tcp_server_that_resets_at_once_is_a_failure(raw):
    async def script(peer):
        linger = b"\1\0\0\0\0\0\0\0"  # on, 0 s: close sends RST
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await peer.reader.read(100)
        peer.reset()

    server = await raw(script)
    verdict = await checked(f"tcp://127.0.0.1:{server.port}", UP, body="PING")
    assert summary(verdict) == (False, "connect", 0, False)
    assert "reset" in verdict.reply.message.lower()


class Echo(asyncio.DatagramProtocol):
    """Answers PING, and nothing else."""

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, addr):
        if data == b"PING":
            self._transport.sendto(b"PONG", addr)


@pytest.fixture
async def udp_port():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    yield transport.get_extra_info("sockname")[1]
    transport.close()


async def test_what_a_udp_server_answers_is_the_body(udp_port):
    url = f"udp://127.0.0.1:{udp_port}"
    verdict = await checked(url, UP, "[BODY] == PONG", "[IP] == 127.0.0.1", body="PING")
    assert summary(verdict) == (True, "", 0, True)
    verdict = await checked(url, "[BODY] == PANG", body="PING")
    assert texts(verdict) == ["[BODY] (PONG) == PANG"]


async def test_a_udp_server_that_does_not_answer_times_out(udp_port):
    verdict = await checked(f"udp://127.0.0.1:{udp_port}", UP, body="what?", **SHORT)
    assert summary(verdict) == (False, "timeout", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]


async def test_a_closed_udp_port_is_told_where_something_was_sent():
    url = f"udp://127.0.0.1:{free_port()}"
    verdict = await checked(url, UP, body="PING", client={"timeout": "1s"})
    assert summary(verdict) == (False, "connect", 0, False)
    assert (await checked(url, UP)).success  # as in Gatus: nothing was sent that could be refused


async def test_a_datagram_that_is_too_long_is_a_failure(udp_port):
    verdict = await checked(f"udp://127.0.0.1:{udp_port}", UP, body="x" * 70_000)
    assert summary(verdict) == (False, "connect", 0, False)
    assert "too long" in verdict.reply.message.lower()


# ── STARTTLS ────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def mail_server(tls=None):
    server = MailServer(tls=tls)
    server.start()
    try:
        yield server
    finally:
        # One that is aborted in a handshake would never end: aiosmtpd takes that for success.
        until(lambda: not server._open)
        server.stop()


@pytest.fixture
def mail(ca):
    with mail_server(expiring(ca, 30)) as server:
        yield server


async def test_starttls_with_a_trusted_certificate(mail, ca_file):
    url = f"starttls://127.0.0.1:{mail.port}"
    verdict = await checked(url, UP, *IN_30_DAYS, "[IP] == 127.0.0.1", **client(ca_file))
    assert verdict.success, (verdict.reply.message, texts(verdict))


async def test_starttls_with_a_certificate_that_is_not_trusted(mail):
    url = f"starttls://127.0.0.1:{mail.port}"
    verdict = await checked(url, UP, client={"timeout": "2s"})
    assert summary(verdict) == (False, "tls", 0, False)
    assert "unable to get local issuer certificate" in verdict.reply.message
    assert (await checked(url, UP, client={"timeout": "2s", "insecure": True})).success


async def test_a_mail_server_without_starttls_is_a_failure():
    with mail_server() as server:
        verdict = await checked(f"starttls://127.0.0.1:{server.port}", UP, client={"timeout": "2s"})
    assert summary(verdict) == (False, "protocol", 0, False)
    assert "454" in verdict.reply.message


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"554 go away\r\n", "554 go away"),
        (b"", "nothing"),
        (b"2" * 200_000, "more than a line may have"),
    ],
    ids=["refuses", "hangs up", "a line without end"],
)
async def test_what_is_no_mail_server_is_a_failure_of_the_protocol(raw, said, shown):
    async def script(peer):
        await peer.send(said)
        peer.close()

    server = await raw(script)
    verdict = await checked(f"starttls://127.0.0.1:{server.port}", UP, client={"timeout": "1s"})
    assert summary(verdict) == (False, "protocol", 0, False)
    assert shown in verdict.reply.message


# ── DNS ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("A", "192.0.2.7"),
        ("AAAA", "2001:db8::7"),
        ("CNAME", "other.test"),
        ("MX", "mail.test"),
        ("TXT", "v=spf1 -all"),
        ("NS", "ns1.test"),
        ("SRV", "sip.test:5060"),
        ("PTR", "host.test"),
        ("SOA", "ns1.test"),
        ("CAA", "ca.test"),
    ],
)
async def test_the_records_of_a_name_are_the_body(names, kind, body):
    question = {"query-name": "all.test", "query-type": kind}
    conditions = ("[DNS_RCODE] == NOERROR", UP, f"[BODY] == {body}", "[RESPONSE_TIME] < 5000")
    verdict = await checked(names.address, *conditions, dns=question)
    assert texts(verdict) == list(conditions)
    assert summary(verdict) == (True, "", 0, True)


async def test_records_on_the_way_to_an_address_are_not_the_body(names):
    verdict = await checked(names.address, "[BODY] == 127.0.0.1", dns={"query-name": "alias.test"})
    assert verdict.success, texts(verdict)


async def test_a_wrong_record_is_told(names):
    verdict = await checked(names.address, "[BODY] == 192.0.2.8", dns={"query-name": "all.test"})
    assert summary(verdict) == (False, "", 0, True)
    assert texts(verdict) == ["[BODY] (192.0.2.7) == 192.0.2.8"]


@pytest.mark.parametrize(
    ("label", "code"), [("missing", "NXDOMAIN"), ("broken", "SERVFAIL"), ("refused", "REFUSED")]
)
async def test_a_code_of_a_name_server_is_an_answer(names, label, code):
    question = {"query-name": f"{label}.test"}
    verdict = await checked(names.address, "[DNS_RCODE] == NOERROR", UP, dns=question)
    assert summary(verdict) == (False, "", 0, True)
    assert texts(verdict) == [f"[DNS_RCODE] ({code}) == NOERROR", UP]
    assert (await checked(names.address, f"[DNS_RCODE] == {code}", dns=question)).success


async def test_no_record_of_the_type_is_no_error(names):
    conditions = ("[DNS_RCODE] == NOERROR", "[BODY] == ")
    verdict = await checked(names.address, *conditions, dns={"query-name": "empty.test"})
    assert summary(verdict) == (True, "", 0, True)


async def test_a_name_server_that_does_not_answer_is_a_failure(mute):
    question = {"query-name": "good.test"}
    for address in (mute, f"127.0.0.1:{free_port()}"):
        verdict = await checked(address, "[DNS_RCODE] == NOERROR", UP, dns=question, **SHORT)
        assert summary(verdict) == (False, "dns", 0, False)
        assert texts(verdict) == ["[DNS_RCODE] () == NOERROR", "[CONNECTED] (false) == true"]
        assert address in verdict.reply.message


@pytest.mark.parametrize("label", ["good", "missing"])
async def test_the_name_servers_address_is_the_ip(names, label):
    verdict = await checked(names.address, "[IP] == 127.0.0.1", dns={"query-name": f"{label}.test"})
    assert texts(verdict) == ["[IP] == 127.0.0.1"]


@pytest.mark.parametrize("url", ["https://dns.test/dns-query", "dns.test", "127.0.0.1:99999"])
async def test_a_name_server_that_cannot_be_asked_is_a_mistake_of_the_settings(url):
    with pytest.raises(InputError):
        await checked(url, "[DNS_RCODE] == NOERROR", dns={"query-name": "good.test"})


# ── gRPC ────────────────────────────────────────────────────────────────────────

SERVING = "[BODY].status == SERVING"


def serve_health(credentials=None):
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, port


@pytest.fixture(scope="module")
def health():
    """The port of a gRPC server that is healthy, but for its service `bad`."""
    needs("grpc", "grpc_health")
    server, port = serve_health()
    yield port
    server.stop(None).wait()


@pytest.fixture
def secure_health(ca, tmp_path):
    """The same over TLS; a factory, since some ask for the client's certificate."""
    needs("grpc", "grpc_health")
    import grpc

    certificate = ca.issue_cert("127.0.0.1")
    pair = certificate.private_key_pem.bytes(), b"".join(one.bytes() for one in certificate.cert_chain_pems)
    servers = []

    def start(*, mutual=False):
        roots = ca.cert_pem.bytes() if mutual else None
        credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=mutual)
        server, port = serve_health(credentials)
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None).wait()


async def test_a_healthy_grpc_server(health):
    verdict = await checked(f"grpc://127.0.0.1:{health}", UP, SERVING, "[RESPONSE_TIME] < 5000")
    assert summary(verdict) == (True, "", 0, True)


async def test_a_grpc_service_that_is_not_healthy(health):
    verdict = await checked(f"grpc://127.0.0.1:{health}", UP, SERVING, body="bad")
    assert summary(verdict) == (False, "", 0, True)
    assert texts(verdict) == [UP, "[BODY].status (NOT_SERVING) == SERVING"]


async def test_a_grpc_service_that_is_not_known(health):
    verdict = await checked(f"grpc://127.0.0.1:{health}", SERVING, body="none")
    assert not verdict.success
    assert verdict.reply.error
    assert "NOT_FOUND" in verdict.reply.message
    assert texts(verdict) == ["[BODY].status (INVALID) == SERVING"]


async def test_an_answer_of_a_grpc_server_is_a_connection(health):
    verdict = await checked(f"grpc://127.0.0.1:{health}", UP, SERVING, body="none")
    assert verdict.reply.answer.connected
    assert verdict.reply.error != "connect"


async def test_no_grpc_server_is_a_failure_to_connect(raw):
    needs("grpc", "grpc_health")
    server = await raw(saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    for port in (free_port(), server.port):
        verdict = await checked(f"grpc://127.0.0.1:{port}", UP, SERVING, client={"timeout": "1s"})
        assert not verdict.success
        assert texts(verdict) == ["[CONNECTED] (false) == true", "[BODY].status (INVALID) == SERVING"]
        assert "UNAVAILABLE" in verdict.reply.message


async def test_grpc_over_tls(secure_health, ca_file):
    url = f"grpcs://127.0.0.1:{secure_health()}"
    verdict = await checked(url, UP, SERVING, **client(ca_file))
    assert verdict.success, verdict.reply.message
    verdict = await checked(url, UP, SERVING, **client())
    assert summary(verdict) == (False, "connect", 0, False)


def test_grpc_over_tls_that_is_not_verified_is_named_as_not_built():
    site = {"name": "a", "url": "grpcs://127.0.0.1:1", "conditions": [UP], "client": {"insecure": True}}
    [check] = config_of({"endpoints": [site]}).checks.values()
    assert check.disabled == "client.insecure of gRPC is not built"


async def test_grpc_with_the_clients_certificate(secure_health, ca_file, own_certificate):
    settings = {"client": {"timeout": "1s", "tls": {"ca-file": ca_file, **own_certificate}}}
    verdict = await checked(f"grpcs://127.0.0.1:{secure_health(mutual=True)}", UP, SERVING, **settings)
    assert verdict.success, verdict.reply.message


async def test_grpc_does_not_go_by_the_environments_proxy(health, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    verdict = await checked(f"grpc://127.0.0.1:{health}", UP, SERVING, client={"timeout": "1s"})
    assert verdict.success, verdict.reply.message


async def test_the_address_of_a_grpc_server_is_known(health):
    verdict = await checked(f"grpc://127.0.0.1:{health}", "[IP] == 127.0.0.1")
    assert texts(verdict) == ["[IP] == 127.0.0.1"]


# ── ICMP ────────────────────────────────────────────────────────────────────────


async def test_a_ping_of_this_machine():
    verdict = await checked("icmp://127.0.0.1", UP, "[IP] == 127.0.0.1", client={"timeout": "1s"})
    if is_allowed():
        assert summary(verdict) == (True, "", 0, True)
        assert verdict.reply.answer.response_time < 1000
    else:
        assert summary(verdict) == (False, "permission", 0, False)
        assert verdict.reply.message == "this process may not send ICMP: see net.ipv4.ping_group_range"
        assert texts(verdict) == ["[CONNECTED] (false) == true", "[IP] == 127.0.0.1"]


# ── the address guard ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["http", "https", "tcp", "udp", "tls", "starttls", "icmp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_private_address_is_refused(raw, scheme, host):
    server = await raw(silent)
    port = "" if scheme == "icmp" else f":{server.port}"
    verdict = await checked(f"{scheme}://{host}{port}", UP, allow=[], client={"timeout": "1s"})
    assert summary(verdict) == (False, "blocked_address", 0, False)
    assert texts(verdict) == ["[CONNECTED] (false) == true"]
    assert "address_guard refuses it" in verdict.reply.message
    assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_that_is_allowed_is_checked(host):
    allow = ["127.0.0.0/8"]
    server, port = await serving_on("127.0.0.1")
    async with server:
        for scheme in ("http", "tcp"):
            verdict = await checked(f"{scheme}://{host}:{port}", UP, "[IP] == 127.0.0.1", allow=allow)
            assert verdict.success, verdict.reply.message
    verdict = await checked(f"icmp://{host}", UP, allow=allow, client={"timeout": "1s"})
    assert verdict.reply.error == ("" if is_allowed() else "permission")


@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_tls_on_a_private_address_that_is_allowed_is_checked(raw, ca, ca_file, scheme):
    server = await raw(over_tls(expiring(ca, 30), OK))
    url = f"{scheme}://127.0.0.1:{server.port}"
    verdict = await checked(url, UP, allow=["127.0.0.0/8"], **client(ca_file))
    assert verdict.success, verdict.reply.message


async def test_a_name_of_a_private_address_is_refused(raw, asking, system_names):
    server = await raw(answers)
    for url, settings in (
        (f"http://good.test:{server.port}", asking),
        (f"tcp://good.test:{server.port}", {}),
        (f"tls://good.test:{server.port}", {}),
        ("icmp://good.test", {}),
    ):
        verdict = await checked(url, UP, allow=[], **settings)
        assert summary(verdict) == (False, "blocked_address", 0, False), url
        assert "127.0.0.1 is this machine" in verdict.reply.message
    assert server.connections == 0
    verdict = await checked(f"http://good.test:{server.port}", UP, allow=["127.0.0.0/8"], **asking)
    assert verdict.success, verdict.reply.message


async def test_a_redirect_to_a_private_address_is_refused(raw):
    target = await raw(answers)
    server = await raw(redirecting(f"http://127.0.0.2:{target.port}/"))
    verdict = await checked(server.url, "[STATUS] < 400", allow=["127.0.0.1/32"])
    assert summary(verdict) == (False, "blocked_address", 0, False)
    assert "127.0.0.2" in verdict.reply.message
    assert target.connections == 0


@pytest.mark.parametrize(
    "scheme",
    [
        "tcp",
        pytest.param(
            "http",
        ),
    ],
)
async def test_a_literal_ipv6_address_that_is_allowed_is_checked(scheme):
    server, port = await serving_on("::1")
    async with server:
        verdict = await checked(f"{scheme}://[::1]:{port}", UP, allow=["::1/128"])
    assert verdict.success, verdict.reply.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_is_refused_to_grpc(health, host):
    verdict = await checked(f"grpc://{host}:{health}", UP, allow=[], client={"timeout": "1s"})
    assert summary(verdict) == (False, "blocked_address", 0, False)


async def test_a_private_address_is_refused_to_dns(names):
    verdict = await checked(names.address, "[DNS_RCODE] == NOERROR", dns={"query-name": "a.test"}, allow=[])
    assert (verdict.success, verdict.reply.error) == (False, "blocked_address")


async def test_a_check_that_was_refused_is_no_success():
    verdict = await checked(f"tcp://127.0.0.1:{free_port()}", "[CONNECTED] == false", allow=[])
    assert verdict.reply.error == "blocked_address"
    assert not verdict.success


# ── several at once ─────────────────────────────────────────────────────────────


async def test_verdicts_come_in_the_order_of_the_checks(raw, names, mute):
    server = await raw(answers)
    stalled = await raw(silent)
    sites = {
        "slow": {"url": stalled.url, **SHORT},
        "good": {"url": server.url},
        "closed": {"url": f"tcp://127.0.0.1:{free_port()}"},
        "open": {"url": f"tcp://127.0.0.1:{server.port}"},
        "name": {"url": names.address, "dns": {"query-name": "good.test"}},
        "mute": {"url": mute, "dns": {"query-name": "good.test"}, **SHORT},
    }
    endpoints = [{"name": name, "conditions": [UP], **site} for name, site in sites.items()]
    checks = list(config_of({"endpoints": endpoints}).checks.values())
    notices = []
    verdicts = await check_once(checks, 2, None, notices.append)
    found = {check.name: verdict.success for check, verdict in zip(checks, verdicts, strict=True)}
    assert found == dict.fromkeys(sites, True) | {"slow": False, "closed": False, "mute": False}
    assert not notices
