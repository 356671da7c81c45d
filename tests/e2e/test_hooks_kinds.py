"""Each HTTP kind of endpoint against a local receiver: the request that the service's documentation asks for."""

import base64
import hashlib
import hmac
import json
import re
from datetime import timedelta
from functools import partial

import msgspec
import pytest
from standardwebhooks import Webhook

from support.hooks import START, endpoint_of, opened
from support.hooks_log import APP, endpoint_for, logged, tried
from support.waiting import until_true
from yelpaze.hooks.context import Access
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.log import endpoints
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.values import EndpointSecretRotateIn, MessageIn

TELEGRAM = {"token": "123456:ABC-DEF_1", "chat_id": "-1001234567890"}
NTFY = {"topic": "orders"}
PAGERDUTY = {"routing_key": "0123456789abcdef0123456789abcdef"}
OPTIONS = {"telegram": TELEGRAM, "ntfy": NTFY, "pagerduty": PAGERDUTY}
CHAT = ["slack", "discord", "telegram", "teams", "ntfy", "pagerduty"]
OLD_SECRET = "a secret of the receiver's own"


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "hooks.db")


async def call_of(
    store, service, kind, payload, *, event_type="order.completed", path="/hook", send=None, **fields
):
    """The request that a receiver gets, and what the log says of it."""
    fields.setdefault("options", OPTIONS.get(kind, {}))
    async with opened(store) as hooks:
        await endpoint_for(hooks, service.url + path, kind=kind, **fields)
        await hooks.send(APP, event_type, payload, **send or {})
        (attempt,) = await logged(hooks)
    (call,) = service.calls
    assert attempt.reason == ""
    return call


def text_in(kind, call):
    """The text that people read, in the body of a chat service."""
    body = json.loads(call.body)
    if kind == "teams":
        return body["attachments"][0]["content"]["body"][0]["text"]
    if kind == "pagerduty":
        return body["payload"]["summary"]
    return body[{"slack": "text", "discord": "content", "telegram": "text", "ntfy": "message"}[kind]]


async def refused(store, **fields):
    """Why an endpoint cannot be."""
    async with opened(store, deliver=False) as hooks:
        with pytest.raises(HooksError) as caught:
            await endpoint_for(hooks, **fields)
    assert caught.value.status == 422
    return ".".join(caught.value.field)


# ── what each service is sent ───────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [*CHAT, "webhook", "http"])
async def test_a_request_is_a_post_of_json_by_us_with_the_endpoints_headers(store, service, kind):
    call = await call_of(store, service, kind, {"text": "Paid"}, headers={"X-Tenant": "acme"})
    assert call.method == "POST"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("yelpaze-hooks/")
    assert call.headers["x-tenant"] == "acme"
    assert "traceparent" not in call.headers


async def test_slack_gets_a_text(store, service):
    call = await call_of(store, service, "slack", {"text": "Paid"}, path="/services/T0/B0/XXX")
    assert call.path == "/services/T0/B0/XXX"
    assert json.loads(call.body) == {"text": "Paid"}


async def test_discord_gets_content_that_mentions_nobody(store, service):
    call = await call_of(store, service, "discord", {"text": "@everyone look"}, path="/api/webhooks/1/abc")
    assert call.path == "/api/webhooks/1/abc"
    assert json.loads(call.body) == {"content": "@everyone look", "allowed_mentions": {"parse": []}}


async def test_telegram_gets_a_message_without_markup(store, service):
    call = await call_of(store, service, "telegram", {"text": "<b>Paid</b>"}, path="")
    assert call.path == f"/bot{TELEGRAM['token']}/sendMessage"
    assert json.loads(call.body) == {"chat_id": "-1001234567890", "text": "<b>Paid</b>"}


async def test_teams_gets_an_adaptive_card(store, service):
    call = await call_of(store, service, "teams", {"text": "Paid"}, path="/workflows/1")
    assert json.loads(call.body) == {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": [{"type": "TextBlock", "text": "Paid", "wrap": True}],
                },
            }
        ],
    }


async def test_ntfy_gets_a_message_for_a_topic_at_the_root(store, service):
    options = {**NTFY, "priority": 5, "tags": ["warning"], "token": "tk_secret"}
    payload = {"title": "Order 7", "text": "Paid"}
    call = await call_of(store, service, "ntfy", payload, path="/", options=options)
    assert call.path == "/"
    assert call.headers["authorization"] == "Bearer tk_secret"
    assert json.loads(call.body) == {
        "topic": "orders",
        "title": "Order 7",
        "message": "Order 7\nPaid",
        "priority": 5,
        "tags": ["warning"],
    }


async def test_ntfy_without_a_token_sends_none(store, service):
    call = await call_of(store, service, "ntfy", {"text": "Paid"}, path="/")
    assert "authorization" not in call.headers
    body = json.loads(call.body)
    assert (body["title"], body["priority"], "tags" in body) == ("order.completed", 3, False)


async def test_pagerduty_triggers_an_incident(store, service):
    payload = {"text": "Disk full", "severity": "warning", "host": "db-1"}
    call = await call_of(
        store, service, "pagerduty", payload, path="/v2/enqueue", send={"order_key": "disk:db-1"}
    )
    assert call.path == "/v2/enqueue"
    assert json.loads(call.body) == {
        "routing_key": PAGERDUTY["routing_key"],
        "event_action": "trigger",
        "dedup_key": "disk:db-1",
        "payload": {
            "summary": "Disk full",
            "source": "yelpaze",
            "severity": "warning",
            "custom_details": payload,
        },
    }


async def test_pagerduty_resolves_the_incident_of_the_order_key(store, service):
    payload = {"text": "Disk is fine", "status": "resolved"}
    call = await call_of(store, service, "pagerduty", payload, send={"order_key": "disk:db-1"})
    body = json.loads(call.body)
    assert (body["event_action"], body["dedup_key"]) == ("resolve", "disk:db-1")


async def test_pagerduty_without_an_order_key_deduplicates_retries_of_a_message(store, service):
    payload = {"text": "Disk full", "severity": "terrible"}
    body = json.loads((await call_of(store, service, "pagerduty", payload)).body)
    assert body["dedup_key"].startswith("msg_")
    assert body["payload"]["severity"] == "critical"  # what PagerDuty does not know is the endpoint's


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("telegram", "https://api.telegram.org"),
        ("ntfy", "https://ntfy.sh/"),
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue"),
    ],
)
async def test_the_services_own_url_is_the_default(store, kind, url):
    async with opened(store, deliver=False) as hooks:
        assert (await endpoint_for(hooks, kind=kind, options=OPTIONS[kind])).url == url


# ── texts ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", CHAT)
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"text": "Paid", "message": "no"}, "Paid"),
        ({"message": "Paid"}, "Paid"),
        ({"description": "Paid"}, "Paid"),
        ({"title": "Order 7", "text": "Paid"}, "Order 7\nPaid"),
        ({"title": "Order 7"}, "Order 7"),
        ({"order": 7}, 'order.completed\n{\n  "order": 7\n}'),
    ],
)
async def test_the_default_text_is_what_people_read(store, service, kind, payload, text):
    assert text_in(kind, await call_of(store, service, kind, payload)) == text


@pytest.mark.parametrize("kind", CHAT)
async def test_a_template_names_values(store, service, kind):
    template = "{{ type }} {{payload.order.id}}: {{ payload.items.1 }}, {{ payload.none }}{{ payload.items }}"
    payload = {"order": {"id": 7}, "items": ["pen", "ink"]}
    options = {**OPTIONS.get(kind, {}), "template": template}
    call = await call_of(store, service, kind, payload, options=options)
    assert text_in(kind, call) == 'order.completed 7: ink, ["pen","ink"]'


async def test_slack_takes_no_markup_from_values(store, service):
    payload = {"text": "<!channel> a & b <https://evil.test|bank>"}
    call = await call_of(store, service, "slack", payload)
    assert text_in("slack", call) == "&lt;!channel&gt; a &amp; b &lt;https://evil.test|bank&gt;"


async def test_slack_keeps_the_templates_own_markup(store, service):
    options = {"template": "<!here> *{{ payload.name }}*"}
    call = await call_of(store, service, "slack", {"name": "<x>"}, options=options)
    assert text_in("slack", call) == "<!here> *&lt;x&gt;*"


async def test_slack_takes_no_markup_from_names_in_the_payload(store, service):
    call = await call_of(store, service, "slack", {"<!channel>": 1}, options={"template": "{{ payload }}"})
    assert "<" not in text_in("slack", call)


@pytest.mark.parametrize(
    ("kind", "most"), [("slack", 40_000), ("discord", 2000), ("telegram", 4096), ("pagerduty", 1024)]
)
async def test_a_long_text_is_cut_to_what_the_service_takes(store, service, kind, most):
    text = text_in(kind, await call_of(store, service, kind, {"text": "é" * 50_000}))
    assert text == "é" * (most - 1) + "…"


async def test_ntfy_gets_no_more_than_its_4096_bytes(store, service):
    text = text_in("ntfy", await call_of(store, service, "ntfy", {"text": "é" * 50_000}))
    assert set(text) == {"é"}
    assert 3900 < len(text.encode()) <= 4096


@pytest.mark.parametrize("letter", ["x", "é", "漢", "\\"])
async def test_teams_gets_no_more_than_its_28_kilobytes(store, service, letter):
    call = await call_of(store, service, "teams", {"text": letter * 50_000})
    assert 10_000 < len(call.body) <= 28 * 1024


# ── answers ─────────────────────────────────────────────────────────────────────


async def attempt_at(store, service, kind, answer):
    service.answer = lambda _: answer
    async with opened(store) as hooks:
        await endpoint_for(hooks, service.url, kind=kind, options=OPTIONS.get(kind, {}), schedule=(0, 5))
        await hooks.send(APP, "order.completed", {"text": "Paid"})
        return (await logged(hooks))[0]


async def test_telegrams_ok_false_is_a_failure_whatever_the_status(store, service):
    answer = {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"}
    attempt = await attempt_at(store, service, "telegram", answer)
    assert attempt.status_text == "fail"
    assert attempt.reason == "refused: Telegram refused: Bad Request: chat not found"
    assert attempt.next_attempt - attempt.timestamp >= timedelta(seconds=5)


async def test_telegrams_ok_true_is_a_success(store, service):
    attempt = await attempt_at(store, service, "telegram", {"ok": True, "result": {"message_id": 1}})
    assert (attempt.status_text, attempt.next_attempt) == ("success", None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("telegram", {"ok": False, "error_code": 429, "parameters": {"retry_after": 120}}),
        ("discord", {"message": "You are being rate limited.", "retry_after": 120.5, "global": False}),
    ],
)
async def test_a_body_that_says_when_to_come_again_is_obeyed(store, service, kind, body):
    attempt = await attempt_at(store, service, kind, (429, body))
    wait = attempt.next_attempt - attempt.timestamp
    assert timedelta(seconds=120) <= wait < timedelta(seconds=180)


async def test_a_body_that_asks_for_too_much_gets_the_cap(store, service):
    attempt = await attempt_at(store, service, "discord", (429, {"retry_after": 1e9}))
    assert attempt.next_attempt - attempt.timestamp < timedelta(seconds=3700)


NONSENSE = [b"", b"no JSON", b"[]", b"\xff", b'{"retry_after": "x"}', b'{"ok": true, "description": "\xff"}']
NONSENSE += [b'{"ok": true, "x": %s%s}' % (b"[" * 9000, b"]" * 9000)]


@pytest.mark.parametrize("kind", CHAT)
@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
async def test_an_answer_that_makes_no_sense_is_an_attempt_all_the_same(store, service, kind, status, body):
    attempt = await attempt_at(store, service, kind, (status, body))
    assert attempt.response_status_code == status
    assert attempt.status_text == ("success" if status == 200 else "fail")


# ── http ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET", "DELETE"])
async def test_http_sends_the_method_that_is_asked_for(store, raw, method):
    requests = []

    async def script(peer):
        requests.append(await peer.request())
        await peer.answer()

    server = await raw(script)
    async with opened(store) as hooks:
        await endpoint_for(hooks, f"{server.url}/in?key=1", kind="http", options={"method": method})
        await hooks.send(APP, "order.completed", {"order": 7})
        (attempt,) = await logged(hooks)
    assert attempt.reason == ""
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"{method} /in?key=1 HTTP/1.1\r\n".encode())
    has_body = method not in ("GET", "DELETE")
    assert body == (b'{"order":7}' if has_body else b"")
    assert (b"content-type: application/json" in head.lower()) == has_body


async def test_http_fills_a_template_of_json(store, service):
    template = (
        '{"text": "Order {{ payload.id }}: {{ payload.note }}", "all": {{ payload }}, "n": {{ payload.id }}}'
    )
    payload = {"id": 7, "note": 'say "hi"\n\\ {{ type }}'}
    call = await call_of(store, service, "http", payload, options={"body": template})
    assert json.loads(call.body) == {"text": f"Order 7: {payload['note']}", "all": payload, "n": 7}


async def test_http_fills_a_template_of_text(store, service):
    options = {
        "body": "{{ type }}={{ payload.id }};{{ payload.note }}",
        "content_type": "text/plain; charset=utf-8",
    }
    call = await call_of(store, service, "http", {"id": 7, "note": 'çay "x"'}, options=options)
    assert call.headers["content-type"] == "text/plain; charset=utf-8"
    assert call.body.decode() == 'order.completed=7;çay "x"'


async def test_http_is_not_signed(store, service):
    call = await call_of(store, service, "http", {"order": 7}, headers={"Authorization": "Bearer abc"})
    assert call.headers["authorization"] == "Bearer abc"
    assert not any(name.startswith("webhook-") for name in call.headers)


# ── webhook ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def today(monkeypatch):
    """The standard library of receivers goes by the real time."""
    import standardwebhooks.webhooks as module

    class Clock(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(START, tz)

    monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(module, "timedelta", lambda **_: timedelta(days=100_000))


async def test_a_webhook_is_the_payload_signed_as_standard_webhooks_says(store, service, today):
    async with opened(store) as hooks:
        endpoint = await endpoint_for(hooks, f"{service.url}/hook")
        payload = {"type": "order.completed", "data": {"name": "çay"}}
        message = await hooks.send(APP, "order.completed", payload)
        await logged(hooks)
        secret = await hooks.secret(APP, endpoint.id)
    (call,) = service.calls
    assert json.loads(call.body) == payload
    assert call.headers["webhook-id"] == message.id
    assert Webhook(secret).verify(call.body, call.headers) == payload
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(call.body + b" ", call.headers)


async def test_both_secrets_sign_after_a_rotation(store, service, today):
    async with opened(store) as hooks:
        endpoint = await endpoint_for(hooks, f"{service.url}/hook")
        old = await hooks.secret(APP, endpoint.id)
        given = EndpointSecretRotateIn()
        rotate = partial(endpoints.rotate_secret, context=hooks.context, given=given)
        await hooks.on_endpoint(lambda session, _, found: rotate(session, endpoint=found), APP, endpoint.id)
        await hooks.send(APP, "order.completed", {"order": 7})
        await logged(hooks)
        new = await hooks.secret(APP, endpoint.id)
    (call,) = service.calls
    assert old != new
    for secret in (old, new):
        assert Webhook(secret).verify(call.body, call.headers) == {"order": 7}


def older(**form):
    return {"options": {"signatures": [form]}, "secret": OLD_SECRET}


async def test_githubs_form_is_verified_as_github_says(store, service):
    """docs.github.com, "Validating webhook deliveries": HMAC hex digest of the body, with the prefix sha256=."""
    form = older(form="hmac", header="X-Hub-Signature-256", value="sha256={signature}")
    call = await call_of(store, service, "webhook", {"name": "çay"}, **form)
    digest = hmac.new(OLD_SECRET.encode(), msg=call.body, digestmod=hashlib.sha256).hexdigest()
    assert hmac.compare_digest(f"sha256={digest}", call.headers["x-hub-signature-256"])
    assert "webhook-signature" not in call.headers


async def test_stripes_form_is_verified_as_stripe_says(store, service):
    """docs.stripe.com/webhooks, "Verify manually": `t` and `v1`, over timestamp, a point and the body."""
    form = older(
        form="hmac",
        header="Stripe-Signature",
        signed="{timestamp}.{body}",
        value="t={timestamp},v1={signature}",
    )
    call = await call_of(store, service, "webhook", {"name": "çay {timestamp}"}, **form)
    parts = dict(part.split("=", 1) for part in call.headers["stripe-signature"].split(","))
    signed = f"{parts['t']}.{call.body.decode()}"
    expected = hmac.new(OLD_SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, parts["v1"])
    assert int(parts["t"]) >= START


async def test_shopifys_form_is_base64_of_the_digest(store, service):
    form = older(form="hmac", header="X-Shopify-Hmac-Sha256", encoding="base64")
    call = await call_of(store, service, "webhook", {"order": 7}, **form)
    digest = hmac.new(OLD_SECRET.encode(), call.body, hashlib.sha256).digest()
    assert call.headers["x-shopify-hmac-sha256"] == base64.b64encode(digest).decode()


async def test_a_token_header_has_the_secret_itself(store, service):
    call = await call_of(
        store, service, "webhook", {"order": 7}, **older(form="token", header="X-Gitlab-Token")
    )
    assert call.headers["x-gitlab-token"] == OLD_SECRET


async def test_a_timestamp_header_has_seconds(store, service):
    call = await call_of(
        store, service, "webhook", {"order": 7}, **older(form="timestamp", header="X-Timestamp")
    )
    assert re.fullmatch(r"[0-9]{10}", call.headers["x-timestamp"])
    assert int(call.headers["x-timestamp"]) >= START


async def test_several_forms_go_together(store, service, today):
    forms = [
        {"form": "standard"},
        {"form": "hmac", "header": "X-Signature", "signed": "{id}.{body}"},
        {"form": "timestamp", "header": "X-Timestamp"},
    ]
    async with opened(store) as hooks:
        endpoint = await endpoint_for(hooks, f"{service.url}/hook", options={"signatures": forms})
        await hooks.send(APP, "order.completed", {"order": 7})
        await logged(hooks)
        secret = await hooks.secret(APP, endpoint.id)
    (call,) = service.calls
    assert Webhook(secret).verify(call.body, call.headers)
    signed = f"{call.headers['webhook-id']}.".encode() + call.body
    assert call.headers["x-signature"] == hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert call.headers["x-timestamp"] == call.headers["webhook-timestamp"]


# ── what cannot be ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "slak"}, "kind"),
        ({"kind": "slack", "options": {"templat": "x"}}, "options"),
        ({"kind": "slack", "options": {"template": "{{ customer }}"}}, "options.template"),
        ({"kind": "slack", "options": {"template": "{{ payload"}}, "options.template"),
        ({"kind": "slack", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "secret"),
        ({"kind": "telegram", "options": {"token": "abc", "chat_id": "1"}}, "options.token"),
        ({"kind": "telegram", "options": {"token": "1:abc"}}, "options.chat_id"),
        ({"kind": "ntfy", "options": {"topic": "a b"}}, "options.topic"),
        ({"kind": "ntfy", "options": {"topic": "a", "priority": 6}}, "options.priority"),
        ({"kind": "ntfy", "options": {"topic": "a", "token": "a\nb"}}, "options.token"),
        ({"kind": "pagerduty", "options": {"routing_key": "short"}}, "options.routing_key"),
        ({"kind": "pagerduty", "options": {**PAGERDUTY, "severity": "bad"}}, "options.severity"),
        ({"kind": "http", "options": {"body": '{"a": {{ payload }}'}}, "options.body"),
        ({"kind": "http", "options": {"method": "TRACE"}}, "options.method"),
        ({"kind": "http", "options": {"content_type": "a\r\nX: y"}}, "options.content_type"),
        ({"kind": "teams", "url": "https://x.webhook.office.com/1"}, "url"),
        ({"options": {"signatures": [{"form": "hmac", "header": "a b"}]}}, "options.signatures.0.header"),
        (
            {"options": {"signatures": [{"form": "hmac", "header": "A", "signed": "x"}]}},
            "options.signatures.0.signed",
        ),
        (
            {"options": {"signatures": [{"form": "hmac", "header": "A", "value": "x"}]}},
            "options.signatures.0.value",
        ),
        ({"secret": "no standard secret"}, "secret"),
        ({"headers": {"Webhook-Id": "x"}}, "headers"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_endpoint_that_cannot_be_is_refused_with_the_field(store, fields, field):
    assert await refused(store, **{"url": "https://example.com/hook", **fields}) == field


@pytest.mark.parametrize(
    ("kind", "name"), [("telegram", "token"), ("ntfy", "token"), ("pagerduty", "routing_key")]
)
async def test_secret_options_are_not_shown_and_stay_when_they_are_sent_back(store, kind, name):
    options = {"token": "tk_secret", **OPTIONS[kind]} if kind == "ntfy" else OPTIONS[kind]
    async with opened(store, deliver=False) as hooks:
        made = await endpoint_for(hooks, kind=kind, options=options)
        assert made.options == {**options, name: "***"}
        changed = await hooks.update_endpoint(
            APP, made.id, options={**made.options, "template": "{{ title }}"}
        )
        assert changed.options[name] == "***"
        assert (await endpoint_of(hooks, APP, made.id)).settings.options[name] == options[name]


# ── a kind that changes ─────────────────────────────────────────────────────────


async def test_an_endpoint_that_becomes_a_webhook_is_signed(store, service):
    async with opened(store) as hooks:
        endpoint = await endpoint_for(hooks, service.url, kind="slack")
        await hooks.update_endpoint(APP, endpoint.id, kind="webhook", url=service.url)
        await hooks.send(APP, "order.completed", {"order": 7})
        await logged(hooks)
        assert (await hooks.secret(APP, endpoint.id)).startswith("whsec_")
    assert service.calls[-1].headers["webhook-signature"].startswith("v1,")


async def test_standard_signatures_cannot_be_had_with_a_secret_of_another_form(store, service):
    """Whether it is refused or gets a new secret: deliveries to others go on."""
    async with opened(store) as hooks:
        other = await endpoint_for(hooks, f"{service.url}/other", uid="other", event_types=["other"])
        old = await endpoint_for(hooks, service.url, **older(form="token", header="X-Token"))
        _, refused_field = await tried(hooks.update_endpoint(APP, old.id, options={}))
        if not refused_field:
            await hooks.send(APP, "order.completed", {"order": 7})
            await until_true(lambda: any(call.path == "/" for call in service.calls))
            assert service.calls[-1].headers["webhook-signature"].startswith("v1,")
        await hooks.update_endpoint(APP, other.id, description="read again from the store")
        await hooks.send(APP, "other", {"order": 8})
        await until_true(lambda: any(call.path == "/other" for call in service.calls))


async def test_a_number_that_is_too_large_for_the_machine_is_delivered(store, service):
    payload = b'{"n":123456789012345678901234567890}'
    async with opened(store) as hooks:
        await endpoint_for(hooks, service.url, kind="slack")
        await hooks.accept(
            NewMessage(APP, Access(), MessageIn(event_type="big", payload=msgspec.Raw(payload)))
        )
        (attempt,) = await logged(hooks)
    assert attempt.reason == ""
    assert "123456789012345678901234567890" in text_in("slack", service.calls[0])


async def test_the_log_does_not_have_the_tokens_that_are_in_urls(store, raw):
    async def script(peer):
        await peer.request()
        peer.reset()

    server = await raw(script)
    async with opened(store) as hooks:
        await endpoint_for(hooks, server.url, kind="telegram", options=TELEGRAM)
        await hooks.send(APP, "order.completed", {"text": "Paid"})
        attempt = (await logged(hooks))[0]
    assert attempt.status_text == "fail"
    assert TELEGRAM["token"] not in msgspec.json.encode(attempt).decode()
