"""Easy handles: options set once a shape, the few that change set for each attempt.

A handle's *shape* is its method and how it carries a body; handles are kept for reuse by
shape, so switching a handle from POST to GET, with its traps, never happens.

What libcurl may send again by itself: on a kept connection that died unanswered it
repeats the request, a POST too. A request that can't be replayed therefore gets its body
from a read callback without a seek function, which libcurl cannot rewind, or, with no
body, a fresh connection.
"""

import io
from collections.abc import Callable
from typing import Literal

import msgspec
import pycurl

from yelpaze.http.shard import Shard

HttpVersion = Literal["auto", "1.1", "2"]
Shape = tuple[str, bool, bool]  # method, has a body, can be replayed
Done = Callable[["Handle", int, str], None]

_VERSIONS = {
    "auto": pycurl.CURL_HTTP_VERSION_2TLS,
    "1.1": pycurl.CURL_HTTP_VERSION_1_1,
    "2": pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
}
# An own Content-Type is always given where there is a body worth one; libcurl's form
# default and its Expect: 100-continue are never wanted.
_SUPPRESSED = ("Expect:",)
_SUPPRESSED_IN_POST = ("Expect:", "Content-Type:")
_DNS_CACHE_SECONDS = 900
_WITH_EMPTY_BODY = ("POST", "PUT", "PATCH")


class TransportConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The options that belong to a whole engine, since kept connections are shared."""

    connect_timeout: float
    ca_file: str | None
    client_cert: tuple[str, str | None, str | None] | None
    verify: bool
    http_version: HttpVersion
    proxy: str | None
    max_body: int
    keep_alive: bool
    compressed: bool
    user_agent: str
    omit: tuple[str, ...] = ()


class Handle:
    """An easy handle with the buffers that collect its answer."""

    __slots__ = (
        "_suppressed",
        "body",
        "connect_timeout",
        "done",
        "easy",
        "head",
        "order",
        "paused",
        "paused_since",
        "resolve_set",
        "shape",
        "shard",
        "url",
        "write_error",
    )

    def __init__(self, config: TransportConfig, shape: Shape) -> None:
        self.shape = shape
        self.url = ""
        self.connect_timeout = config.connect_timeout
        self.easy = pycurl.Curl()
        self.head = bytearray()
        self.body = bytearray()
        self.done: Done | None = None
        self.shard: Shard | None = None
        self.resolve_set = False
        self.order = 0
        self.paused = self.paused_since = 0.0
        self.write_error: BaseException | None = None
        is_post = shape[1] or shape[0] in _WITH_EMPTY_BODY
        self._suppressed = (
            *(_SUPPRESSED_IN_POST if is_post else _SUPPRESSED),
            *(f"{name}:" for name in config.omit),
        )
        _set_config(self.easy, config)
        _set_shape(self.easy, shape)
        self.easy.setopt(pycurl.HEADERFUNCTION, self.head.extend)
        self.easy.setopt(pycurl.WRITEFUNCTION, self.body.extend)

    def limit_connect(self, seconds: float) -> None:
        """Set the connect timeout, for this attempt and those after it."""
        if seconds != self.connect_timeout:
            self.easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(seconds * 1000)))
            self.connect_timeout = seconds

    def prepare(self, url: str, headers: list[str | bytes], body: bytes | None, resolve: str | None) -> None:
        """Set what this attempt sends; `resolve` is a `+host:port:addresses` entry or None."""
        easy = self.easy
        if url != self.url:
            easy.setopt(pycurl.URL, url)
            self.url = url
        _, has_body, replayable = self.shape
        headers.extend(self._suppressed)
        easy.setopt(pycurl.HTTPHEADER, headers)
        if has_body and body is not None:
            if replayable:
                easy.setopt(pycurl.POSTFIELDS, body)  # sets the size, too
            else:
                easy.setopt(pycurl.READFUNCTION, io.BytesIO(body).read)
                easy.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
        if resolve is not None:
            easy.setopt(pycurl.RESOLVE, [resolve])
            self.resolve_set = True

    def write_to(self, write: Callable[[bytes], object]) -> None:
        """Hand the body to `write` as it comes, instead of collecting it."""

        def guarded(data: bytes) -> int:
            try:
                write(data)
            except BaseException as error:  # noqa: BLE001  libcurl has no way to carry it
                self.write_error = error
                return -1
            return len(data)

        self.easy.setopt(pycurl.WRITEFUNCTION, guarded)

    def pause(self, now: float) -> bool:
        """Receive no more for now; false while it still connects, which needs receiving."""
        if not self.head and not self.easy.getinfo(pycurl.PRETRANSFER_TIME):
            return False
        try:
            self.easy.pause(pycurl.PAUSE_RECV)
        except pycurl.error:  # it has just ended
            return False
        self.paused_since = now
        return True

    def resume(self, now: float) -> None:
        """Receive again."""
        self.paused += now - self.paused_since
        self.paused_since = 0.0
        self.easy.pause(pycurl.PAUSE_CONT)

    def paused_for(self, now: float) -> float:
        """How long, in seconds, this attempt has been paused by us."""
        return self.paused + (now - self.paused_since if self.paused_since else 0.0)

    def clear(self) -> None:
        """Make ready for the next use."""
        self.paused = self.paused_since = 0.0
        self.head.clear()
        self.body.clear()
        self.done = self.shard = None
        if self.resolve_set:
            self.easy.unsetopt(pycurl.RESOLVE)
            self.resolve_set = False

    def restore_collecting(self) -> None:
        """Undo `write_to`."""
        self.write_error = None
        self.easy.setopt(pycurl.WRITEFUNCTION, self.body.extend)


def _set_config(easy: pycurl.Curl, config: TransportConfig) -> None:
    easy.setopt(pycurl.NOSIGNAL, 1)
    easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    easy.setopt(pycurl.FOLLOWLOCATION, 0)
    easy.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
    easy.setopt(pycurl.PROXY, config.proxy or "")  # empty: none, from the environment neither
    easy.setopt(pycurl.HTTP_VERSION, _VERSIONS[config.http_version])
    # Wait for a connection under way that will carry many streams. Not in "auto", where libcurl
    # waits for the first *answer* before it knows: one stalled call would hold up all others.
    easy.setopt(pycurl.PIPEWAIT, int(config.http_version == "2" and config.keep_alive))
    if config.compressed:
        easy.setopt(pycurl.ACCEPT_ENCODING, "")  # all that this libcurl can decode, and no more
    easy.setopt(pycurl.HTTP09_ALLOWED, 0)
    easy.setopt(pycurl.USERAGENT, config.user_agent)
    easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(config.connect_timeout * 1000)))
    easy.setopt(pycurl.MAXFILESIZE_LARGE, config.max_body)
    easy.setopt(pycurl.DNS_CACHE_TIMEOUT, _DNS_CACHE_SECONDS)
    easy.setopt(pycurl.SSL_VERIFYPEER, int(config.verify))
    easy.setopt(pycurl.SSL_VERIFYHOST, 2 if config.verify else 0)
    easy.setopt(pycurl.TCP_NODELAY, 1)
    easy.setopt(pycurl.FORBID_REUSE, int(not config.keep_alive))
    if config.ca_file is not None:
        easy.setopt(pycurl.CAINFO, config.ca_file)
    if config.client_cert is not None:
        certificate, key, password = config.client_cert
        easy.setopt(pycurl.SSLCERT, certificate)
        if key is not None:
            easy.setopt(pycurl.SSLKEY, key)
        if password is not None:
            easy.setopt(pycurl.KEYPASSWD, password)


def _set_shape(easy: pycurl.Curl, shape: Shape) -> None:
    method, has_body, replayable = shape
    if method == "HEAD":
        easy.setopt(pycurl.NOBODY, 1)
        return
    if has_body:
        easy.setopt(pycurl.POST, 1)
    elif method in _WITH_EMPTY_BODY:
        # RFC 9110 §8.6: these say Content-Length: 0 when there is no content.
        easy.setopt(pycurl.POST, 1)
        easy.setopt(pycurl.POSTFIELDS, b"")
        easy.setopt(pycurl.POSTFIELDSIZE_LARGE, 0)
    if not has_body and not replayable:
        easy.setopt(pycurl.FRESH_CONNECT, 1)
    if method not in ("GET", "POST") or (method == "GET" and has_body):
        easy.setopt(pycurl.CUSTOMREQUEST, method)
