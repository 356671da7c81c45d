"""What to call: a frozen `Request`, and the builders that people write.

get(url)   post(url, json=…)   put   patch   delete   head   request(method, url)
"""

import re
import secrets
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict, Unpack

import http_sf
import msgspec

from yelpaze.model.errors import MisuseError
from yelpaze.model.secrets import HIDDEN, SECRETS, Shown, repr_of
from yelpaze.model.tls import Tls
from yelpaze.model.url import Params, checked, shown, with_params

# RFC 9110 §5.6.2: token. Methods and field names are tokens.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Lone surrogates but those that stand for bytes (PEP 383).
_BAD_VALUE = re.compile("[\x00\r\n\ud800-\udc7f\udd00-\udfff]")
# RFC 9110 §9.2.2.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
_METHODS = IDEMPOTENT_METHODS | {"POST", "PATCH"}
# The engine frames bodies itself; a second opinion in a header is request smuggling.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "expect"})

# One object for what nearly every POST has, so that it is checked and made only once.
_JSON_HEADERS = (("Content-Type", "application/json"),)

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
# A file of a multipart form: the content, or (file name, content[, content type]).
FilePart = bytes | str | tuple[str, bytes | str] | tuple[str, bytes | str, str]


class RequestOptions(TypedDict, total=False):
    """The keywords of `request`, for the builders named after methods."""

    params: Params | None
    headers: HeadersLike | None
    json: Any
    form: Params | None
    multipart: Mapping[str, FilePart] | None
    body: bytes | str | None
    idempotent: bool | None
    timeout: "Timeout | float | None"
    deadline: float | None
    retry: bool
    idempotency_key: str | bool
    dedupe: bool | None
    tls: Tls | None
    redirects: int | None
    connect: "Connect | None"
    tag: Any


class Timeout(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one attempt, in seconds; none of them counts time spent waiting for a slot.

    `connect` covers the name look-up, TCP and TLS; `first_byte` runs from the start of the
    attempt to the first byte of the answer; `attempt` covers all of it.
    """

    connect: float = 5.0
    first_byte: float = 30.0
    attempt: float = 60.0

    def __post_init__(self) -> None:
        for name in ("connect", "first_byte", "attempt"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < float("inf")):
                raise MisuseError(f"Timeout({name}=…) takes a positive number of seconds: {value!r}")


class Connect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one request's connection is made, and what is asked of it.

    - `ip_family`: 4 or 6 uses only such addresses.
    - `certificate`: the outcome has the time at which the server's certificate expires, if a connection was
      made for it.
    """

    ip_family: Literal[4, 6] | None = None
    certificate: bool = False

    def __post_init__(self) -> None:
        if self.ip_family not in (None, 4, 6):
            raise MisuseError(f"ip_family takes 4 or 6: {self.ip_family!r}")


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call. Checked when it is made, so that a bad one never reaches the engine.

    - `idempotent`: whether sending it twice does no harm. None means by method, or by the
      presence of an `Idempotency-Key` header.
    - `timeout`: replaces the engine's for this request.
    - `deadline`: seconds for the whole call: attempts, pauses between them and queueing.
    - `retry`: False makes exactly one attempt.
    - `dedupe`: whether a GET or HEAD may share the answer of an identical one under way; None
      means as the engine says.
    - `tls`: replaces the engine's TLS settings; connections are shared with requests that have the same.
    - `redirects`: replaces the engine's `max_redirects`; 0 follows none. `connect`: see `Connect`.
    - `tag`: anything of the caller's own, which its outcome has as well (`outcome.tag`); it is not sent.

    Its `repr` shows no credentials: neither those of the URL nor those in headers, and no body.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    idempotent: bool | None = None
    timeout: Timeout | None = None
    deadline: float | None = None
    retry: bool = True
    dedupe: bool | None = None
    tls: Tls | None = None
    redirects: int | None = None
    connect: Connect | None = None
    tag: Any = None

    def __post_init__(self) -> None:
        method = self.method
        if method not in _METHODS and not (isinstance(method, str) and _TOKEN.fullmatch(method)):
            raise MisuseError(f"not a method: {self.method!r}")
        if method == "HEAD" and self.body is not None:
            raise MisuseError("a HEAD request carries no body")
        if self.body is not None and not isinstance(self.body, bytes):
            raise MisuseError(
                f"the body must be bytes or text, not {type(self.body).__name__}: is it json=…?"
            )
        url = checked(self.url)
        if url is not self.url:
            msgspec.structs.force_setattr(self, "url", url)
        if self.headers and self.headers is not _JSON_HEADERS:
            check_headers(self.headers)
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise MisuseError(f"tls takes Tls(…), not {type(self.tls).__name__}")
        if self.redirects is not None and not (isinstance(self.redirects, int) and self.redirects >= 0):
            raise MisuseError(f"redirects takes a number, at least 0: {self.redirects!r}")
        if self.deadline is not None and not (isinstance(self.deadline, int | float) and self.deadline > 0):
            raise MisuseError(f"deadline takes a positive number of seconds: {self.deadline!r}")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields: list[tuple[str, Any]] = [("method", self.method), ("url", shown(self.url))]
        if self.headers:
            fields.append(("headers", SECRETS.headers(self.headers)))
        if self.body is not None:
            fields.append(("body", Shown(f"<{len(self.body)} bytes>")))
        others = ((name, getattr(self, name)) for name in self.__struct_fields__[4:])
        return fields + [(name, value) for name, value in others if value is not _DEFAULTS[name]]

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def replayable(self) -> bool:
        """Whether it may be sent again even if the first may have been processed."""
        if self.idempotent is not None:
            return self.idempotent
        if self.method in IDEMPOTENT_METHODS:
            return True
        return self.has_idempotency_key

    @property
    def has_idempotency_key(self) -> bool:
        """Whether an `Idempotency-Key` header lets the server recognise a second sending."""
        return any(name.lower() == "idempotency-key" for name, _ in self.headers)


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in msgspec.structs.fields(Request)}


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse what would break the message: names that are no tokens, CR, LF or NUL in values."""
    for name, value in headers:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise MisuseError(f"not a header name: {name!r}")
        if not isinstance(value, str) or _BAD_VALUE.search(value):
            shown_value = HIDDEN if SECRETS.has(str(name)) else repr(value)
            raise MisuseError(
                f"header {name!r} must be a string without CR, LF, NUL or lone surrogates: {shown_value}"
            )
        if name.lower() in _FRAMING:
            raise MisuseError(f"header {name!r} is set by the engine itself: leave it out")


def _pairs(headers: HeadersLike | None) -> tuple[tuple[str, str], ...]:
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name, value) for name, value in pairs)


def request(
    method: str,
    url: str,
    *,
    params: Params | None = None,
    headers: HeadersLike | None = None,
    json: Any = msgspec.UNSET,
    form: Params | None = None,
    multipart: Mapping[str, FilePart] | None = None,
    body: bytes | str | None = None,
    idempotent: bool | None = None,
    timeout: Timeout | float | None = None,
    deadline: float | None = None,
    retry: bool = True,
    idempotency_key: str | bool = False,
    dedupe: bool | None = None,
    tls: Tls | None = None,
    redirects: int | None = None,
    connect: Connect | None = None,
    tag: Any = None,
) -> Request:
    """Build a request. At most one of `json`, `form`, `multipart` and `body` may be given.

    `json` takes any JSON value, a msgspec struct or dataclass; `form` is sent as
    `application/x-www-form-urlencoded`; `multipart` maps field names to content or to
    `(file name, content, content type)`; `timeout` in seconds alone limits the whole
    attempt. `idempotency_key=True` makes a key of its own, the same in every attempt, so that
    a POST may be sent twice. `tag` is handed through to the outcome. Raises MisuseError for what
    cannot be sent.

    >>> request("POST", "http://a.test/", json={"id": 1}).body
    b'{"id":1}'
    """
    content, content_type = _body(json, form, multipart, body)
    pairs = _pairs(headers)
    if not pairs and content_type == "application/json":
        pairs = _JSON_HEADERS
    elif content_type and not any(name.lower() == "content-type" for name, _ in pairs):
        pairs = (*pairs, ("Content-Type", content_type))
    if timeout is not None and not isinstance(timeout, Timeout):
        timeout = Timeout(attempt=timeout)
    if idempotency_key is not False:
        pairs = (*pairs, ("Idempotency-Key", _key_field(idempotency_key)))
    return Request(
        method=method.upper() if isinstance(method, str) else method,
        url=with_params(url, params),
        headers=pairs,
        body=content,
        idempotent=idempotent,
        timeout=timeout,
        deadline=deadline,
        retry=retry,
        dedupe=dedupe,
        tls=tls,
        redirects=redirects,
        connect=connect,
        tag=tag,
    )


def _key_field(key: str | bool) -> str:
    """The key as a structured-field string (draft-ietf-httpapi-idempotency-key-header-07 §2.1)."""
    text = str(uuid.uuid4()) if key is True else key
    try:
        if text and isinstance(text, str):
            return http_sf.ser(text)
    except ValueError:
        pass
    raise MisuseError(f"idempotency_key takes printable ASCII text, or True for one of its own: {key!r}")


def _body(
    json: Any,
    form: Params | None,
    multipart: Mapping[str, FilePart] | None,
    body: bytes | str | None,
) -> tuple[bytes | None, str | None]:
    if (json is not msgspec.UNSET) + (form is not None) + bool(multipart) + (body is not None) > 1:
        raise MisuseError("give one of json, form, multipart and body, not several")
    if json is not msgspec.UNSET:
        try:
            return msgspec.json.encode(json), "application/json"
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise MisuseError(f"json=… cannot be encoded: {error}") from None
    if form is not None:
        encoded = with_params("", form).removeprefix("?")
        return encoded.encode("ascii"), "application/x-www-form-urlencoded"
    try:
        if multipart:
            return _multipart(multipart, secrets.token_hex(16))
        return (body.encode() if isinstance(body, str) else body), None
    except UnicodeEncodeError as error:
        raise MisuseError(f"the body cannot be encoded: {error}") from None


def _multipart(fields: Mapping[str, FilePart], boundary: str) -> tuple[bytes, str]:
    """Encode a form by RFC 7578, names escaped as browsers do (WHATWG HTML §4.10.21.8)."""
    out = bytearray()
    for name, part in fields.items():
        file_name, content, content_type = _part(part)
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"'.encode()
        if file_name is not None:
            out += f'; filename="{_escaped(file_name)}"'.encode()
        if content_type is not None:
            check_headers([("Content-Type", content_type)])
            out += f"\r\nContent-Type: {content_type}".encode()
        out += b"\r\n\r\n" + (content.encode() if isinstance(content, str) else content) + b"\r\n"
    out += f"--{boundary}--\r\n".encode()
    return bytes(out), f"multipart/form-data; boundary={boundary}"


def _part(part: FilePart) -> tuple[str | None, bytes | str, str | None]:
    if isinstance(part, tuple):
        return part[0], part[1], part[2] if len(part) > 2 else "application/octet-stream"  # noqa: PLR2004
    return None, part, None


def _escaped(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def get(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("GET", url, …)`."""
    return request("GET", url, **options)


def head(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("HEAD", url, …)`."""
    return request("HEAD", url, **options)


def post(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("POST", url, …)`."""
    return request("POST", url, **options)


def put(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("PUT", url, …)`."""
    return request("PUT", url, **options)


def patch(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("PATCH", url, …)`."""
    return request("PATCH", url, **options)


def delete(url: str, **options: Unpack[RequestOptions]) -> Request:
    """`request("DELETE", url, …)`."""
    return request("DELETE", url, **options)
