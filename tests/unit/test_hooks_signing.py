"""Signatures agree with the published vector and with the reference libraries; nothing else is let through."""

import base64
import random
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.hooks.kinds.protocol import Content, Secret, Settings
from yelpaze.hooks.kinds.registry import builder_of
from yelpaze.hooks.signing import VerificationError, key_of, new_secret, plain_digest, sign, verify
from yelpaze.model.errors import MisuseError

# standard-webhooks' own vector.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1_614_265_330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}

OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LIBRARIES = pytest.mark.parametrize(
    ("library", "prefix"),
    [(standardwebhooks, "webhook"), (svix.webhooks, "webhook"), (svix.webhooks, "svix")],
)
secrets = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=40)
bodies = st.text(max_size=100).map(str.encode)


def at(seconds):
    return lambda: seconds


def signed(secret, message_id, seconds, body, prefix="webhook"):
    values = {
        "id": message_id,
        "timestamp": str(seconds),
        "signature": sign(secret, message_id, seconds, body),
    }
    return {f"{prefix}-{name}": value for name, value in values.items()}


def verified(headers=HEADERS, body=BODY, secret=SECRET, now=AT):
    return verify(secret, headers, body, now=at(now))


def refused(headers=HEADERS, body=BODY, secret=SECRET, now=AT):
    with pytest.raises(VerificationError) as caught:
        verified(headers, body, secret, now)
    return str(caught.value)


# ── agreement ───────────────────────────────────────────────────────────────────


def test_the_published_vector_is_signed_and_verified():
    assert sign(SECRET, ID, AT, BODY) == SIGNATURE
    assert verified() == ID


@LIBRARIES
@given(secrets, ids, bodies)
def test_the_reference_libraries_verify_what_we_sign(library, prefix, secret, message_id, body):
    headers = signed(secret, message_id, int(time.time()), body, prefix)
    webhook = library.Webhook(secret)
    options = {"json_parse": False} if library is standardwebhooks else {}
    webhook.verify(body, headers, **options)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        webhook.verify(body + b" ", headers, **options)


@LIBRARIES
@given(secrets, ids, bodies, st.integers(0, 4_000_000_000))
def test_we_verify_what_the_reference_libraries_sign(library, prefix, secret, message_id, body, seconds):
    # In UTC: for other zones their `sign` is wrong (standard-webhooks#251).
    when = datetime.fromtimestamp(seconds, UTC)
    signature = library.Webhook(secret).sign(message_id, when, body.decode())
    headers = {
        f"{prefix}-id": message_id,
        f"{prefix}-timestamp": str(seconds),
        f"{prefix}-signature": signature,
    }
    assert verify(secret, headers, body, now=at(seconds)) == message_id
    assert sign(secret, message_id, seconds, body) == signature


@given(secrets, ids, st.binary(max_size=100), st.integers(0, 10**12))
def test_any_bytes_can_be_signed_and_verified(secret, message_id, body, seconds):
    headers = {name.upper(): value for name, value in signed(secret, message_id, seconds, body).items()}
    assert verify(secret, headers, body, now=at(seconds)) == message_id


def test_new_secrets_are_long_differ_and_are_taken_by_the_reference_library():
    made = {new_secret() for _ in range(20)}
    assert len(made) == 20
    for secret in made:
        assert len(key_of(secret)) == 32
        headers = signed(secret, ID, int(time.time()), BODY)
        assert standardwebhooks.Webhook(secret).verify(BODY, headers) == {"test": 2432232314}


def test_a_secret_may_come_without_its_prefix_or_its_padding():
    bare = OTHER.removeprefix("whsec_")
    assert key_of(OTHER) == key_of(bare) == key_of(OTHER.rstrip("=")) == bytes(range(32))


def test_the_older_forms_have_the_secrets_text_as_their_key():
    # docs.github.com, "Validating webhook deliveries", has this vector.
    digest = plain_digest("It's a Secret to Everybody", b"Hello, World!", "hex")
    assert digest == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    encoded = plain_digest("It's a Secret to Everybody", b"Hello, World!", "base64")
    assert base64.b64decode(encoded).hex() == digest


# ── rotation ────────────────────────────────────────────────────────────────────


def test_one_of_two_secrets_is_enough_on_either_side():
    both = f"{sign(OTHER, ID, AT, BODY)} {SIGNATURE}"
    headers = {**HEADERS, "webhook-signature": both}
    assert verified(headers) == verified(headers, secret=OTHER) == ID
    assert verified(secret=[OTHER, SECRET]) == verified(secret=[SECRET, OTHER]) == ID
    assert "no signature matches" in refused(secret=[OTHER])
    assert "no signature matches" in refused(secret=[])


def test_signatures_of_other_versions_are_passed_over():
    headers = {**HEADERS, "webhook-signature": f"v1a,AAAA v2,{SIGNATURE[3:]} v1, nonsense {SIGNATURE}"}
    assert verified(headers) == ID
    assert refused(
        {**HEADERS, "webhook-signature": f"v1a,{SIGNATURE[3:]} v2,{SIGNATURE[3:]} {SIGNATURE[3:]}"}
    )


def test_a_webhook_is_signed_with_both_secrets_until_the_older_one_ends():
    now = int(time.time())
    settings = Settings(kind="webhook", url="https://a.test/")
    build = builder_of(settings, (Secret(OTHER), Secret(SECRET, expires=(now + 60) * 1000)))

    def headers_at(seconds):
        content = Content(message_id=ID, event_type="a.b", payload=BODY, created=now, now=seconds)
        call = build(content)
        assert call.body == BODY
        return {name.lower(): value for name, value in call.headers}

    for secret in (OTHER, SECRET):
        standardwebhooks.Webhook(secret).verify(BODY, headers_at(now))
        assert verified(headers_at(now), secret=secret, now=now) == ID
    later = headers_at(now + 60)
    assert verified(later, secret=OTHER, now=now + 60) == ID
    assert "no signature matches" in refused(later, secret=SECRET, now=now + 60)


# ── what is refused ─────────────────────────────────────────────────────────────


def test_another_secret_is_refused():
    assert "no signature matches: wrong secret" in refused(secret=OTHER)


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_header_is_told(name):
    headers = {other: value for other, value in HEADERS.items() if other != name}
    assert "is missing" in refused(headers)
    assert refused({**HEADERS, name: ""})


@pytest.mark.parametrize("seconds", [-301, 301, -86_400, 86_400, 1e300, -1e300])
def test_a_timestamp_that_is_too_old_or_in_the_future_is_refused(seconds):
    assert "more than 300 s from now" in refused(now=AT + seconds)


@pytest.mark.parametrize("seconds", [-300, 300, 0, 0.5])
def test_a_timestamp_within_the_tolerance_is_taken(seconds):
    assert verified(now=AT + seconds) == ID


def test_the_tolerance_can_be_another():
    assert verify(SECRET, HEADERS, BODY, now=at(AT + 3000), tolerance=3600) == ID
    with pytest.raises(VerificationError, match="more than 10 s from now"):
        verify(SECRET, HEADERS, BODY, now=at(AT + 11), tolerance=10)


@pytest.mark.parametrize(
    "stamp", ["soon", f"-{AT}", f"{AT}.0", f" {AT}", f"+{AT}", f"{AT:x}", "9" * 400, "²", "٣", "1e9"]
)
def test_a_timestamp_that_is_no_number_is_refused(stamp):
    assert "is no number of seconds" in refused({**HEADERS, "webhook-timestamp": stamp})


@pytest.mark.parametrize("length", range(len(SIGNATURE)))
def test_a_truncated_signature_is_refused(length):
    assert refused({**HEADERS, "webhook-signature": SIGNATURE[:length]})


@given(st.sampled_from([*HEADERS, "body"]), st.integers(0, 100), st.integers(1, 0x10FFFF))
def test_whatever_is_changed_by_one_character_is_refused(where, place, change):
    def changed(text):
        index = place % len(text)
        other = chr((ord(text[index]) + change) % 0xD800)
        return text[:index] + other + text[index + 1 :]

    text = BODY.decode() if where == "body" else HEADERS[where]
    if changed(text) == text:
        return
    headers = HEADERS if where == "body" else {**HEADERS, where: changed(text)}
    refused(headers, changed(text).encode() if where == "body" else BODY)


@pytest.mark.parametrize("size", [0, 1, 23, 65, 100])
def test_a_secret_of_another_length_is_misuse_and_is_not_shown(size):
    text = base64.b64encode(random.Random(size).randbytes(size)).decode()
    with pytest.raises(MisuseError, match="24 to 64 random bytes") as caught:
        key_of(f"whsec_{text}")
    assert not text or text not in str(caught.value)


# With lone surrogates: some servers decode headers so that they have them.
anything = st.text(st.characters(), max_size=60) | st.text(
    st.characters(categories=["Cs"]), min_size=1, max_size=3
)
almost = st.sampled_from(
    [ID, str(AT), SIGNATURE, f"{SIGNATURE} {SIGNATURE}", "v1,", SIGNATURE[:-1], "0" + str(AT)]
)
names = st.sampled_from(
    [
        f"{prefix}-{name}"
        for prefix in ("webhook", "svix", "WebHook")
        for name in ("id", "timestamp", "signature")
    ]
)


@given(
    st.dictionaries(names | anything, almost | anything, max_size=6)
    | st.fixed_dictionaries(dict.fromkeys(HEADERS, almost | anything)),
    st.binary(max_size=20) | st.just(BODY),
    st.sampled_from([SECRET, OTHER, [SECRET, OTHER], []]) | anything | st.lists(anything, max_size=3),
)
def test_garbage_is_refused_and_nothing_else_is_raised(headers, body, secret):
    try:
        message_id = verify(secret, headers, body, now=at(AT))
    except (VerificationError, MisuseError):
        return
    assert (message_id, body) == (ID, BODY)
    assert secret in (SECRET, [SECRET, OTHER])


@pytest.mark.parametrize("name", HEADERS)
def test_a_lone_surrogate_in_a_header_is_refused(name):
    assert refused({**HEADERS, name: f"{HEADERS[name]}\udc80"})
    assert refused({**HEADERS, name: f"\udc80 {HEADERS[name]}x"})
