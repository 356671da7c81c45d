"""Signatures: Standard Webhooks 1.0.0, and older forms for receivers that exist.

The signed content is `{id}.{timestamp}.{body}`, the signature `v1,` and HMAC-SHA256 in base64
(github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence

from yelpaze.model.errors import MisuseError, YelpazeError

PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_NEW_BYTES = 32
TOLERANCE = 300.0  # seconds that a timestamp may be off


class VerificationError(YelpazeError):
    """A webhook that was not signed with this secret, or too long ago."""


def new_secret() -> str:
    """A new secret: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret. Raises MisuseError for what is none.

    >>> len(key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    24
    """
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        raise MisuseError(
            f"a secret is {PREFIX} and base64 of {_KEY_BYTES[0]} to {_KEY_BYTES[-1]} random bytes"
        )
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of one attempt; `timestamp` is in seconds since 1970.

    >>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
    ...      b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    return signature(key_of(secret), message_id, timestamp, body)


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """As `sign`, with the bytes of the secret."""
    return Signer(key).sign(message_id, timestamp, body)


class Signer:
    """Signs many messages with one key, which is worked into the hash once."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The signature of one attempt."""
        keyed = self._keyed.copy()
        keyed.update(b"%s.%d.%s" % (message_id.encode(), timestamp, body))
        return f"v1,{base64.b64encode(keyed.digest()).decode()}"


def verify(
    secrets_: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: Callable[[], float],
    tolerance: float = TOLERANCE,
) -> str:
    """Check a received webhook; return its id. Raises VerificationError, MisuseError.

    `headers` may be in any case. One signature that fits one of the secrets is enough.
    """
    found = {name.lower(): value for name, value in headers.items()}
    values = [
        found.get(f"webhook-{name}", found.get(f"svix-{name}")) for name in ("id", "timestamp", "signature")
    ]
    message_id, stamp, signatures = values
    if message_id is None or stamp is None or signatures is None:
        raise VerificationError("webhook-id, webhook-timestamp or webhook-signature is missing")
    if not (stamp.isascii() and stamp.isdigit()) or len(stamp) > 15:  # noqa: PLR2004
        raise VerificationError("webhook-timestamp is no number of seconds since 1970")
    if abs(now() - int(stamp)) > tolerance:
        raise VerificationError(f"webhook-timestamp is more than {tolerance:g} s from now")
    keys = [key_of(one) for one in ([secrets_] if isinstance(secrets_, str) else secrets_)]
    if not (message_id.isascii() and signatures.isascii()):
        raise VerificationError("webhook-id or webhook-signature has other characters than ASCII")
    wanted = [signature(key, message_id, int(stamp), body).encode() for key in keys]
    for given in signatures.split():
        if any(hmac.compare_digest(given.encode(), one) for one in wanted):
            return message_id
    raise VerificationError("no signature matches: wrong secret, or the body was changed")


def plain_digest(secret: str, content: bytes, encoding: str) -> str:
    """HMAC-SHA256 with the text of a secret as its key, in `hex` or `base64`; the older forms have it."""
    digest = hmac.digest(secret.encode(), content, hashlib.sha256)
    return digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
