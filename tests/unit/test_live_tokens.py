"""Tokens: who vouches for what, and everything that must not pass for it."""

import asyncio
import base64
import hashlib
import hmac
import json

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from yelpaze.live.config import Token
from yelpaze.live.core.tokens import BadTokenError, Claims, ExpiredTokenError, Jwks, KeysAwayError, Verifier
from yelpaze.model.errors import InputError

SECRET = "a secret that is long enough for every hash function: sixty-four."
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def keys():
    return {
        "RS": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


def pem(key):
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def verifier(*, fetch=None, clock=lambda: 0.0, **settings):
    config = Token(**settings)
    jwks = Jwks(config.jwks_public_endpoint, fetch, clock) if fetch is not None else None
    return Verifier(config, "client.token", clock=lambda: NOW, jwks=jwks)


def read(found, token):
    return asyncio.run(found.read(token))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header, payload, secret=SECRET):
    """A token with an HMAC of SHA-256, whatever it says."""
    text = f"{b64(header)}.{b64(payload)}"
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64(digest)}"


def hs(secret=SECRET, algorithm="HS256", headers=None, **claims):
    return jwt.encode(claims, secret, algorithm, headers)


# ── what passes ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_signs_with_each_of_its_hashes(algorithm):
    assert read(verifier(hmac_secret_key=SECRET), hs(algorithm=algorithm, sub="42")).user == "42"


def test_a_secret_that_was_replaced_is_good_still():
    found = verifier(hmac_secret_key="n" * 64, hmac_previous_secret_key=SECRET)
    assert read(found, hs(sub="42")).user == "42"
    assert read(found, hs("n" * 64, sub="43")).user == "43"


def test_a_short_secret_is_told_at_the_start_not_by_warnings_for_each_token():
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = hs("short", sub="42")
    assert read(verifier(hmac_secret_key="short"), token).user == "42"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
def test_rsa(keys, algorithm):
    token = jwt.encode({"sub": "42"}, keys["RS"], algorithm)
    assert read(verifier(rsa_public_key=pem(keys["RS"])), token).user == "42"


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
def test_ecdsa_on_each_curve(keys, algorithm):
    token = jwt.encode({"sub": "42"}, keys[algorithm], algorithm)
    assert read(verifier(ecdsa_public_key=pem(keys[algorithm])), token).user == "42"


def test_eddsa(keys):
    token = jwt.encode({"sub": "42"}, keys["EdDSA"], "EdDSA")
    assert read(verifier(ed25519_public_key=pem(keys["EdDSA"])), token).user == "42"


def test_a_key_on_one_line_is_read(keys):
    one_line = pem(keys["RS"]).replace("\n", "\\n")
    assert (
        read(verifier(rsa_public_key=one_line), jwt.encode({"sub": "42"}, keys["RS"], "RS256")).user == "42"
    )


def test_all_that_a_token_says_is_heard():
    info = {"name": "Ada"}
    token = hs(
        sub="42",
        exp=NOW + 60,
        info=info,
        channels=["a", "b"],
        subs={"b": {}, "c": {"info": {"as": "admin"}, "override": {"force_recovery": {"value": True}}}},
        channel="d",
        client="e",
        override={"presence": {"value": True}, "join_leave": {"value": 1}, "x": 5},
    )
    claims = read(verifier(hmac_secret_key=SECRET), token)
    assert (claims.user, claims.expire_at, claims.channel, claims.client) == ("42", NOW + 60, "d", "e")
    assert list(claims.channels) == ["a", "b", "c"]
    assert claims.channels["a"] == Claims()
    assert claims.channels["c"].override == {"force_recovery": True}
    assert msgspec.json.decode(claims.channels["c"].info) == {"as": "admin"}
    assert claims.override == {"presence": True}
    assert msgspec.json.decode(claims.info) == info


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, 0),
        ({"exp": NOW + 5}, NOW + 5),
        ({"exp": NOW + 5.5}, NOW + 5),
        ({"exp": NOW + 5, "expire_at": NOW + 99}, NOW + 99),
        ({"exp": NOW + 5, "expire_at": 0}, 0),
        ({"expire_at": NOW + 7}, NOW + 7),
    ],
)
def test_when_a_connection_ends(claims, expected):
    assert read(verifier(hmac_secret_key=SECRET), hs(sub="42", **claims)).expire_at == expected


def test_the_user_may_be_another_claim():
    found = verifier(hmac_secret_key=SECRET, user_id_claim="user_id")
    assert read(found, hs(sub="1", user_id="2")).user == "2"


def test_info_in_base64_is_any_json():
    encoded = base64.b64encode('{"a":["ğ"]}'.encode()).decode()
    claims = read(verifier(hmac_secret_key=SECRET), hs(sub="42", b64info=encoded, info={"not": "this"}))
    assert msgspec.json.decode(claims.info) == {"a": ["ğ"]}


# ── what does not ───────────────────────────────────────────────────────────────────


def refused(found, token):
    with pytest.raises(BadTokenError):
        read(found, token)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS1", "RS256", "dir", "A128KW"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_other_algorithm_than_that_of_the_key(name, signature):
    header = b64(json.dumps({"alg": name, "typ": "JWT"}).encode())
    refused(verifier(hmac_secret_key=SECRET), f"{header}.{b64(b'{}')}.{signature}")


def test_without_an_algorithm_nothing_is_good():
    for header in (b"{}", b'{"alg":null}', b'{"alg":["HS256"]}', b'{"alg":{}}', b'{"alg":5}'):
        refused(verifier(hmac_secret_key=SECRET), signed(header, b'{"sub":"42"}'))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_public_key_is_never_a_secret(keys, kind):
    name = {"rsa": "RS", "ecdsa": "ES256", "ed25519": "EdDSA"}[kind]
    public = pem(keys[name])
    for secret in (public, public.strip(), public.replace("\n", "\\n")):
        for settings in ({}, {"hmac_secret_key": SECRET}):
            found = verifier(**{f"{kind}_public_key": public}, **settings)
            refused(found, signed(b'{"alg":"HS256"}', b'{"sub":"root"}', secret))


def test_keys_of_one_kind_do_not_verify_another(keys):
    found = verifier(ecdsa_public_key=pem(keys["ES256"]), rsa_public_key=pem(keys["RS"]))
    refused(found, jwt.encode({"sub": "42"}, keys["ES384"], "ES384"))
    refused(found, jwt.encode({"sub": "42"}, keys["EdDSA"], "EdDSA"))
    refused(found, jwt.encode({"sub": "42"}, keys["RS"], "PS256"))


def test_a_key_that_comes_with_the_token_is_not_believed(keys):
    public = jwt.algorithms.RSAAlgorithm.to_jwk(keys["RS"].public_key(), as_dict=True)
    headers = {
        "jwk": public,
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example",
        "kid": "../../x",
    }
    for settings in (
        {"hmac_secret_key": SECRET},
        {"rsa_public_key": pem(rsa.generate_private_key(65537, 2048))},
    ):
        refused(verifier(**settings), jwt.encode({"sub": "root"}, keys["RS"], "RS256", headers))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "a" * 20_000,
        b64(b"[]") + ".a.b",
        b64(b"[" * 8000) + ".a.b",
        b64(b'{"alg":"HS256","crit":["x"],"x":1}') + ".e30.b",
        hs(sub="42") + "x",
        hs(sub="42")[:-4],
        hs(sub="42") + ".x",
        " " + hs(sub="42"),
        hs("another secret, but it is long enough too", sub="42"),
    ],
    ids=range(14),
)
def test_junk_is_refused(token):
    refused(verifier(hmac_secret_key=SECRET), token)


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"5",
        b"{",
        b'{"sub":5}',
        b'{"sub":null}',
        b'{"sub":["a"]}',
        b'{"exp":"soon"}',
        b'{"exp":true}',
        b'{"exp":null}',
        b'{"exp":""}',
        b'{"exp":false}',
        b'{"exp":[]}',
        b'{"exp":{}}',
        b'{"nbf":null}',
        b'{"iat":"today"}',
        b'{"expire_at":null}',
        b'{"exp":1e400}',
        b'{"exp":NaN}',
        b'{"exp":1e300}',
        b'{"expire_at":"never"}',
        b'{"nbf":9999999999}',
        b'{"channels":[1]}',
        b'{"sub":"\\ud800"}',
        b'{"info":"\\ud800"}',
        b'{"channels":["\\udfff"]}',
        b'{"channel":"\\udfff"}',
        b'{"b64info":"!"}',
        b'{"b64info":"e30"}',
        b'{"b64info":"bm8="}',
        b'{"a":' + b"[" * 5000 + b"}",
    ],
)
def test_what_is_signed_but_makes_no_sense_is_refused(payload):
    refused(verifier(hmac_secret_key=SECRET), signed(b'{"alg":"HS256"}', payload))


def test_an_extension_that_must_be_understood_is_not_passed_over():
    refused(verifier(hmac_secret_key=SECRET), signed(b'{"alg":"HS256","crit":["x"],"x":1}', b'{"sub":"42"}'))


def test_a_token_of_a_clock_that_is_fast_is_good():
    found = verifier(hmac_secret_key=SECRET)
    assert read(found, hs(sub="42", iat=NOW + 3600, nbf=NOW + 10)).user == "42"
    refused(found, hs(sub="42", nbf=NOW + 11))


def test_audience_and_issuer_must_be_ours():
    found = verifier(hmac_secret_key=SECRET, audience="live", issuer="us")
    assert read(found, hs(sub="42", aud=["other", "live"], iss="us")).user == "42"
    for claims in (
        {},
        {"aud": "live"},
        {"iss": "us"},
        {"aud": "x", "iss": "us"},
        {"aud": "live", "iss": "x"},
    ):
        refused(found, hs(sub="42", **claims))


def test_an_audience_that_nobody_asked_for_is_no_fault():
    assert read(verifier(hmac_secret_key=SECRET), hs(sub="42", aud="x", iss="y")).user == "42"


@pytest.mark.parametrize("exp", [NOW, NOW - 1, 1, 0, 0.5, -5, NOW - 0.5])
def test_what_has_expired_is_told_apart_from_what_is_wrong(exp):
    with pytest.raises(ExpiredTokenError):
        read(verifier(hmac_secret_key=SECRET), hs(sub="42", exp=exp))


def test_what_has_expired_and_is_wrong_is_wrong():
    refused(verifier(hmac_secret_key=SECRET), hs("x" * 64, sub="42", exp=1))


def test_without_keys_nothing_is_good():
    assert not verifier().has_keys
    refused(verifier(), hs(sub="42"))


@pytest.mark.parametrize("name", ["rsa_public_key", "ecdsa_public_key", "ed25519_public_key"])
@pytest.mark.parametrize("text", ["junk", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "ğ"])
def test_a_key_that_cannot_be_read_is_told_with_its_setting(name, text):
    with pytest.raises(InputError, match=rf"^client\.token\.{name}: not a public key"):
        verifier(**{name: text})


def test_an_rsa_key_that_is_too_short_is_told(keys):
    with pytest.raises(InputError, match="2048 bits"):
        verifier(rsa_public_key=pem(rsa.generate_private_key(65537, 1024)))


def test_a_key_under_another_kinds_name_is_told(keys):
    with pytest.raises(InputError, match="rsa_public_key"):
        verifier(rsa_public_key=pem(keys["ES256"]))
    with pytest.raises(InputError, match="ecdsa_public_key"):
        verifier(ecdsa_public_key=pem(keys["RS"]))
    with pytest.raises(InputError, match="ed25519_public_key"):
        verifier(ed25519_public_key=pem(keys["ES256"]))


# ── keys that a provider publishes ──────────────────────────────────────────────────


class Provider:
    """Publishes keys; answers when `lets` is set."""

    def __init__(self, *published):
        self.body = json.dumps({"keys": list(published)}).encode()
        self.calls = 0
        self.lets = asyncio.Event()
        self.lets.set()
        self.now = 100.0

    async def fetch(self, url):
        self.calls += 1
        await self.lets.wait()
        return self.body

    def verifier(self, **settings):
        return verifier(
            fetch=self.fetch,
            clock=lambda: self.now,
            jwks_public_endpoint="https://id.example/keys",
            **settings,
        )


def jwk(key, kid, **rest):
    kinds = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    (kind,) = (made for base, made in kinds.items() if isinstance(key, base))
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **rest}


def by(key, algorithm, kid, **claims):
    return jwt.encode({"sub": "42", **claims}, key, algorithm, {"kid": kid})


async def test_published_keys_verify_and_are_fetched_once(keys):
    provider = Provider(jwk(keys["RS"], "r"), jwk(keys["ES384"], "e"), jwk(keys["EdDSA"], "o", use="sig"))
    found = provider.verifier()
    assert found.has_keys
    for kid, algorithm, key in (("r", "RS512", "RS"), ("e", "ES384", "ES384"), ("o", "EdDSA", "EdDSA")):
        assert (await found.read(by(keys[key], algorithm, kid))).user == "42"
    assert provider.calls == 1


async def test_made_up_names_of_keys_fetch_no_more_than_now_and_then(keys):
    provider = Provider(jwk(keys["RS"], "r"))
    found = provider.verifier()
    with pytest.raises(BadTokenError):
        await found.read(by(keys["RS"], "RS256", "made up"))
    for number in range(100):  # they may have come since: the client is to try again, later
        with pytest.raises(KeysAwayError):
            await found.read(by(keys["RS"], "RS256", f"made up {number}"))
    assert provider.calls == 1
    provider.now += 10
    provider.body = json.dumps({"keys": [jwk(keys["RS"], "new")]}).encode()
    assert (await found.read(by(keys["RS"], "RS256", "new"))).user == "42"
    provider.now += 10
    with pytest.raises(BadTokenError):  # it was taken back
        await found.read(by(keys["RS"], "RS256", "r"))
    assert provider.calls == 3


async def test_who_comes_while_keys_are_fetched_waits_for_them(keys):
    provider = Provider(jwk(keys["RS"], "r"))
    provider.lets.clear()
    found = provider.verifier()
    token = by(keys["RS"], "RS256", "r")
    waiting = [asyncio.ensure_future(found.read(token)) for _ in range(20)]
    await asyncio.sleep(0)
    provider.now += 60  # it takes long, and is not asked again
    waiting += [asyncio.ensure_future(found.read(token)) for _ in range(20)]
    await asyncio.sleep(0)
    provider.lets.set()
    assert [claims.user for claims in await asyncio.gather(*waiting)] == ["42"] * 40
    assert provider.calls == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"[" * 10_000])
async def test_a_provider_that_is_away_takes_no_keys_back_and_refuses_nobody_for_good(keys, body):
    provider = Provider(jwk(keys["RS"], "r"))
    found = provider.verifier()
    good = by(keys["RS"], "RS256", "r")
    await found.read(good)
    provider.body, body = body, provider.body
    provider.now += 10
    with pytest.raises(KeysAwayError):
        await found.read(by(keys["RS"], "RS256", "new"))
    assert (await found.read(good)).user == "42"
    provider.body = body
    provider.now += 10
    with pytest.raises(BadTokenError):
        await found.read(by(keys["RS"], "RS256", "new"))


async def test_a_key_that_is_taken_back_is_good_for_an_hour_at_most(keys):
    provider = Provider(jwk(keys["RS"], "r"))
    found = provider.verifier()
    good = by(keys["RS"], "RS256", "r")
    await found.read(good)
    provider.body = b'{"keys": []}'
    provider.now += 3599
    assert (await found.read(good)).user == "42"
    provider.now += 1
    with pytest.raises(BadTokenError):
        await found.read(good)
    assert provider.calls == 2


async def test_keys_of_ones_own_are_good_while_the_provider_is_away(keys):
    provider = Provider()
    provider.body = b""
    found = provider.verifier(rsa_public_key=pem(keys["RS"]))
    assert (await found.read(by(keys["RS"], "RS256", "any"))).user == "42"


async def test_published_keys_verify_nothing_that_they_are_not_for(keys):
    weak = rsa.generate_private_key(65537, 1024)
    public = jwk(keys["RS"], "r")
    provider = Provider(
        public,
        jwk(keys["RS"], "enc", use="enc"),
        jwk(weak, "weak"),
        jwk(keys["ES256"], "e"),
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "secret", "alg": "HS256"},
    )
    found = provider.verifier()
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        weakly = by(weak, "RS256", "weak")
    tokens = [
        by(SECRET, "HS256", "secret"),
        by(keys["RS"], "RS256", "enc"),
        weakly,
        by(keys["ES384"], "ES384", "e"),
        by(keys["RS"], "PS256", "r"),
        signed(b'{"alg":"HS256","kid":"r"}', b'{"sub":"root"}', pem(keys["RS"])),
        signed(b'{"alg":"HS256","kid":"r"}', b'{"sub":"root"}', public["n"]),
        f"{b64(json.dumps({'alg': 'none', 'kid': 'r'}).encode())}.{b64(b'{}')}.",
        jwt.encode({"sub": "42"}, keys["RS"], "RS256"),  # without a name of a key
        signed(b'{"alg":"RS256","kid":5}', b"{}"),
        signed(b'{"alg":"RS256","kid":null}', b"{}"),
    ]
    for token in tokens:
        provider.now += 10
        with pytest.raises(BadTokenError):
            await found.read(token)


@pytest.mark.parametrize(
    "junk",
    [
        None,
        5,
        {},
        {"kid": 5},
        {"kid": "x"},
        {"kid": "x", "kty": "oct"},
        {"kid": "x", "kty": "RSA", "n": 1, "e": 2},
        {"kid": "x", "kty": "RSA", "n": "", "e": ""},
        {"kid": "x", "kty": "EC", "crv": "P-256", "x": "A", "y": "A"},
        {"kid": "x", "kty": "EC", "crv": "P-0", "x": "A", "y": "A"},
        {"kid": "x", "kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kid": "x", "kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kid": "x", "kty": "unheard of"},
    ],
)
async def test_a_key_that_cannot_be_read_spoils_no_other(keys, junk):
    provider = Provider(junk, jwk(keys["RS"], "r"))
    found = provider.verifier()
    assert (await found.read(by(keys["RS"], "RS256", "r"))).user == "42"
    provider.now += 10
    with pytest.raises(BadTokenError):
        await found.read(by(keys["RS"], "RS256", "x"))
