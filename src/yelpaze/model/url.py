"""URLs as the engine needs them: checked, encoded, and split into origin and rest.

Rows are data, so every URL is treated as hostile: only http and https, no control
characters (a CR or LF would forge headers), no backslash (parsers disagree about it).
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

import msgspec

from yelpaze.model.errors import MisuseError
from yelpaze.model.secrets import SECRETS

# Anything outside this needs a closer look; almost no URL does.
_PLAIN = re.compile(r"https?://[A-Za-z0-9._\-]+(?::([0-9]{1,5}))?(?:[/?#][!#-;=?-\[\]_a-z~]*)?").fullmatch
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._\-]*)")
_RESERVED = "!#$%&'()*+,/:;=?@[]~"
_ASCII = "".join(map(chr, range(128)))
_MAX_PORT = 65_535

Params = Mapping[str, object] | Iterable[tuple[str, object]]


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port: what limits, pools and credentials belong to (RFC 6454 §4)."""

    scheme: str
    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, so that no name needs looking up."""
        host = self.host.strip("[]")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            # `127.1`, `0x7f.0.0.1` and `2130706433` are addresses to a URL parser (WHATWG URL).
            last = host.rstrip(".").rpartition(".")[2]
            return last.isdigit() or last.lower().startswith("0x")
        return True

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def origin_of(url: str) -> Origin:
    """Split the origin off a URL that `checked` has passed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return Origin(parts.scheme.lower(), host, parts.port or (443 if parts.scheme == "https" else 80))


def checked(url: str) -> str:
    """Give the URL ready to be sent, non-ASCII parts encoded; raise MisuseError if it can't be."""
    if not isinstance(url, str):
        raise MisuseError(f"the URL must be a string, not {type(url).__name__}")
    if (plain := _PLAIN(url)) and ((port_text := plain[1]) is None or int(port_text) <= _MAX_PORT):
        return url
    if _CONTROL.search(url) or "\\" in url:
        raise MisuseError(
            f"the URL holds a control character, a lone surrogate or a backslash: {_shown(url)!r}"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MisuseError(f"the URL {_shown(url)!r} cannot be read: {error}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise MisuseError(f"only http:// and https:// URLs can be called: {_shown(url)!r}")
    host = parts.hostname or ""
    if not host:
        raise MisuseError(f"the URL has no host: {_shown(url)!r}")
    userinfo, at, _ = parts.netloc.rpartition("@")
    netloc = quote(userinfo, safe="!$%&'()*+,;=:~") + at + _encoded_host(host, url)
    netloc += f":{port}" if port is not None else ""
    rest = quote(parts._replace(scheme="", netloc="").geturl(), safe=_RESERVED)
    return f"{parts.scheme.lower()}://{netloc}{rest}"


def _encoded_host(host: str, url: str) -> str:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise MisuseError(f"the URL's host is not an IPv6 address: {_shown(url)!r}") from None
        return f"[{host}]"
    try:
        if "%" in host:
            host = unquote(host, errors="strict").lower()
        name = host if host.isascii() else _to_ascii(host)
    except UnicodeError as error:
        raise MisuseError(f"the URL's host is not a valid name: {_shown(url)!r}: {error}") from None
    if not _HOST.fullmatch(name):
        raise MisuseError(f"the URL's host is not a valid name: {_shown(url)!r}")
    return name


def _shown(url: str) -> str:
    """A URL that cannot be read, for a message: nothing of it up to its last `@`, which may be a password."""
    before, at, rest = url.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return SECRETS.url(scheme + separator + rest if at and separator else rest)


def _to_ascii(host: str) -> str:
    """The name as name servers know it: UTS 46, not transitional, with the labels of IDNA 2008.

    Raises UnicodeError.
    """
    import idna  # noqa: PLC0415  its tables take 10 ms, and few URLs need them

    mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
    return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in mapped.split("."))


def with_params(url: str, params: Params | None) -> str:
    """Add query parameters; a list or tuple as value gives the name several times.

    >>> with_params("http://a.test/?x=1", {"q": "to do", "tag": ["a", "b"]})
    'http://a.test/?x=1&q=to+do&tag=a&tag=b'
    """
    if not params:
        return url
    pairs = params.items() if isinstance(params, Mapping) else params
    try:
        query = urlencode([(key, _text(value)) for key, value in pairs], doseq=True)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise MisuseError(f"params or form cannot be encoded: {error}") from None
    base, hash_, fragment = url.partition("#")
    joiner = "" if base.endswith(("?", "&")) else "&" if "?" in base else "?"
    return f"{base}{joiner}{query}{hash_}{fragment}"


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return value


def join(base: str, location: str) -> str:
    """Resolve a Location header against the URL that sent it (RFC 9110 §10.2.2).

    Header values are read as Latin-1. The bytes of a Location are UTF-8, as browsers take them, or else
    what they are: each is percent-encoded once.
    """
    text = location
    if not location.isascii():
        raw = location.encode("latin-1")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = quote(raw, safe=_ASCII)
    try:
        target = urljoin(base, text)
    except ValueError as error:
        raise MisuseError(f"the location {location!r} cannot be read: {error}") from None
    return checked(target)


def shown(url: str) -> str:
    """The URL for logs, records and people: without password, and the values of secret parameters.

    >>> shown("http://me:secret@a.test/x?id=1&api_key=k")
    'http://a.test/x?id=1&api_key=[redacted]'
    """
    return SECRETS.url(url)


def with_userinfo_of(base: str, target: str) -> str:
    """`target` with the user name and password of `base`, unless it has its own."""
    userinfo, at, _ = urlsplit(base).netloc.rpartition("@")
    parts = urlsplit(target)
    if not at or "@" in parts.netloc:
        return target
    return parts._replace(netloc=f"{userinfo}@{parts.netloc}").geturl()
