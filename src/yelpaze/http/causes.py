"""From libcurl's error numbers to our closed list of causes."""

import errno

import pycurl

from yelpaze.http.decoding import too_large
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.process.descriptors import are_used_up

_KINDS: dict[int, ErrorKind] = {
    pycurl.E_COULDNT_RESOLVE_HOST: ErrorKind.DNS,
    pycurl.E_COULDNT_RESOLVE_PROXY: ErrorKind.DNS,
    pycurl.E_COULDNT_CONNECT: ErrorKind.CONNECT,
    pycurl.E_INTERFACE_FAILED: ErrorKind.CONNECT,
    97: ErrorKind.CONNECT,  # CURLE_PROXY, which pycurl does not name
    pycurl.E_SSL_CONNECT_ERROR: ErrorKind.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: ErrorKind.TLS,
    pycurl.E_SSL_CERTPROBLEM: ErrorKind.TLS,
    pycurl.E_SSL_CIPHER: ErrorKind.TLS,
    pycurl.E_SSL_ISSUER_ERROR: ErrorKind.TLS,
    pycurl.E_SSL_INVALIDCERTSTATUS: ErrorKind.TLS,
    pycurl.E_SSL_CACERT_BADFILE: ErrorKind.TLS,
    98: ErrorKind.TLS,  # CURLE_SSL_CLIENTCERT, likewise
    pycurl.E_FILESIZE_EXCEEDED: ErrorKind.TOO_LARGE,
}
OUT_OF_FILES = Error(
    ErrorKind.OUT_OF_FILES,
    "this process has no file descriptor left for a connection: "
    "raise the limit (ulimit -n), or make fewer calls at once",
)
# The peer went away during the handshake: no statement about certificates.
_GONE = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def error_of(code: int, message: str, *, os_errno: int, connected: bool, max_body: int) -> Error:
    """Name the cause of libcurl's failure `code`; `connected` once TCP and TLS stood."""
    if code == pycurl.E_OPERATION_TIMEDOUT:
        # The only time-out that is left to libcurl is the one for connecting.
        return Error(ErrorKind.CONNECT_TIMEOUT, message or "connecting took too long")
    if code == pycurl.E_COULDNT_CONNECT and not os_errno and are_used_up():
        return OUT_OF_FILES
    if code == pycurl.E_SSL_CONNECT_ERROR and os_errno in _GONE and not connected:
        return Error(ErrorKind.CONNECT, f"the peer closed the connection in the TLS handshake: {message}")
    if code == pycurl.E_SEND_FAIL_REWIND:
        return Error(
            ErrorKind.PROTOCOL,
            "the peer closed a kept connection before it answered; "
            "not sent again, as the request is not idempotent",
        )
    kind = _KINDS.get(code, ErrorKind.PROTOCOL)
    if kind is ErrorKind.TOO_LARGE:
        message = too_large(max_body)
    return Error(kind, message or pycurl.easy_strerror(code))
