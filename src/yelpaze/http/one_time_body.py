"""The body of a request that must not be processed twice.

libcurl sends a request again by itself in two cases: a kept connection died before it answered, or an
HTTP/2 server said that it did not process the request (REFUSED_STREAM, or a stream above GOAWAY's last one,
RFC 9113 §8.7). In the first the server may have processed it, so libcurl must not get the body a second
time; in the second it may. libcurl does not tell the cases apart where it asks for the body again; only its
trace names a refused stream, before it asks. A version that words it differently fails
`tests/fault/test_http2.py`, and costs the second sending, never a second processing.
"""

import io

import pycurl

_REFUSED = b"refused by server"


class OneTimeBody:
    """Gives libcurl `data` once, and again after a stream that was refused.

    `is_unprocessed`: the server says that it has not processed what was sent last. `is_unsendable`: the
    connection that libcurl uses is shut down, so nothing reaches the server.
    """

    __slots__ = ("_reader", "is_unprocessed", "is_unsendable")

    def __init__(self, data: bytes) -> None:
        self._reader = io.BytesIO(data)
        self.is_unprocessed = self.is_unsendable = False

    def read(self, size: int) -> bytes:
        """Called when libcurl sends: what a server said of an earlier sending does not hold for this one."""
        self.is_unprocessed = False
        return self._reader.read(size)

    def seek(self, offset: int, _origin: int) -> int:
        """Called when libcurl asks for the body again."""
        if not (self.is_unprocessed or self.is_unsendable):
            return int(pycurl.SEEKFUNC_CANTSEEK)
        self._reader.seek(offset)
        return int(pycurl.SEEKFUNC_OK)

    def restart(self) -> None:
        """Nothing of it was sent: begin anew."""
        self._reader.seek(0)

    def on_trace(self, kind: int, text: bytes) -> None:
        """Read a line of libcurl's trace."""
        if kind == pycurl.INFOTYPE_TEXT and _REFUSED in text:
            self.is_unprocessed = True
