"""Names of fields and headers whose values must not be written down, and what takes their place."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

HIDDEN = "[redacted]"
_NAMES = frozenset(
    {
        "authorization", "proxy_authorization", "www_authenticate", "cookie", "set_cookie",
        "api_key", "apikey", "x_api_key", "x_auth_token", "access_token", "refresh_token", "id_token",
        "auth_token", "bearer_token", "token", "secret", "client_secret", "secret_key", "access_key",
        "private_key", "private_token", "x_goog_api_key", "x_vault_token", "x_gitlab_token",
        "x_amz_security_token", "ocp_apim_subscription_key",
        "password", "passwd", "passphrase", "credentials",
    }
)  # fmt: skip


# User name and password, wherever a URL stands in a text.
_USERINFO = re.compile(r"(?<=://)[^\s/?#\"'<>@]*(?:@[^\s/?#\"'<>@]*)*@")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class Shown:
    """Stands for text in a `repr`: shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def repr_of(value: msgspec.Struct) -> str:
    """A `repr` of the fields that the value's `__rich_repr__` gives."""
    fields = ", ".join(f"{name}={field!r}" for name, field in value.__rich_repr__())
    return f"{type(value).__name__}({fields})"


class Secrets:
    """Which names are secret: those everybody knows, and some of the user's own.

    Case does not count, nor `-` and `_`: `apiKey` is as secret as `API-Key`.

    >>> Secrets(["x-shop"]).redacted({"id": 1, "X-Shop": "abc", "in": [{"apiKey": "k", "note": "n"}]})
    {'id': 1, 'X-Shop': '[redacted]', 'in': [{'apiKey': '[redacted]', 'note': 'n'}]}
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = _NAMES | {name.lower().replace("-", "_") for name in names}
        self._names = {_plain(name) for name in given}
        words = "|".join(re.escape(name).replace("_", "[-_]?") for name in sorted(given))
        self._field = re.compile(rf'"(?:{words})"\s*:'.encode(), re.IGNORECASE)
        self._parameter = re.compile(rf"([?&;#](?:{words})=)[^\s&#;\"'<>]*", re.IGNORECASE)
        self._word = re.compile(rf"(?<![a-z])(?:{words})(?![a-z])".encode(), re.IGNORECASE)

    def has(self, name: str) -> bool:
        """Whether that name is secret."""
        return _plain(name) in self._names

    def within(self, data: bytes) -> bool:
        """Whether JSON has a field of such a name (or, rarely, a text that looks like one)."""
        return self._field.search(data) is not None

    def are_named_in(self, data: bytes) -> bool:
        """Whether such a name is anywhere in it, whatever its form is."""
        return self._word.search(data) is not None

    def redacted(self, value: Any) -> Any:
        """The value without its secrets: itself, if it has none."""
        if isinstance(value, dict):
            return {
                name: HIDDEN if isinstance(name, str) and self.has(name) else self.redacted(item)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.redacted(item) for item in value]
        if isinstance(value, str) and "://" in value:
            return self.url(value)
        if isinstance(value, msgspec.Struct):
            return self.redacted(msgspec.to_builtins(value, enc_hook=repr))
        return value

    def headers(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Header fields without the values of secret ones, and without secrets in URLs."""
        return [(name, HIDDEN if self.has(name) else self.url(value)) for name, value in pairs]

    def url(self, text: str) -> str:
        """A URL, or a text with some, without user names, passwords, and the values of secret parameters.

        >>> Secrets().url("http://me:it@a.test/x?id=1&api_key=k")
        'http://a.test/x?id=1&api_key=[redacted]'
        """
        if "@" in text:
            text = _USERINFO.sub("", text)
        return self._parameter.sub(rf"\1{HIDDEN}", text) if "=" in text else text


SECRETS = Secrets()
