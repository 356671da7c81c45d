"""What came of a call: one `Outcome` for every request, whatever the network did."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

# gc=False below: these hold no cycles, and tracking millions of them costs collections.
from yelpaze.model.errors import Error, YelpazeError
from yelpaze.model.headers import Headers
from yelpaze.model.json_errors import explained
from yelpaze.model.request import Request
from yelpaze.model.secrets import SECRETS, Shown, repr_of

T = TypeVar("T")


class Timings(msgspec.Struct, frozen=True, gc=False):
    """Where the time of the last attempt went, in seconds from its start; `queued` apart.

    `dns`, `connect` and `tls` are when each phase was *over*, and 0 on a kept connection.
    `queued` is the time spent waiting for a slot, over all attempts, and in no other figure.
    """

    dns: float = 0.0
    connect: float = 0.0
    tls: float = 0.0
    first_byte: float = 0.0
    total: float = 0.0
    queued: float = 0.0


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try at a call: its status (0 without an answer), error, and length in seconds.

    `began` is when, on the engine's clock (`engine.clock()`).
    """

    status: int
    error: Error | None
    seconds: float
    began: float = 0.0


# Bytes that JSON begins with; no byte order mark does.
_PLAIN = frozenset(bytes([byte]) for byte in b'{["-0123456789tfn \t\r\n') | {b""}
_CHARSET, _UPPER_CHARSET = b"harset=", b"HARSET="
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request, or the reason why there is none.

    - `status` is 0 when no answer came; `body` is decoded (gzip, br) and empty when it was
      streamed elsewhere; `url` is where the answer came from, after redirects.
    - `error` is None exactly when `ok` is true: an answer with a status below 400.
    - `attempts` has one entry a try, the last one's error being `error`; a redirect
      followed is a try of its own.
    - `certificate_expires` (UNIX seconds) is the first expiry in the server's chain of certificates, if
      `Connect(certificate=True)` asked for it.
    - `elapsed` is the whole call in seconds: attempts, pauses between them and queueing.
    """

    request: Request
    status: int
    headers: Headers
    body: bytes
    error: Error | None
    attempts: tuple[Attempt, ...]
    timings: Timings
    elapsed: float
    url: str
    http_version: str
    remote_ip: str
    trace_id: str
    certificate_expires: float | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("request", self.request),
            ("status", self.status),
            ("error", self.error),
            ("headers", self.headers),
            ("body", Shown(f"<{len(self.body)} bytes>")),
            ("attempts", len(self.attempts)),
            ("elapsed", round(self.elapsed, 6)),
            ("url", SECRETS.url(self.url)),
            ("trace_id", self.trace_id),
        ]

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def tag(self) -> Any:
        """What the request was tagged with."""
        return self.request.tag

    @property
    def ok(self) -> bool:
        """Whether an answer came with a status below 400."""
        return self.error is None

    @property
    def text(self) -> str:
        """The body as text, by the charset of Content-Type, else UTF-8; bad bytes replaced."""
        _, found, charset = self.headers.get("content-type", "").lower().partition("charset=")
        name = charset.split(";")[0].strip("\"' ") if found else "utf-8"
        try:
            return self.body.decode(name, "replace")
        except (LookupError, ValueError):  # no such charset, or none that decodes text
            return self.body.decode("utf-8", "replace")

    def json(self, type: type[T] | Any = Any) -> Any:  # noqa: A002
        """Decode the body as JSON, validated to `type` if one is given (msgspec's rules).

        A byte order mark is skipped, and a body in another charset is converted (RFC 8259 §8.1).
        Raises msgspec.DecodeError for what is no JSON, msgspec.ValidationError (a subclass)
        for what does not fit.
        """
        data = self.utf8
        try:
            return msgspec.json.decode(data, type=type)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            raise msgspec.DecodeError(f"the body is not JSON: {explained(data, error)}") from None

    def _names_charset(self) -> bool:
        raw = self.headers.raw
        return _CHARSET in raw or _UPPER_CHARSET in raw

    @property
    def utf8(self) -> bytes:
        """The body as text in UTF-8 without a byte order mark."""
        body = self.body
        if body[:1] in _PLAIN and not self._names_charset():  # nearly always
            return body
        return _converted(body, self.headers.get("content-type", ""))


def _converted(body: bytes, content_type: str) -> bytes:
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body.decode(name, "replace").encode()
    _, found, charset = content_type.lower().partition("charset=")
    name = charset.split(";")[0].strip("\"' ")
    if not found or name in _UTF8:
        return body
    try:
        return body.decode(name).encode()
    except (LookupError, ValueError):  # no such charset, or not in it: its JSON may still be read
        return body


class FanOutError(YelpazeError):
    """One of several named calls failed and the rest were cancelled.

    `name` and `outcome` tell the first failure; `arrived` maps the names of the calls
    that had succeeded by then to their outcomes.
    """

    def __init__(self, name: str, outcome: Outcome, arrived: Mapping[str, Outcome]) -> None:
        self.name = name
        self.outcome = outcome
        self.arrived = dict(arrived)
        super().__init__(f"{name!r} failed: {outcome.error}")


# In a flow a step asks for the whole answer by this name.
Response = Outcome
