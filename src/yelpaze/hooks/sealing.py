"""Encryption of secrets at rest: Fernet (AES-128-CBC and HMAC-SHA256; github.com/fernet/spec).

Several keys: the first one encrypts, all of them decrypt, so that a key can be replaced.
"""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from yelpaze.model.errors import InputError


def new_key() -> str:
    """A new key: 32 random bytes in base64."""
    return Fernet.generate_key().decode()


class Sealer:
    """Encrypts and decrypts. Raises InputError for a key that is none.

    >>> sealer = Sealer([new_key()])
    >>> sealer.open(sealer.seal(b"hunter2"))
    b'hunter2'
    """

    def __init__(self, keys: Sequence[str]) -> None:
        try:
            self._keys = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise InputError(
                "takes 32 bytes in URL-safe base64, 44 characters: `yelpaze hooks key` makes one"
            ) from None

    def seal(self, data: bytes) -> bytes:
        """Encrypt."""
        return self._keys.encrypt(data)

    def open(self, data: bytes) -> bytes:
        """Decrypt. Raises InputError if it was encrypted with another key."""
        try:
            return self._keys.decrypt(bytes(data))
        except InvalidToken:
            raise InputError(
                "the store's secrets were encrypted with another key: give that one as "
                "YELPAZE_HOOKS__ENCRYPTION_KEY, or among YELPAZE_HOOKS__PREVIOUS_ENCRYPTION_KEYS"
            ) from None

    def resealed(self, data: bytes) -> bytes:
        """Encrypt anew with the first key. Raises InputError."""
        return self.seal(self.open(data))
