"""Easy handles: options set once a shape, the few that change set for each attempt.

A handle's *shape* is its method and how it carries a body; handles are kept for reuse by
shape, so switching a handle from POST to GET, with its traps, never happens.

What libcurl may send again by itself: on a kept connection that died unanswered it
repeats the request, a POST too. A request that can't be replayed therefore has a
`OneTimeBody`, or, with no body, a fresh connection.
"""

import os
import ssl
from collections.abc import Callable, Iterable
from typing import Literal

import certifi
import msgspec
import pycurl

from yelpaze.http.decoding import BodyDecoder, UndecodableError, codings_of
from yelpaze.http.one_time_body import OneTimeBody
from yelpaze.http.shard import HostPool, Shard
from yelpaze.http.stale import StaleConnections
from yelpaze.http.transport import AttemptRequest, BodyWriter, OnAttemptDone
from yelpaze.model.errors import Error
from yelpaze.model.tls import Tls

HttpVersion = Literal["auto", "1.1", "2"]
# Method, has a body, can be replayed, TLS settings of its own.
Shape = tuple[str, bool, bool, Tls | None]

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
_RANGE = ("range:", b"range:")
_WITH_EMPTY_BODY = ("POST", "PUT", "PATCH")


class TransportConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The options that belong to a whole engine, since kept connections are shared."""

    connect_timeout: float
    tls: Tls
    authorities: str
    http_version: HttpVersion
    proxy: str | None
    max_body: int
    truncate: bool
    keep_alive: bool
    accept_encoding: str  # empty: bodies are asked for as they are, and none is decoded
    user_agent: str
    omit: tuple[str, ...] = ()
    tls_sessions: bool = True


class Handle:
    """An easy handle with the buffers that collect its answer."""

    __slots__ = (
        "_collect",
        "_config",
        "_suppressed",
        "attempt",
        "blocked",
        "body",
        "connect_timeout",
        "decode_error",
        "decoder",
        "easy",
        "has_connected",
        "head",
        "is_checked",
        "is_cut",
        "is_traced",
        "met_stale",
        "on_cancel",
        "on_done",
        "one_time",
        "paused",
        "paused_since",
        "pool",
        "resolve_set",
        "shape",
        "shard",
        "url",
        "wants_certificate",
        "write_error",
    )

    def __init__(self, config: TransportConfig, shape: Shape, on_cancel: Callable[["Handle"], None]) -> None:
        self._config = config
        self.shape = shape
        self.on_cancel = on_cancel
        self.url = ""
        self.connect_timeout = config.connect_timeout
        self.easy = pycurl.Curl()
        self.head = bytearray()
        self.body = bytearray()
        self.attempt: AttemptRequest | None = None
        self.on_done: OnAttemptDone | None = None
        self.pool: HostPool | None = None
        self.shard: Shard | None = None
        self.resolve_set = False
        self.blocked: str | None = None  # why an address was refused
        self.has_connected = False  # to another one
        self.paused = self.paused_since = 0.0
        self.write_error: BaseException | None = None
        self.decoder: BodyDecoder | None = None  # of a body that is written as it comes
        self.decode_error: Error | None = None
        self.one_time: OneTimeBody | None = None
        self.is_traced = False
        self.wants_certificate = False
        self.is_checked = self.met_stale = False  # which connection libcurl uses
        is_post = shape[1] or shape[0] in _WITH_EMPTY_BODY
        self._suppressed = (
            *(_SUPPRESSED_IN_POST if is_post else _SUPPRESSED),
            *(f"{name}:" for name in config.omit),
        )
        _set_config(self.easy, config, shape[3])
        _set_shape(self.easy, shape)
        self.easy.setopt(pycurl.HEADERFUNCTION, self.head.extend)
        self.is_cut = False  # enough of the body has come
        collect: Callable[[bytes], int | None] = self.body.extend
        self._collect = self._collect_some if config.truncate else collect
        self.easy.setopt(pycurl.WRITEFUNCTION, self._collect)

    @property
    def order(self) -> int:
        """The age of what the attempt belongs to."""
        return self.attempt.order if self.attempt is not None else 0

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the answer has come."""
        return bool(self.head)

    def cancel(self) -> None:
        """Stop the attempt at once."""
        self.on_cancel(self)

    def prepare(self, attempt: AttemptRequest, resolve: list[str] | None) -> None:
        """Set what this attempt sends; `resolve` are entries such as `+host:port:addresses`, or None."""
        easy, body = self.easy, attempt.body
        self.attempt = attempt
        if attempt.connect_timeout != self.connect_timeout:
            easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(attempt.connect_timeout * 1000)))
            self.connect_timeout = attempt.connect_timeout
        if attempt.url != self.url:
            easy.setopt(pycurl.URL, attempt.url)
            self.url = attempt.url
        headers = attempt.header_lines
        if len(headers) > 1 and any(line[:6].lower() in _RANGE for line in headers):
            headers.append("Accept-Encoding:")  # a part of a coded body can't be decoded
        headers.extend(self._suppressed)
        easy.setopt(pycurl.HTTPHEADER, headers)
        if body and self.shape[1]:
            if attempt.replayable:
                easy.setopt(pycurl.POSTFIELDS, body)  # sets the size, too
            else:
                self._send_once(body)
        if resolve is not None:
            easy.setopt(pycurl.RESOLVE, resolve)
            self.resolve_set = True
        if attempt.write is not None:
            self._write_to(attempt.write)
        if attempt.certificate is not self.wants_certificate:
            easy.setopt(pycurl.OPT_CERTINFO, int(attempt.certificate))
            self.wants_certificate = attempt.certificate

    def _send_once(self, body: bytes) -> None:
        one_time = self.one_time = OneTimeBody(body)
        self.easy.setopt(pycurl.READFUNCTION, one_time.read)
        self.easy.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
        if self._may_be_http2():
            self.is_traced = True
            self.easy.setopt(pycurl.SEEKFUNCTION, one_time.seek)
            self.easy.setopt(pycurl.DEBUGFUNCTION, one_time.on_trace)
            self.easy.setopt(pycurl.VERBOSE, 1)

    def _may_be_http2(self) -> bool:
        if self._config.http_version != "auto":
            return self._config.http_version == "2"
        return self.url.startswith("https:") and (self.pool is None or self.pool.http2 is not False)

    def check_connection(self, stale: StaleConnections) -> None:
        """Break off before anything is sent, if libcurl gives this transfer a connection that is stale."""

        def is_usable(remote: str, local: str, remote_port: int, local_port: int) -> int:
            http2 = self.pool is not None and self.pool.http2 is True and not self.pool.has_http1
            is_stale = stale.take((local, local_port), (remote, remote_port), http2=http2)
            if self.one_time is not None:
                self.one_time.is_unsendable = is_stale and http2
            if not is_stale or http2:  # libcurl finds out that it is shut down, and uses another one
                return int(pycurl.PREREQFUNC_OK)
            self.met_stale = True
            return int(pycurl.PREREQFUNC_ABORT)

        self.is_checked = True
        self.easy.setopt(pycurl.PREREQFUNCTION, is_usable)

    def _write_to(self, write: BodyWriter) -> None:
        """Hand the body to `write` as it comes, decoded; collect what it does not take."""

        def guarded(data: bytes) -> int:
            try:
                for piece in self._decoded(data):
                    if not write(self.head, piece):
                        self.body.extend(piece)
            except UndecodableError as error:
                self.decode_error = error.error
                return -1
            except BaseException as error:  # noqa: BLE001  libcurl has no way to carry it
                self.write_error = error
                return -1
            return len(data)

        self.easy.setopt(pycurl.WRITEFUNCTION, guarded)

    def _collect_some(self, data: bytes) -> int | None:
        """Collect `max_body` bytes, then break off: what has come is enough."""
        self.body.extend(data)
        if len(self.body) <= self._config.max_body:
            return None
        del self.body[self._config.max_body :]
        self.is_cut = True
        return -1

    def _decoded(self, data: bytes) -> Iterable[bytes]:
        if self.decoder is None:
            codings = codings_of(self.head) if self._config.accept_encoding else []
            self.decoder = BodyDecoder(codings, self._config.max_body)
        return self.decoder.feed(data)

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
        if self.attempt is not None and self.attempt.write is not None:
            self.write_error = self.decoder = self.decode_error = None
            self.easy.setopt(pycurl.WRITEFUNCTION, self._collect)
        if self.is_traced:
            self.easy.setopt(pycurl.VERBOSE, 0)
            self.easy.unsetopt(pycurl.SEEKFUNCTION)
            self.is_traced = False
        if self.is_checked:
            self.easy.unsetopt(pycurl.PREREQFUNCTION)
            self.is_checked = self.met_stale = False
        self.paused = self.paused_since = 0.0
        self.is_cut = False
        self.head.clear()
        self.body.clear()
        self.attempt = self.on_done = self.shard = self.pool = self.blocked = self.one_time = None
        self.has_connected = False
        if self.resolve_set:
            self.easy.unsetopt(pycurl.RESOLVE)
            self.resolve_set = False


def _set_config(easy: pycurl.Curl, config: TransportConfig, tls: Tls | None) -> None:
    easy.setopt(pycurl.NOSIGNAL, 1)
    easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    easy.setopt(pycurl.FOLLOWLOCATION, 0)
    easy.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
    easy.setopt(pycurl.PROXY, config.proxy or "")  # empty: none, from the environment neither
    easy.setopt(pycurl.HTTP_VERSION, _VERSIONS[config.http_version])
    # Wait for a connection under way that will carry many streams. Not in "auto", where libcurl
    # waits for the first *answer* before it knows: one stalled call would hold up all others.
    easy.setopt(pycurl.PIPEWAIT, int(config.http_version == "2" and config.keep_alive))
    if config.accept_encoding:
        easy.setopt(pycurl.ACCEPT_ENCODING, config.accept_encoding)
        easy.setopt(pycurl.HTTP_CONTENT_DECODING, 0)  # it takes a body that is cut short for a whole one
    easy.setopt(pycurl.HTTP09_ALLOWED, 0)
    easy.setopt(pycurl.USERAGENT, config.user_agent)
    easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(config.connect_timeout * 1000)))
    if not config.truncate:
        easy.setopt(pycurl.MAXFILESIZE_LARGE, config.max_body)
    easy.setopt(pycurl.DNS_CACHE_TIMEOUT, _DNS_CACHE_SECONDS)
    _set_tls(easy, config.tls if tls is None else tls, config.authorities)
    if not config.tls_sessions:
        easy.setopt(pycurl.SSL_SESSIONID_CACHE, 0)
    easy.setopt(pycurl.TCP_NODELAY, 1)
    easy.setopt(pycurl.FORBID_REUSE, int(not config.keep_alive))


def _set_tls(easy: pycurl.Curl, tls: Tls, authorities: str) -> None:
    easy.setopt(pycurl.SSL_VERIFYPEER, int(tls.verify))
    easy.setopt(pycurl.SSL_VERIFYHOST, 2 if tls.verify else 0)
    easy.setopt(pycurl.CAINFO, os.fsencode(tls.ca_file or authorities))
    if tls.groups is not None:
        easy.setopt(pycurl.SSL_EC_CURVES, tls.groups)
    if tls.certificate is not None:
        certificate, key, password = tls.certificate
        easy.setopt(pycurl.SSLCERT, os.fsencode(certificate))
        if key is not None:
            easy.setopt(pycurl.SSLKEY, os.fsencode(key))
        if password is not None:
            easy.setopt(pycurl.KEYPASSWD, password.encode())


def default_authorities() -> str:
    """The bundle to trust: SSL_CERT_FILE, the system's, or certifi's."""
    return ssl.get_default_verify_paths().cafile or certifi.where()


def _set_shape(easy: pycurl.Curl, shape: Shape) -> None:
    method, has_body, replayable, _ = shape
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
