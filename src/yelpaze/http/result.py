"""What one attempt came to: read off the easy handle before it is used again."""

import re
from http import HTTPStatus

import msgspec
import pycurl

from yelpaze.http.causes import error_of
from yelpaze.http.handle import Handle
from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.outcome import Timings

_FIRST_ERROR_STATUS, _FIRST_FINAL_STATUS = 400, 200
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_NO_TIMINGS = Timings()
_NO_HEADERS = Headers()
_VERSIONS = {
    pycurl.CURL_HTTP_VERSION_1_0: "1.0",
    pycurl.CURL_HTTP_VERSION_1_1: "1.1",
    pycurl.CURL_HTTP_VERSION_2_0: "2",
}


class AttemptResult(msgspec.Struct, frozen=True, gc=False):
    """An attempt's answer, or its error; `status` is 0 without a whole answer."""

    status: int
    error: Error | None
    headers: Headers = _NO_HEADERS
    body: bytes = b""
    timings: Timings = _NO_TIMINGS
    http_version: str = ""
    remote_ip: str = ""


def _is_whole(head: bytearray) -> bool:
    """Whether the last header block has its empty line; trailers may come after it."""
    if head.endswith(b"\r\n\r\n"):
        return True
    return _END_OF_HEAD.search(head, head.rfind(b"\nHTTP/") + 1) is not None


def _status_error(status: int) -> Error:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return Error(ErrorKind.STATUS, f"{status}{phrase}")


_STATUS_ERRORS = {status: _status_error(status) for status in range(400, 600)}


def read(
    handle: Handle, code: int, message: str, *, dns: float, queued: float, max_body: int
) -> AttemptResult:
    """Ask libcurl only for what is needed. `dns` is what our own look-up took before."""
    info = handle.easy.getinfo
    error: Error | None = None
    status = info(pycurl.RESPONSE_CODE)
    if code:
        error = error_of(
            code,
            message,
            os_errno=info(pycurl.OS_ERRNO),
            connected=info(pycurl.PRETRANSFER_TIME) > 0,
            max_body=max_body,
        )
        status = 0
    elif not _is_whole(handle.head) or status < _FIRST_FINAL_STATUS:
        # libcurl is content when the peer closes in the middle of the header block.
        error = Error(ErrorKind.PROTOCOL, "the peer closed the connection in the middle of the answer's head")
        status = 0
    elif status >= _FIRST_ERROR_STATUS:
        error = _STATUS_ERRORS.get(status) or _status_error(status)
    looked_up, connected, secured = dns, 0.0, 0.0
    if info(pycurl.NUM_CONNECTS) > 0:
        looked_up += info(pycurl.NAMELOOKUP_TIME)
        connected = dns + info(pycurl.CONNECT_TIME)
        secured = info(pycurl.APPCONNECT_TIME) and dns + info(pycurl.APPCONNECT_TIME)
    return AttemptResult(
        status,
        error,
        Headers(bytes(handle.head)),
        bytes(handle.body),
        Timings(
            looked_up,
            connected,
            secured,
            dns + info(pycurl.STARTTRANSFER_TIME),
            dns + info(pycurl.TOTAL_TIME),
            queued,
        ),
        _VERSIONS.get(info(pycurl.INFO_HTTP_VERSION), ""),
        info(pycurl.PRIMARY_IP),
    )
