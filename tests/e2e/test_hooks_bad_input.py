"""What `yelpaze hooks serve` refuses, each with its status and the field that is wrong; and where it never connects."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.hooks import KEY
from support.hooks_service import ADMIN_TOKEN, HooksService
from support.service import Service
from support.waiting import until

MOST_PAYLOAD = 10_000
PUBLIC = "https://hooks.example.com/in"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MAIL = {"to": ["ann@example.com"], "host": "smtp.example.com", "sender": "us@example.com"}


@pytest.fixture(scope="module")
def hooks(tmp_path_factory):
    """It connects to public addresses only."""
    service = HooksService(
        tmp_path_factory.mktemp("hooks"), allow=None, schedule="[0]", max_payload=str(MOST_PAYLOAD)
    )
    yield service
    service.stop()


@pytest.fixture(scope="module")
def open_hooks(tmp_path_factory):
    """It connects to loopback, too."""
    service = HooksService(tmp_path_factory.mktemp("open"), schedule="[0]")
    yield service
    service.stop()


@pytest.fixture(scope="module")
def app(hooks):
    return hooks.app()


@pytest.fixture(scope="module")
def endpoint(hooks, app):
    return hooks.make(f"/app/{app}/endpoint", {"url": PUBLIC, "disabled": True})["id"]


def event(**fields):
    return {"eventType": "invoice.paid", "payload": {"id": 1}, **fields}


def without(value, name):
    return {key: one for key, one in value.items() if key != name}


# ── messages ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a/b", "a\n", "\na", "a:b", "ü", "a,b", "a*", "a\u0000", "<a>", "a" * 257, "\u202ea"],
)
def test_an_event_type_has_letters_digits_and_three_more_characters(hooks, app, name):
    assert hooks.ask("POST", f"/app/{app}/msg", event(eventType=name)).fields == ["body.eventType"]
    made = hooks.ask("POST", "/event-type", {"name": name, "description": ""})
    assert made.fields == ["body.name"]
    endpoint = {"url": PUBLIC, "eventTypes": ["invoice.paid", name]}
    assert hooks.ask("POST", f"/app/{app}/endpoint", endpoint).fields == ["body.eventTypes"]


@pytest.mark.parametrize("payload", [[], [{}], "text", 1, 1.5, True, None, "{}"])
def test_a_payload_is_an_object(hooks, app, payload):
    assert hooks.ask("POST", f"/app/{app}/msg", event(payload=payload)).fields == ["body.payload"]


@pytest.mark.parametrize("name", ["eventType", "payload"])
def test_a_field_that_is_missing_is_named(hooks, app, name):
    assert hooks.ask("POST", f"/app/{app}/msg", without(event(), name)).fields == [f"body.{name}"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"{'a': 1}",
        b'{"eventType": "a", "payload": {]}',
        b'{"payload": {"a": NaN}}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_json_is_a_bad_request(hooks, app, body):
    answer = hooks.ask("POST", f"/app/{app}/msg", body)
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("body", [[], "text", 1, None])
def test_a_body_that_is_no_object_is_refused(hooks, app, body):
    data = json.dumps(body).encode()
    for method, path in (("POST", "/app"), ("POST", f"/app/{app}/msg"), ("PATCH", f"/app/{app}")):
        assert hooks.ask(method, path, data).fields == ["body"]


def test_a_payload_in_another_encoding_is_refused(hooks, app):
    body = b'{"eventType": "a", "payload": {"name": "\xe4"}}'
    answer = hooks.ask("POST", f"/app/{app}/msg", body)
    assert answer.status in (400, 422)


def test_a_payload_has_so_many_bytes_at_most(hooks, app):
    room = MOST_PAYLOAD - len('{"text": ""}')
    hooks.make(f"/app/{app}/msg", event(payload={"text": "x" * room}))
    answer = hooks.ask("POST", f"/app/{app}/msg", event(payload={"text": "x" * (room + 1)}))
    assert (answer.status, answer.code) == (413, "payload_too_large")
    assert answer.body["detail"].startswith("payload: ")
    assert f"{MOST_PAYLOAD + 1:,}" in answer.body["detail"]


@pytest.mark.parametrize("path", ["/app", "/app/{app}/msg", "/app/{app}/endpoint", "/event-type"])
def test_a_body_has_so_many_bytes_at_most(hooks, app, path):
    body = event(name="big", url=PUBLIC, description="x" * (1 << 20))
    answer = hooks.ask("POST", path.format(app=app), body)
    assert (answer.status, answer.code) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eventId", ""),
        ("eventId", "a" * 257),
        ("eventId", "a\nb"),
        ("eventId", 7),
        ("channels", []),
        ("channels", ["a b"]),
        ("channels", ["a" * 129]),
        ("channels", [f"c{number}" for number in range(11)]),
        ("tags", [f"t{number}" for number in range(11)]),
        ("tags", "red"),
        ("orderKey", ""),
        ("orderKey", "a\u0000"),
        ("schedule", "fast"),
        ("expiresAt", "tomorrow"),
        ("expiresAt", 1_800_000_000),
        ("deliverAt", "2027-13-01T00:00:00Z"),
        ("payloadRetentionPeriod", 0),
        ("payloadRetentionPeriod", 91),
        ("payloadRetentionHours", 0),
        ("payloadRetentionHours", "1"),
    ],
)
def test_a_wrong_field_of_a_message_is_named(hooks, app, field, value):
    assert hooks.ask("POST", f"/app/{app}/msg", event(**{field: value})).fields == [f"body.{field}"]


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"]
)
@pytest.mark.parametrize("field", ["expiresAt", "deliverAt"])
def test_the_first_and_the_last_time_that_there_is_do_no_harm(hooks, field, time):
    app = hooks.app()
    answer = hooks.ask("POST", f"/app/{app}/msg", event(**{field: time}))
    assert answer.status in (202, 422), answer
    if answer.status == 422:
        assert answer.fields == [f"body.{field}"]
    assert hooks.ask("GET", f"/app/{app}/msg").status == 200


def test_a_message_that_cannot_be_kept_does_no_harm_to_others(hooks):
    """They are written together."""
    app, other = hooks.app(), hooks.app()
    bad = event(expiresAt="9999-12-31T23:59:59-23:00")

    def send(number):
        if number % 4 == 0:
            key = {"Idempotency-Key": f"bad-{number}"}
            return hooks.ask("POST", f"/app/{other}/msg", bad, headers=key).status in (202, 422)
        return hooks.ask("POST", f"/app/{app}/msg", event()).status == 202

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(send, range(200)))


def test_an_event_id_is_taken_once(hooks, app):
    hooks.make(f"/app/{app}/msg", event(eventId="invoice-7"))
    answer = hooks.ask("POST", f"/app/{app}/msg", event(eventId="invoice-7"))
    assert (answer.status, answer.code) == (409, "conflict")
    assert "invoice-7" in answer.body["detail"]
    other = hooks.app()
    hooks.make(f"/app/{other}/msg", event(eventId="invoice-7"))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/msg", event()),
        ("GET", "/msg", None),
        ("GET", "/endpoint", None),
        ("POST", "/endpoint", {"url": PUBLIC}),
        ("PUT", "/endpoint/main", {"url": PUBLIC}),
        ("GET", "/attempt/msg/msg_1", None),
        ("GET", "/attempt/endpoint/ep_1", None),
        ("POST", "/msg/msg_1/endpoint/ep_1/resend", None),
    ],
)
@pytest.mark.parametrize("name", ["nobody", "app_0", "%00", "%F0%9F%98%80", "a%20b", "a" * 300])
def test_an_unknown_application_is_not_found(hooks, name, method, path, body):
    answer = hooks.ask(method, f"/app/{name}{path}", body)
    assert (answer.status, answer.code) == (404, "not_found")


# ── applications, event types, tokens ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 257}, "name"),
        ({"name": "a\u0000"}, "name"),
        ({"name": 7}, "name"),
        ({}, "name"),
        ({"name": "a", "uid": ""}, "uid"),
        ({"name": "a", "uid": "a b"}, "uid"),
        ({"name": "a", "uid": "a/b"}, "uid"),
        ({"name": "a", "uid": "a" * 257}, "uid"),
        ({"name": "a", "throttleRate": 0}, "throttleRate"),
        ({"name": "a", "throttleRate": -1}, "throttleRate"),
        ({"name": "a", "throttleRate": 10**30}, "throttleRate"),
        ({"name": "a", "metadata": {"a": 1}}, "metadata"),
        ({"name": "a", "metadata": {"a": "x" * 10_000}}, "metadata"),
        ({"name": "a", "metadata": []}, "metadata"),
    ],
)
def test_a_wrong_field_of_an_application_is_named(hooks, fields, wrong):
    (found,) = hooks.ask("POST", "/app", fields).fields
    assert found in (f"body.{wrong}", f"body.{wrong}.a")


def test_a_uid_is_taken_once(hooks):
    hooks.make("/app", {"name": "a", "uid": "taken"})
    answer = hooks.ask("POST", "/app", {"name": "a", "uid": "taken"})
    assert (answer.status, answer.code) == (409, "conflict")
    other = hooks.app()
    assert hooks.ask("PATCH", f"/app/{other}", {"uid": "taken"}).status == 409
    assert hooks.ask("PUT", f"/app/{other}", {"name": "a", "uid": "taken"}).status == 409


def test_an_endpoints_uid_is_taken_once_in_its_application(hooks):
    app, other = hooks.app(), hooks.app()
    given = {"url": PUBLIC, "uid": "main"}
    hooks.make(f"/app/{app}/endpoint", given)
    assert hooks.ask("POST", f"/app/{app}/endpoint", given).code == "conflict"
    second = hooks.make(f"/app/{app}/endpoint", {"url": PUBLIC})["id"]
    assert hooks.ask("PATCH", f"/app/{app}/endpoint/{second}", {"uid": "main"}).code == "conflict"
    hooks.make(f"/app/{other}/endpoint", given)


@pytest.mark.parametrize("seconds", [0, -1, 10**12, 10**18, 10**30])
def test_a_token_lasts_a_time_that_there_is(hooks, seconds):
    assert hooks.ask("POST", "/token", {"expiresIn": seconds}).fields == ["body.expiresIn"]


def test_a_token_is_for_an_application_that_there_is(hooks):
    assert hooks.ask("POST", "/token", {"applicationId": "nobody"}).code == "not_found"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": ADMIN_TOKEN},
        {"Authorization": f"Basic {ADMIN_TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {ADMIN_TOKEN}x"},
        {"Authorization": f"Bearer {ADMIN_TOKEN[:-1]}"},
        {"Authorization": "Bearer \xfc"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/app"), ("POST", "/app"), ("POST", "/app/a/msg"), ("GET", "/token")]
)
def test_a_token_that_is_missing_or_wrong_opens_nothing(hooks, method, path, headers):
    body = b"no JSON" if method == "POST" else None
    answer = hooks.ask(method, path, body, token=None, headers=headers)
    assert (answer.status, answer.code) == (401, "authentication_failed")


def test_a_deleted_token_opens_nothing(hooks, app):
    made = hooks.make("/token", {"applicationId": app})
    assert hooks.ask("GET", f"/app/{app}", token=made["token"]).status == 200
    assert hooks.ask("DELETE", f"/token/{made['id']}").status == 204
    until(lambda: hooks.ask("GET", f"/app/{app}", token=made["token"]).status == 401)
    assert hooks.ask("DELETE", f"/token/{made['id']}").code == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/app/{other}", None, 404),
        ("PUT", "/app/{other}", {"name": "mine"}, 404),
        ("PUT", "/app/new", {"name": "mine"}, 404),
        ("POST", "/app/{other}/msg", event(), 404),
        ("POST", "/app/new/msg", event(application={"name": "new", "uid": "new"}), 404),
        ("POST", "/app/{other}/endpoint", {"url": PUBLIC}, 404),
        ("GET", "/app/{app}/endpoint/{endpoint}", None, 404),
        ("PATCH", "/app/{app}/endpoint/{endpoint}", {"url": PUBLIC}, 404),
        ("GET", "/app/{app}/endpoint/{endpoint}/secret", None, 404),
        ("POST", "/app/{app}/endpoint/{endpoint}/secret/rotate", {}, 404),
        ("GET", "/app/{app}/endpoint/{endpoint}/headers", None, 404),
        ("POST", "/app/{app}/endpoint/{endpoint}/recover", {"since": "2026-01-01T00:00:00Z"}, 404),
        ("POST", "/app/{app}/endpoint/{endpoint}/send-example", {"eventType": "a"}, 404),
        ("GET", "/app/{app}/msg/{message}", None, 404),
        ("DELETE", "/app/{app}/msg/{message}/content", None, 404),
        ("GET", "/app/{app}/attempt/msg/{message}", None, 404),
        ("GET", "/app/{app}/attempt/endpoint/{endpoint}", None, 404),
        ("GET", "/app/{app}/msg/{message}/endpoint", None, 404),
        ("POST", "/app", {"name": "mine"}, 403),
        ("DELETE", "/app/{app}", None, 403),
        ("DELETE", "/app/{other}", None, 403),
        ("POST", "/event-type", {"name": "mine", "description": ""}, 403),
        ("DELETE", "/event-type/mine", None, 403),
        ("GET", "/token", None, 403),
        ("POST", "/token", {}, 403),
        ("POST", "/token", {"applicationId": "{other}"}, 403),
        ("DELETE", "/token/tok_1", None, 403),
    ],
)
def test_a_token_of_another_application_opens_nothing(hooks, method, path, body, status):
    app, other = hooks.app(), hooks.app()
    token = hooks.make("/token", {"applicationId": app})["token"]
    endpoint = hooks.make(f"/app/{other}/endpoint", {"url": PUBLIC, "disabled": True})["id"]
    message = hooks.make(f"/app/{other}/msg", event())["id"]
    names = {"app": app, "other": other, "endpoint": endpoint, "message": message}
    if body == {"applicationId": "{other}"}:
        body = {"applicationId": other}
    answer = hooks.ask(method, path.format(**names), body, token=token)
    assert (answer.status, answer.code) == (status, {403: "forbidden", 404: "not_found"}[status])


# ── endpoints: addresses ────────────────────────────────────────────────────────

PRIVATE = [
    # one address in many notations
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7F.1",
    "0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.1", "017700000001", "127.0.0.1:8080", "%31%32%37.0.0.1",
    "\uff11\uff12\uff17.0.0.1", "127。0。0。1", "①②⑦.0.0.1",
    "localhost", "LOCALHOST", "localhost.", "localhost..", "a.localhost", "a.b.localhost.", "localhost:80",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "[::1]:8080",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:7F00:0001]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]",
    # networks that are not public
    "0.0.0.0", "0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "167772161", "100.64.0.1", "100.127.255.255",
    "169.254.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.170", "192.0.2.1", "192.168.0.1", "0300.0250.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "4294967295",
    "[::]", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]", "[fe80::1%25eth0]", "[fe80::1%25lo]", "[ff02::1]",
    "[2001:db8::1]", "[fec0::1]",
    # IPv4 within IPv6: mapped, 6to4, NAT64, Teredo
    "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[::ffff:0.0.0.0]", "[2002:7f00:1::1]", "[2002:a9fe:a9fe::]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::a00:1]", "[2001::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_is_not_public_is_refused(hooks, app, endpoint, scheme, host):
    url = f"{scheme}://{host}/in"
    assert hooks.ask("POST", f"/app/{app}/endpoint", {"url": url}).fields == ["body.url"]
    assert hooks.ask("PATCH", f"/app/{app}/endpoint/{endpoint}", {"url": url}).fields == ["body.url"]
    put = hooks.ask("PUT", f"/app/{app}/endpoint/{endpoint}", {"url": url})
    assert put.fields == ["body.url"]


@pytest.mark.parametrize(
    "kind", ["webhook", "http", "slack", "discord", "teams", "telegram", "ntfy", "pagerduty"]
)
def test_every_kind_with_a_url_refuses_private_addresses(hooks, app, kind):
    options = {
        "telegram": {"token": "1:a", "chat_id": "1"},
        "ntfy": {"topic": "a"},
        "pagerduty": {"routing_key": "a" * 32},
    }
    given = {"kind": kind, "url": "http://169.254.169.254/latest", "options": options.get(kind, {})}
    assert hooks.ask("POST", f"/app/{app}/endpoint", given).fields == ["body.url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "http://example.com:8080/in?a=b",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://1.1.1.1.example.com/",
        "https://localhost.example.com/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_a_public_url_is_taken(hooks, app, url):
    made = hooks.make(f"/app/{app}/endpoint", {"url": url, "disabled": True})
    assert made["url"] == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "/in",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "dict://example.com:11211/",
        "javascript:alert(1)",
        "ws://example.com/",
        "http:/example.com",
        "http:///in",
        "http://",
        "http://:80/",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: y",
        "http://example.com\r\nX: y/",
        "http://example.com/\u0000",
        "http://example.com\\@127.0.0.1/",
        "http://[::1/",
        "http://[::g]/",
        "http://ann@example.com/",
        "http://ann:secret@example.com/",
        "http://:secret@example.com/",
        "http://@example.com/",
        "http://example.com@127.0.0.1/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_http_url_is_refused(hooks, app, url):
    assert hooks.ask("POST", f"/app/{app}/endpoint", {"url": url}).fields == ["body.url"]


# ── endpoints: headers, secrets, filters, schedules, TLS ────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\nb"},
        {"X-A": "a\rb"},
        {"X-A": "a\u0000b"},
        {"X-A\r\nX-B": "b"},
        {"X-A:": "b"},
        {"X A": "b"},
        {"": "b"},
        {"Ü": "b"},
        {"Host": "internal.example.com"},
        {"hOST": "internal.example.com"},
        {"Content-Length": "3"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Type": "text/plain"},
        {"User-Agent": "curl"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        {"webhook-id": "msg_1"},
        {"Webhook-Timestamp": "1"},
        {"WEBHOOK-SIGNATURE": "v1,abc"},
        {"svix-id": "msg_1"},
        {"Svix-Signature": "v1,abc"},
        {f"X-{number}": "a" for number in range(51)},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_header_that_cannot_be_sent_is_refused(hooks, app, endpoint, headers):
    path = f"/app/{app}/endpoint"
    for method, where, body in (
        ("POST", path, {"url": PUBLIC, "headers": headers}),
        ("PUT", f"{path}/{endpoint}", {"url": PUBLIC, "headers": headers}),
        ("PATCH", f"{path}/{endpoint}", {"headers": headers}),
        ("PUT", f"{path}/{endpoint}/headers", {"headers": headers}),
        ("PATCH", f"{path}/{endpoint}/headers", {"headers": headers}),
    ):
        assert hooks.ask(method, where, body).fields == ["body.headers"], method


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "short",
        "whsec_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa",  # 22 bytes
        "whsec_" + "A" * 88,  # 66 bytes
        "whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "ü" * 32,
    ],
)
def test_a_secret_that_signs_nothing_is_refused(hooks, app, endpoint, secret):
    path = f"/app/{app}/endpoint"
    assert hooks.ask("POST", path, {"url": PUBLIC, "secret": secret}).fields == ["body.secret"]
    rotated = hooks.ask("POST", f"{path}/{endpoint}/secret/rotate", {"key": secret})
    assert rotated.fields == ["body.key"]


@pytest.mark.parametrize("seconds", [-1, 7 * 86_400 + 1, 10**30, "1", 1.5])
def test_a_grace_period_has_bounds(hooks, app, endpoint, seconds):
    given = {"gracePeriodSeconds": seconds}
    answer = hooks.ask("POST", f"/app/{app}/endpoint/{endpoint}/secret/rotate", given)
    assert answer.fields == ["body.gracePeriodSeconds"]


def test_an_endpoint_that_is_not_signed_has_no_secret(hooks, app):
    path = f"/app/{app}/endpoint"
    given = {"kind": "slack", "url": PUBLIC, "disabled": True}
    assert hooks.ask("POST", path, {**given, "secret": SECRET}).fields == ["body.secret"]
    slack = hooks.make(path, given)["id"]
    assert hooks.ask("GET", f"{path}/{slack}/secret").code == "not_found"
    assert hooks.ask("POST", f"{path}/{slack}/secret/rotate", {}).fields == ["body.key"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eventTypes", []),
        ("eventTypes", [""]),
        ("eventTypes", "invoice.paid"),
        ("eventTypes", [7]),
        ("channels", []),
        ("channels", ["a b"]),
        ("channels", [f"c{number}" for number in range(11)]),
        ("description", "a" * 4097),
        ("description", "a\u0000"),
        ("uid", "a b"),
        ("uid", ""),
        ("metadata", {"a": 1}),
        ("metadata", {"a": "x" * 10_000}),
        ("throttleRate", 0),
        ("throttleRate", 1.5),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", 61),
        ("timeout", "5"),
        ("concurrency", 0),
        ("concurrency", 1001),
        ("schedule", []),
        ("schedule", [-1]),
        ("schedule", [0, "5"]),
        ("schedule", [0, 1e18]),
        ("schedule", [0, 1e300]),
        ("schedule", 5),
        ("disabled", "yes"),
        ("tls", {"ca": "no certificate"}),
        ("tls", {"clientCert": "no certificate"}),
        ("tls", {"clientKey": "no key"}),
        ("tls", {"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}),
        ("tls", {"ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ("tls", {"insecure": "yes"}),
        ("tls", "insecure"),
        ("kind", "slak"),
        ("kind", ""),
        ("kind", 7),
        ("options", {"signature": []}),
        ("options", []),
    ],
)
def test_a_wrong_field_of_an_endpoint_is_named(hooks, app, endpoint, field, value):
    path = f"/app/{app}/endpoint"
    for method, where, body in (
        ("POST", path, {"url": PUBLIC, "disabled": True, field: value}),
        ("PATCH", f"{path}/{endpoint}", {field: value}),
    ):
        (found,) = hooks.ask(method, where, body).fields
        assert f"{found}.".startswith(f"body.{field}."), method


def test_a_client_key_of_another_certificate_is_refused(hooks, app, ca):
    one, other = ca.issue_cert("one.example.com"), ca.issue_cert("other.example.com")
    tls = {
        "clientCert": one.cert_chain_pems[0].bytes().decode(),
        "clientKey": other.private_key_pem.bytes().decode(),
    }
    answer = hooks.ask("POST", f"/app/{app}/endpoint", {"url": PUBLIC, "tls": tls, "disabled": True})
    assert answer.fields == ["body.tls"]
    fitting = {**tls, "clientKey": one.private_key_pem.bytes().decode()}
    hooks.make(f"/app/{app}/endpoint", {"url": PUBLIC, "tls": fitting, "disabled": True})


# ── kinds ───────────────────────────────────────────────────────────────────────

GOOD = {
    "webhook": {"url": PUBLIC},
    "http": {"url": PUBLIC, "options": {"method": "PUT", "body": "{{ payload }}"}},
    "slack": {"url": PUBLIC},
    "discord": {"url": PUBLIC},
    "telegram": {"options": {"token": "123456:ABC-DEF", "chat_id": "-1001234567890"}},
    "teams": {"url": PUBLIC},
    "ntfy": {"options": {"topic": "alarms"}},
    "pagerduty": {"options": {"routing_key": "a" * 32}},
    "email": {"options": MAIL},
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_is_taken_with_what_it_needs(hooks, app, kind):
    made = hooks.make(f"/app/{app}/endpoint", {"kind": kind, "disabled": True, **GOOD[kind]})
    assert made["kind"] == kind


@pytest.mark.parametrize("kind", GOOD)
def test_an_option_that_a_kind_does_not_have_is_named(hooks, app, kind):
    options = {**GOOD[kind].get("options", {}), "tmplate": "x"}
    given = {"kind": kind, "disabled": True, **GOOD[kind], "options": options}
    answer = hooks.ask("POST", f"/app/{app}/endpoint", given)
    (field,) = answer.fields
    assert field.startswith("body.options")
    assert "tmplate" in field + answer.body["detail"][0]["msg"]


@pytest.mark.parametrize("kind", ["slack", "discord", "telegram", "teams", "ntfy", "pagerduty", "email"])
@pytest.mark.parametrize("template", ["{{ customer }}", "{{ payload.a", "{{ 1 + 1 }}", "{% for %}{{", 7])
def test_a_template_that_is_none_is_named(hooks, app, kind, template):
    options = {**GOOD[kind].get("options", {}), "template": template}
    given = {"kind": kind, "disabled": True, **GOOD[kind], "options": options}
    assert hooks.ask("POST", f"/app/{app}/endpoint", given).fields == ["body.options.template"]


@pytest.mark.parametrize("kind", ["webhook", "http", "slack", "discord", "teams"])
def test_a_kind_without_a_url_of_its_own_asks_for_one(hooks, app, kind):
    given = {"kind": kind, **GOOD[kind], "url": ""}
    assert hooks.ask("POST", f"/app/{app}/endpoint", given).fields == ["body.url"]


@pytest.mark.parametrize(
    ("kind", "changed", "field"),
    [
        ("telegram", {"token": ""}, "options.token"),
        ("telegram", {"token": "ABC"}, "options.token"),
        ("telegram", {"token": "1:../../x"}, "options.token"),
        ("telegram", {"token": "1:a?b"}, "options.token"),
        ("telegram", {"token": 5}, "options.token"),
        ("telegram", {"chat_id": ""}, "options.chat_id"),
        ("telegram", {"chat_id": -5}, "options.chat_id"),
        ("ntfy", {"topic": ""}, "options.topic"),
        ("ntfy", {"topic": "a/b"}, "options.topic"),
        ("ntfy", {"topic": "a" * 65}, "options.topic"),
        ("ntfy", {"priority": 0}, "options.priority"),
        ("ntfy", {"priority": 6}, "options.priority"),
        ("ntfy", {"priority": "high"}, "options.priority"),
        ("ntfy", {"token": "a\r\nX: y"}, "options.token"),
        ("ntfy", {"token": "ü"}, "options.token"),
        ("pagerduty", {"routing_key": ""}, "options.routing_key"),
        ("pagerduty", {"routing_key": "a" * 31}, "options.routing_key"),
        ("pagerduty", {"routing_key": "a" * 31 + "-"}, "options.routing_key"),
        ("pagerduty", {"severity": "bad"}, "options.severity"),
        ("http", {"method": "TRACE"}, "options.method"),
        ("http", {"method": "post"}, "options.method"),
        ("http", {"body": "{{ nothing }}"}, "options.body"),
        ("http", {"body": "{"}, "options.body"),
        ("http", {"body": '{"a": {{ payload }}'}, "options.body"),
        ("http", {"content_type": "text/plain\r\nX: y"}, "options.content_type"),
        ("http", {"content_type": "ü"}, "options.content_type"),
        ("email", {"to": []}, "options.to"),
        ("email", {"to": ["ann"]}, "options.to"),
        ("email", {"to": ["ann@example.com", "x"]}, "options.to"),
        ("email", {"to": ["ann@example.com\r\nBcc: eve@example.com"]}, "options.to"),
        ("email", {"to": "ann@example.com"}, "options.to"),
        ("email", {"host": ""}, "options.host"),
        ("email", {"host": "a b"}, "options.host"),
        ("email", {"host": "a/b"}, "options.host"),
        ("email", {"host": "a\r\n"}, "options.host"),
        ("email", {"sender": ""}, "options.sender"),
        ("email", {"sender": "us"}, "options.sender"),
        ("email", {"sender": "us@example.com\r\nBcc: eve@example.com"}, "options.sender"),
        ("email", {"port": 0}, "options.port"),
        ("email", {"port": 65_536}, "options.port"),
        ("email", {"port": "25"}, "options.port"),
        ("email", {"security": "ssl"}, "options.security"),
        ("email", {"security": "none", "username": "us", "password": "secret"}, "options.security"),
        ("email", {"subject": "{{ nothing }}"}, "options.subject"),
        ("webhook", {"signatures": [{"form": "md5"}]}, "options.signatures.0.form"),
        ("webhook", {"signatures": [{"form": "token"}]}, "options.signatures.0.header"),
        ("webhook", {"signatures": [{"form": "token", "header": "a b"}]}, "options.signatures.0.header"),
        ("webhook", {"signatures": [{"form": "token", "header": "Host"}]}, "options.signatures.0.header"),
        (
            "webhook",
            {"signatures": [{}, {"form": "hmac", "header": "X-S", "signed": "{id}"}]},
            "options.signatures.1.signed",
        ),
        (
            "webhook",
            {"signatures": [{"form": "hmac", "header": "X-S", "value": "sha256="}]},
            "options.signatures.0.value",
        ),
        (
            "webhook",
            {"signatures": [{"form": "hmac", "header": "X-S", "value": "{signature}\r\nX: y"}]},
            "options.signatures.0.value",
        ),
        (
            "webhook",
            {"signatures": [{"form": "hmac", "header": "X-S", "encoding": "base32"}]},
            "options.signatures.0.encoding",
        ),
    ],
)
def test_a_wrong_option_is_named(hooks, app, kind, changed, field):
    options = {**GOOD[kind].get("options", {}), **changed}
    given = {"kind": kind, "disabled": True, **GOOD[kind], "options": options}
    (found,) = set(hooks.ask("POST", f"/app/{app}/endpoint", given).fields)
    assert found in (f"body.{field}", f"body.{field}.0")


@pytest.mark.parametrize(
    "url", ["https://acme.webhook.office.com/webhookb2/1", "https://ACME.Webhook.Office.com/webhookb2/1"]
)
def test_an_office_connector_is_retired(hooks, app, url):
    answer = hooks.ask("POST", f"/app/{app}/endpoint", {"kind": "teams", "url": url, "disabled": True})
    assert answer.fields == ["body.url"]
    assert "retired" in answer.body["detail"][0]["msg"]


def test_an_email_endpoint_has_no_url(hooks, app):
    given = {"kind": "email", "url": PUBLIC, "options": MAIL}
    assert hooks.ask("POST", f"/app/{app}/endpoint", given).fields == ["body.url"]


# ── queries and paths ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/app", "limit=0", "limit"),
        ("/app", "limit=251", "limit"),
        ("/app", "limit=-1", "limit"),
        ("/app", "limit=ten", "limit"),
        ("/app", "order=sideways", "order"),
        ("/app", "iterator=" + "a" * 301, "iterator"),
        ("/event-type", "include_archived=perhaps", "include_archived"),
        ("/app/{app}/msg", "before=yesterday", "before"),
        ("/app/{app}/msg", "after=2027-13-01T00:00:00Z", "after"),
        ("/app/{app}/attempt/endpoint/{endpoint}", "status=9", "status"),
        ("/app/{app}/attempt/endpoint/{endpoint}", "status_code_class=ok", "status_code_class"),
        ("/app/{app}/endpoint/{endpoint}/stats", "since=x", "since"),
    ],
)
def test_a_wrong_parameter_is_named(hooks, app, endpoint, path, query, field):
    answer = hooks.ask("GET", f"{path.format(app=app, endpoint=endpoint)}?{query}")
    assert answer.fields == [f"query.{field}"]


ODD = [
    "iterator=-", "iterator=", "iterator=--", "iterator=%00", "iterator=-%00", "iterator=%F0%9F%98%80",
    "channel=%00", "channel=%25", "tag=%00", "tag=%5C", "tag=%22", "event_types=%00", "event_types=,,",
    "before=0001-01-01T00:00:00Z", "before=9999-12-31T23:59:59Z", "after=0001-01-01T00:00:00Z",
    "after=9999-12-31T23:59:59Z", "before=0", "after=-62135596800", "before=0001-01-01T00:00:00%2B23:00",
    "after=9999-12-31T23:59:59-23:00", "since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59-23:00",
    "status=3", "status_code_class=7", "endpoint_id=%00",
]  # fmt: skip


def lists_of(app, endpoint, message):
    return (
        "/app",
        "/event-type",
        f"/app/{app}/endpoint",
        f"/app/{app}/msg",
        f"/app/{app}/attempt/endpoint/{endpoint}",
        f"/app/{app}/attempt/msg/{message}",
        f"/app/{app}/endpoint/{endpoint}/msg",
        f"/app/{app}/msg/{message}/endpoint",
        f"/app/{app}/endpoint/{endpoint}/stats",
    )


@pytest.mark.parametrize("query", ODD)
def test_an_odd_parameter_does_no_harm(hooks, app, endpoint, query):
    message = hooks.make(f"/app/{app}/msg", event())["id"]
    for path in lists_of(app, endpoint, message):
        answer = hooks.ask("GET", f"{path}?{query}")
        assert answer.status in ((200, 404, 422) if "endpoint_id" in query else (200, 422)), path


@pytest.fixture
def in_postgresql(postgres, tmp_path):
    service = HooksService(tmp_path, store=postgres.new_database(), allow=None, encryption_key=KEY)
    yield service
    service.stop()


def test_a_nul_does_no_harm_to_the_messages_of_others_in_postgresql(in_postgresql):
    """They are written together."""
    app = in_postgresql.app()

    def send(number):
        if number % 4 == 0:
            return in_postgresql.ask("POST", "/app/%00/msg", event()).status == 404
        return in_postgresql.ask("POST", f"/app/{app}/msg", event()).status == 202

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(send, range(200)))


def test_a_nul_does_no_harm_to_postgresql(in_postgresql):
    """Its texts have none."""
    hooks = in_postgresql
    app = hooks.app()
    endpoint = hooks.make(f"/app/{app}/endpoint", {"url": PUBLIC, "disabled": True})["id"]
    message = hooks.make(f"/app/{app}/msg", event(payload={"text": "a\u0000b"}, tags=["\u0000"]))["id"]
    asked = [
        *(
            ("GET", f"{path}?{query}=%00", None)
            for query in ("iterator", "channel", "tag", "event_types", "endpoint_id")
            for path in lists_of(app, endpoint, message)
        ),
        *(("GET", path, None) for path in lists_of("%00", "%00", "%00")[2:]),
        ("GET", f"/app/{app}/endpoint/%00", None),
        ("GET", f"/app/{app}/msg/%00", None),
        ("GET", f"/app/{app}/msg/{message}/attempt/%00", None),
        ("GET", "/event-type/%00", None),
        ("POST", "/app/%00/msg", event()),
        ("DELETE", "/token/%00", None),
        ("POST", "/token", {"applicationId": "\u0000"}),
        ("POST", "/token", {"name": "\u0000"}),
        ("POST", "/app", {"name": "\u0000"}),
        ("POST", "/app", {"name": "Acme", "uid": "\u0000"}),
        ("POST", "/app", {"name": "Acme", "metadata": {"\u0000": "\u0000"}}),
        ("POST", "/event-type", {"name": "one", "description": "\u0000"}),
        ("POST", "/event-type", {"name": "two", "description": "", "schemas": {"a": "\u0000"}}),
        ("POST", f"/app/{app}/endpoint", {"url": PUBLIC, "disabled": True, "headers": {"X-A": "\u0000"}}),
        ("POST", f"/app/{app}/endpoint/{endpoint}/secret/rotate", {"key": "\u0000"}),
    ]
    answers = [(one, hooks.ask(*one).status) for one in asked]
    assert [one for one in answers if one[1] not in (200, 201, 404, 422)] == []


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:00"]
)
@pytest.mark.parametrize("what", ["recover", "replay-missing"])
def test_any_time_can_be_gone_back_to(hooks, what, time):
    app = hooks.app()
    endpoint = hooks.make(f"/app/{app}/endpoint", {"url": PUBLIC})["id"]
    for body in ({"since": time}, {"since": "2026-01-01T00:00:00Z", "until": time}):
        answer = hooks.ask("POST", f"/app/{app}/endpoint/{endpoint}/{what}", body)
        assert answer.status in (202, 422), answer


def test_what_a_disabled_endpoint_cannot_do_is_a_bad_request(hooks, app, endpoint):
    path = f"/app/{app}/endpoint/{endpoint}"
    message = hooks.make(f"/app/{app}/msg", event())["id"]
    since = {"since": "2026-01-01T00:00:00Z"}
    for where, body in (
        (f"{path}/recover", since),
        (f"{path}/replay-missing", since),
        (f"{path}/send-example", {"eventType": "a"}),
        (f"/app/{app}/msg/{message}/endpoint/{endpoint}/resend", None),
    ):
        answer = hooks.ask("POST", where, body)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "disabled" in answer.body["detail"]


@pytest.mark.parametrize("key", ["a" * 257, " " * 300])
def test_an_idempotency_key_has_so_many_characters_at_most(hooks, key):
    answer = hooks.ask("POST", "/app", {"name": "Acme"}, headers={"Idempotency-Key": key})
    if key.strip():
        assert answer.fields == ["header.idempotency-key"]


def test_an_unknown_path_and_a_wrong_method_are_told_apart(hooks):
    assert hooks.ask("GET", "/nothing").code == "not_found"
    answer = hooks.ask("DELETE", "/app")
    assert (answer.status, answer.code) == (405, "method_not_allowed")


# ── what is refused when it connects ────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(open_hooks, service, status):
    secret_place = Service()
    try:
        headers = {"Location": f"{secret_place.url}/metadata"}
        service.answer = lambda call: (status, b"moved", headers)
        app = open_hooks.app()
        open_hooks.make(f"/app/{app}/endpoint", {"url": service.url})
        message = open_hooks.make(f"/app/{app}/msg", event())["id"]
        (attempt,) = open_hooks.attempts(app, message)
        assert (attempt["statusText"], attempt["responseStatusCode"]) == ("fail", status)
        assert attempt["reason"].startswith("redirect: ")
        assert len(service.calls) == 1
        assert secret_place.calls == []
    finally:
        secret_place.stop()


def test_a_name_of_a_private_address_is_refused_when_it_connects(hooks):
    """The name of this machine: it is no address, so it is judged by what it resolves to."""
    name = socket.gethostname()
    if name == "localhost":
        pytest.skip("this machine has no name of its own")
    app = hooks.app()
    with Listener() as listener:
        hooks.make(f"/app/{app}/endpoint", {"url": f"http://{name}:{listener.port}/in"})
        message = hooks.make(f"/app/{app}/msg", event())["id"]
        (attempt,) = hooks.attempts(app, message)
        assert attempt["reason"].startswith(("blocked_address", "dns")), attempt["reason"]
        assert attempt["responseStatusCode"] == 0
        assert not listener.has_been_called()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "::1", "::ffff:127.0.0.1"])
def test_a_mail_server_on_a_private_address_is_never_called(hooks, host):
    app = hooks.app()
    with Listener() as listener:
        options = {**MAIL, "host": host, "port": listener.port, "security": "none"}
        hooks.make(f"/app/{app}/endpoint", {"kind": "email", "options": options})
        message = hooks.make(f"/app/{app}/msg", event())["id"]
        (attempt,) = hooks.attempts(app, message)
        assert attempt["statusText"] == "fail"
        assert attempt["reason"].startswith("blocked_address: ")
        assert not listener.has_been_called()


@pytest.mark.parametrize("host", [".", "a..b", "a" * 64 + ".example.com", "[::1]", ":"])
def test_an_attempt_at_a_mail_server_that_is_no_name_ends(hooks, host):
    """Refused at once, or a failure: it must not be under way for ever."""
    app = hooks.app()
    given = {"kind": "email", "options": {**MAIL, "host": host}}
    answer = hooks.ask("POST", f"/app/{app}/endpoint", given)
    if answer.status == 422:
        assert answer.fields == ["body.options.host"]
        return
    message = hooks.make(f"/app/{app}/msg", event())["id"]
    (attempt,) = hooks.attempts(app, message)
    assert attempt["statusText"] == "fail"


class Listener:
    """A port of 127.0.0.1 that nobody is to call."""

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self._socket.close()

    def has_been_called(self):
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True
