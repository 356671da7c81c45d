"""JSON web tokens (RFC 7519, 8725): who a client is, and where it may subscribe.

The algorithm is pinned by which keys are configured: a token that names another, `none` above all, is refused
before its signature is looked at, and a public key is never taken for an HMAC secret.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidTokenError, PyJWTError

from yelpaze.live.brokers.broker import BrokerUnavailable
from yelpaze.live.config import Config, Token
from yelpaze.live.protocol.values import MaybeRaw, on_one_line, raw
from yelpaze.model.errors import InputError

_HMAC = ("HS256", "HS384", "HS512")
_HASHES = {"HS256": HMACAlgorithm.SHA256, "HS384": HMACAlgorithm.SHA384, "HS512": HMACAlgorithm.SHA512}
_RSA = ("RS256", "RS384", "RS512")
_ECDSA = ("ES256", "ES384", "ES512")
_EDDSA = ("EdDSA",)
_SIGNED = ("RS", "ES", "EdDSA")  # how algorithms with public keys begin
_CURVES = {"secp256r1": _ECDSA[0], "secp384r1": _ECDSA[1], "secp521r1": _ECDSA[2]}  # RFC 7518, section 3.4
_LEAST_RSA = 2048  # bits; RFC 7518, section 3.3
# What we look at ourselves, by our clock, or not at all: `iat` is in the future where clocks differ.
_OURS = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_sub"), False)
_LEEWAY = 10.0  # seconds: clocks of other machines
_MAX_AGE = 3600.0  # seconds
_LONGEST = 16 << 10
_MOST_SECONDS = 1 << 53  # what a number in JSON holds exactly


class BadTokenError(Exception):
    """It says something wrong, or nobody vouches for it."""


class ExpiredTokenError(Exception):
    """It was right once."""


class KeysAwayError(BrokerUnavailable):
    """The keys that a token needs can't be fetched now; they may later."""


# Channel options that a token can override.
_OVERRIDABLE = frozenset(
    {"presence", "join_leave", "force_push_join_leave", "force_positioning", "force_recovery"}
)


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says.

    - `expire_at`: when the connection or subscription ends, Unix seconds; 0 for never.
    - `channels`: server-side subscriptions, each with its `info` and `override`.
    - `info`: JSON that others see beside the client.
    """

    user: str = ""
    channel: str | None = None
    client: str = ""
    expire_at: int = 0
    info: MaybeRaw = msgspec.UNSET
    channels: Mapping[str, "Claims"] = {}
    override: Mapping[str, bool] = {}


class Keys:
    """Which key goes with which algorithm. Raises InputError for a key that can't be read."""

    def __init__(self, config: Token, where: str) -> None:
        self._by_algorithm: dict[str, list[Any]] = {}
        secrets = [key for key in (config.hmac_secret_key, config.hmac_previous_secret_key) if key]
        if secrets:
            self._by_algorithm |= {name: [_secret(key, name) for key in secrets] for name in _HMAC}
        for name, pem, algorithms in (
            ("rsa_public_key", config.rsa_public_key, _RSA),
            ("ecdsa_public_key", config.ecdsa_public_key, _ECDSA),
            ("ed25519_public_key", config.ed25519_public_key, _EDDSA),
        ):
            if pem:
                key = _public_key(pem, algorithms, f"{where}.{name}")
                self._by_algorithm |= {algorithm: [key] for algorithm in _signed_by(key)}

    def of(self, algorithm: str) -> list[Any]:
        """The keys that may have signed."""
        return self._by_algorithm.get(algorithm, [])

    def __bool__(self) -> bool:
        return bool(self._by_algorithm)


class _Hmac(HMACAlgorithm):
    """With a key that was looked at once, at the start, and not again for each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else key.encode()

    def check_key_length(self, key: bytes) -> None:
        pass


def _secret(key: str, algorithm: str) -> jwt.PyJWK:
    encoded = base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()
    found = jwt.PyJWK({"kty": "oct", "k": encoded, "alg": algorithm})
    found.Algorithm = _Hmac(_HASHES[algorithm])
    return found


def _public_key(pem: str, algorithms: tuple[str, ...], where: str) -> Any:
    text = pem.strip().replace("\\n", "\n")
    for algorithm in algorithms:  # PyJWT wants a curve's own
        try:
            key = jwt.get_algorithm_by_name(algorithm).prepare_key(text)
        except (PyJWTError, ValueError, TypeError) as error:
            reason = str(error)
        else:
            if any(name in algorithms for name in _signed_by(key)):
                return key
            reason = f"RSA keys have {_LEAST_RSA} bits or more"
    raise InputError(f"{where}: not a public key in PEM that can be used: {reason}") from None


def _signed_by(key: Any) -> tuple[str, ...]:
    """The algorithms that a public key verifies; none for a key that is too weak, or not public."""
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size >= _LEAST_RSA else ()
    if isinstance(key, EllipticCurvePublicKey):
        return (_CURVES[key.curve.name],) if key.curve.name in _CURVES else ()
    return _EDDSA if isinstance(key, Ed25519PublicKey | Ed448PublicKey) else ()


def check_keys(config: Config) -> None:
    """Raise InputError for a key that can't be read."""
    Keys(config.client.token, "client.token")
    Keys(config.client.subscription_token, "client.subscription_token")


Fetch = Callable[[str], Awaitable[bytes]]


class Jwks:
    """Keys that an identity provider publishes (RFC 7517), fetched when one is asked for that is not known.

    At most one request is under way, which all wait for who need it, and at most one in `pause` seconds: a
    client can't make us call for each token that it makes up. Keys are asked for again after an hour, so that
    one which was taken back is good no longer. While the provider is away, the keys that it had are good.
    """

    def __init__(self, url: str, fetch: Fetch, clock: Callable[[], float], pause: float = 10.0) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._pause = pause
        self._keys: dict[str, Any] = {}
        self._fetched = float("-inf")
        self._fetching: asyncio.Future[None] | None = None
        self._is_away = False

    async def key(self, kid: str, algorithm: str) -> Any:
        """The key of that name, if it may sign so; else None. Raises KeysAwayError."""
        if not algorithm.startswith(_SIGNED):
            return None
        is_fresh = True
        if kid not in self._keys or self._clock() - self._fetched >= _MAX_AGE:
            is_fresh = await self._refreshed()
        key = self._keys.get(kid)
        if key is None and (self._is_away or not is_fresh):  # it may be new: the client is to try again
            raise KeysAwayError
        return key if key is not None and algorithm in _signed_by(key) else None

    async def _refreshed(self) -> bool:
        """Ask for the keys; False if it is too early for that."""
        if self._fetching is not None:
            await self._fetching
            return True
        if self._clock() - self._fetched >= self._pause:
            self._fetched = self._clock()
            fetching = self._fetching = asyncio.get_running_loop().create_future()
            try:
                found = _key_set(await self._fetch(self._url))
                self._is_away = found is None
                self._keys = self._keys if found is None else found
            finally:
                self._fetching = None
                fetching.set_result(None)
            return True
        return False


def _key_set(body: bytes) -> dict[str, Any] | None:
    """The public keys of a key set, by name; None if it is none."""
    try:
        keys = msgspec.json.decode(body)["keys"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        return None
    found = {}
    for key in keys if isinstance(keys, list) else []:
        if isinstance(key, dict) and isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig":
            try:
                found[key["kid"]] = jwt.PyJWK(key).key
            except (PyJWTError, ValueError, KeyError, TypeError):  # none that we know; others may be
                continue
    return found


def _header(token: str) -> dict[str, Any]:
    """What it says of its signature: enough to look for a key; the rest is PyJWT's to read."""
    encoded = token.partition(".")[0]
    try:
        return msgspec.json.decode(
            base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), type=dict[str, Any]
        )
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise BadTokenError(str(error)) from None


class Verifier:
    """Reads tokens with one set of keys."""

    def __init__(
        self, config: Token, where: str, *, clock: Callable[[], float], jwks: Jwks | None = None
    ) -> None:
        self._config = config
        self._keys = Keys(config, where)
        self._jwks = jwks
        self._clock = clock

    @property
    def has_keys(self) -> bool:
        """Whether any token could be good."""
        return bool(self._keys) or self._jwks is not None

    async def read(self, token: str) -> Claims:
        """What a token says, if all of it holds.

        Raises BadTokenError, ExpiredTokenError, KeysAwayError.
        """
        if len(token) > _LONGEST:
            raise BadTokenError("too long")
        header = _header(token)
        keys = await self._keys_of(header)
        if not keys:
            raise BadTokenError("no key for it")
        try:
            return self._claims(self._payload(token, header["alg"], keys))
        except UnicodeEncodeError:  # half a surrogate pair: no text, and nothing that could be sent on
            raise BadTokenError("its strings are not Unicode") from None

    async def _keys_of(self, header: Mapping[str, Any]) -> list[Any]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str):
            raise BadTokenError("no algorithm")
        keys = list(self._keys.of(algorithm))
        if self._jwks is not None and isinstance(kid, str):
            try:
                found = await self._jwks.key(kid, algorithm)
            except KeysAwayError:
                if not keys:
                    raise
            else:
                keys += [found] if found is not None else []
        return keys

    def _payload(self, token: str, algorithm: str, keys: list[Any]) -> dict[str, Any]:
        config = self._config
        for number, key in enumerate(keys):
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    audience=config.audience or None,
                    issuer=config.issuer or None,
                    options=cast(Any, {**_OURS, "verify_aud": bool(config.audience)}),
                )
            except (InvalidTokenError, ValueError, OverflowError, RecursionError) as error:
                if number == len(keys) - 1:
                    raise BadTokenError(str(error)) from None
        raise AssertionError

    def _claims(self, payload: dict[str, Any]) -> Claims:
        now = self._clock()
        expires, begins = _seconds(payload, "exp"), _seconds(payload, "nbf")
        if expires is not None and expires <= now:
            raise ExpiredTokenError
        if begins is not None and begins > now + _LEEWAY:
            raise BadTokenError("it is not good yet")
        _seconds(payload, "iat")
        user = payload.get(self._config.user_id_claim, "")
        if not isinstance(user, str):
            raise BadTokenError(f"{self._config.user_id_claim} is a string")
        lasting = _seconds(payload, "expire_at")
        lasting = expires if lasting is None else lasting
        channels = _channels(payload)
        channel = payload.get("channel")
        client = payload.get("client", "")
        override = payload.get("override")
        "".join([user, str(channel), str(client), *channels]).encode()  # see `read`
        return Claims(
            user=user,
            channel=channel if isinstance(channel, str) else None,
            client=client if isinstance(client, str) else "",
            expire_at=lasting or 0,
            info=_info(payload),
            channels=channels,
            override=_override(override) if isinstance(override, dict) else {},
        )


def _channels(payload: Mapping[str, Any]) -> dict[str, Claims]:
    """`channels`, a list, and `subs`, an object with options for each."""
    channels, subs = payload.get("channels"), payload.get("subs")
    found: dict[str, Claims] = {}
    for name in channels if isinstance(channels, list) else []:
        if not isinstance(name, str):
            raise BadTokenError("channels are strings")
        found[name] = Claims()
    for name, options in (subs if isinstance(subs, dict) else {}).items():
        options = options if isinstance(options, dict) else {}  # noqa: PLW2901  none are as good as empty ones
        override = options.get("override")
        found[name] = Claims(
            info=_info(options), override=_override(override) if isinstance(override, dict) else {}
        )
    return found


def _seconds(payload: Mapping[str, Any], name: str) -> int | None:
    """A claim's NumericDate (RFC 7519, section 2); None if the claim is not there."""
    if name not in payload:
        return None
    value = payload[name]
    if isinstance(value, bool) or not (
        isinstance(value, int | float) and -_MOST_SECONDS < value < _MOST_SECONDS
    ):
        raise BadTokenError(f"{name} is a number of seconds")
    return int(value)


def _info(payload: Mapping[str, Any]) -> MaybeRaw:
    encoded = payload.get("b64info")
    if isinstance(encoded, str) and encoded:
        try:
            text = base64.b64decode(encoded, validate=True)
            msgspec.json.decode(text)
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise BadTokenError("b64info is JSON in base64") from None
        return on_one_line(msgspec.Raw(text))
    info = payload.get("info")
    return raw(info) if info is not None else msgspec.UNSET


def _override(override: Mapping[str, Any]) -> dict[str, bool]:
    """`{"force_recovery": {"value": true}}`, as Centrifugo writes it. Other names are ignored."""
    return {
        name: value["value"]
        for name, value in override.items()
        if name in _OVERRIDABLE and isinstance(value, dict) and isinstance(value.get("value"), bool)
    }


__all__ = ["BadTokenError", "Claims", "ExpiredTokenError", "Jwks", "Keys", "KeysAwayError", "Verifier"]
