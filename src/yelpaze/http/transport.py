"""The seam between the engine and what carries its attempts.

A transport has one method for it: `start(attempt, on_done)`. Pooling, connections and memory are its own.
libcurl's is `curl_transport.py`; `yelpaze.testing.MockTransport` answers without a network.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import msgspec

from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Timings
from yelpaze.model.tls import Tls

_NO_TIMINGS = Timings()
_NO_HEADERS = Headers()
_FIRST_ERROR_STATUS = 400

# Takes the head of the answer so far and a piece of its body; false if the body is to be collected as usual.
BodyWriter = Callable[[bytearray, bytes], bool]


class AttemptRequest(msgspec.Struct, kw_only=True, gc=False):
    """One attempt, as a transport gets it.

    - `header_lines`: as libcurl takes them, `Name: value`, or `Name;` for an empty value.
    - `host`: `name:port`, by which connections are pooled; `addresses`: where it is, if that was looked up,
      which took `dns` seconds. `queued`: seconds spent waiting before.
    - `connect_timeout`: in seconds; the other timeouts are the engine's.
    - `order`: the age of what the attempt belongs to; while memory is short, the oldest goes on.
    - `write`: takes the body as it comes. `tls`: replaces the engine's settings. `certificate`: whether the
      expiry of the server's certificate is wanted.
    """

    method: str
    url: str
    header_lines: list[str | bytes]
    body: bytes | None
    replayable: bool
    host: str
    addresses: tuple[str, ...] | None
    connect_timeout: float
    order: int
    dns: float
    queued: float
    write: BodyWriter | None
    tls: Tls | None
    certificate: bool = False


class AttemptResult(msgspec.Struct, frozen=True, gc=False):
    """An attempt's answer, or its error; `status` is 0 without a whole answer.

    `raised`: what `AttemptRequest.write` raised. `certificate_expires`: UNIX seconds, if it was asked for.
    """

    status: int
    error: Error | None
    headers: Headers = _NO_HEADERS
    body: bytes = b""
    timings: Timings = _NO_TIMINGS
    http_version: str = ""
    remote_ip: str = ""
    raised: BaseException | None = None
    certificate_expires: float | None = None


OnAttemptDone = Callable[[AttemptResult], None]


class Transfer(Protocol):
    """An attempt under way."""

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the answer has come."""

    def paused_for(self, now: float) -> float:
        """Seconds for which the transport itself has held it up, until `now`."""

    def cancel(self) -> None:
        """Stop at once; `on_done` is not called any more."""


class Transport(Protocol):
    """Carries attempts."""

    def start(self, attempt: AttemptRequest, on_done: OnAttemptDone) -> Transfer:
        """Begin. `on_done` is called once, later, in the event loop, unless the transfer is cancelled."""

    def close(self) -> None:
        """Abort what is under way and let go of everything."""


def status_error(status: int) -> Error | None:
    """The error of an answer with that status; None below 400."""
    if status < _FIRST_ERROR_STATUS:
        return None
    return _STATUS_ERRORS.get(status) or _named(status)


def _named(status: int) -> Error:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return Error(ErrorKind.STATUS, f"{status}{phrase}")


_STATUS_ERRORS = {status: _named(status) for status in range(400, 600)}
