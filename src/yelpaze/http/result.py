"""What one attempt came to: read off the easy handle before it is used again."""

import re
from email.utils import parsedate_to_datetime

import pycurl

from yelpaze.http.causes import error_of
from yelpaze.http.decoding import CODED, UndecodableError, codings_of, decode
from yelpaze.http.handle import Handle, TransportConfig
from yelpaze.http.transport import AttemptRequest, AttemptResult, status_error
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Timings

_FIRST_FINAL_STATUS = 200
_PARTIAL = 206
_REFUSED_BY_PROXY = range(400, 500)
_END_OF_HEAD = re.compile(rb"\n\r?\n")
# As OpenSSL prints a time: "Nov 30 23:59:59 2026 GMT".
_GMT = re.compile(r"(\w{3}) +(\d+) ([\d:]+) (\d{4}) GMT")
_VERSIONS = {
    pycurl.CURL_HTTP_VERSION_1_0: "1.0",
    pycurl.CURL_HTTP_VERSION_1_1: "1.1",
    pycurl.CURL_HTTP_VERSION_2_0: "2",
}


def _is_whole(head: bytearray) -> bool:
    """Whether the last header block has its empty line; trailers may come after it."""
    if head.endswith(b"\r\n\r\n"):
        return True
    return _END_OF_HEAD.search(head, head.rfind(b"\nHTTP/") + 1) is not None


def _decoded_body(handle: Handle, config: TransportConfig) -> tuple[bytes, Error | None]:
    """The body of a whole answer without its codings, or why it has none."""
    try:
        if handle.decoder is not None:  # it was decoded as it came
            handle.decoder.finish()
        elif handle.body and config.accept_encoding and (codings := codings_of(handle.head)):
            return decode(handle.body, codings, config.max_body), None
    except UndecodableError as undecodable:
        return b"", undecodable.error
    return bytes(handle.body), None


def read(
    handle: Handle, attempt: AttemptRequest, code: int, message: str, config: TransportConfig
) -> AttemptResult:
    """Ask libcurl only for what is needed."""
    info = handle.easy.getinfo
    dns, body = attempt.dns, b""
    error: Error | None = None
    status = info(pycurl.RESPONSE_CODE)
    code = 0 if handle.is_cut else code  # libcurl was told to break off, and has no other error to tell
    if code and handle.blocked is not None and not handle.has_connected:
        error, status = Error(ErrorKind.BLOCKED_ADDRESS, handle.blocked), 0
    elif code and info(pycurl.HTTP_CONNECTCODE) in _REFUSED_BY_PROXY:
        refusal = status_error(info(pycurl.HTTP_CONNECTCODE))
        error, status = Error(ErrorKind.PROXY, f"the proxy refused: {refusal and refusal.message}"), 0
    elif handle.decode_error is not None:
        error, status = handle.decode_error, 0
    elif code and handle.one_time is not None and handle.one_time.is_unprocessed:
        error, status = Error(ErrorKind.REFUSED_STREAM, "the server refused the request's HTTP/2 stream"), 0
    elif code:
        error = error_of(
            code,
            message,
            os_errno=info(pycurl.OS_ERRNO),
            connected=info(pycurl.PRETRANSFER_TIME) > 0,
            max_body=config.max_body,
        )
        status = 0
    elif not _is_whole(handle.head) or status < _FIRST_FINAL_STATUS:
        # libcurl is content when the peer closes in the middle of the header block.
        error = Error(ErrorKind.PROTOCOL, "the peer closed the connection in the middle of the answer's head")
        status = 0
    else:
        error = status_error(status)
        body = bytes(handle.body)
        if handle.decoder is not None or (body and status != _PARTIAL and CODED in handle.head.lower()):
            body, undecodable = _decoded_body(handle, config)
            if undecodable is not None:
                error, status = undecodable, 0
    looked_up, connected, secured = dns, 0.0, 0.0
    if info(pycurl.NUM_CONNECTS) > 0:
        looked_up += info(pycurl.NAMELOOKUP_TIME)
        connected = dns + info(pycurl.CONNECT_TIME)
        secured = info(pycurl.APPCONNECT_TIME) and dns + info(pycurl.APPCONNECT_TIME)
    return AttemptResult(
        status,
        error,
        Headers(bytes(handle.head)),
        body,
        Timings(
            looked_up,
            connected,
            secured,
            dns + info(pycurl.STARTTRANSFER_TIME),
            dns + info(pycurl.TOTAL_TIME),
            attempt.queued,
        ),
        _VERSIONS.get(info(pycurl.INFO_HTTP_VERSION), ""),
        info(pycurl.PRIMARY_IP),
        handle.write_error,
        _certificate_expires(handle) if handle.wants_certificate else None,
    )


def _certificate_expires(handle: Handle) -> float | None:
    """When the first certificate of the chain that expires does so, in UNIX seconds."""
    times = [
        parsedate_to_datetime(_GMT.sub(r"\2 \1 \4 \3 GMT", value)).timestamp()
        for certificate in handle.easy.getinfo(pycurl.INFO_CERTINFO)
        for name, value in certificate
        if name == "Expire date"
    ]
    return min(times, default=None)
