"""What can go wrong, named by cause.

Two families never mix. *Misuse* is the caller's mistake and is raised at once; what the
network or a peer does is an `Error` value inside an outcome and is never raised::

    YelpazeError
    ├── MisuseError          a bad URL, header or option (also a ValueError)
    ├── FlowError            a flow that cannot run: cycle, unknown name, two ends
    ├── InputError           an input or output that cannot be used at all
    ├── StoppedError         the run could not go on: disk full
    ├── RemoteError          a function that was called at a worker raised, or was lost
    └── FanOutError          gather(mode="fail_fast"): the first failure, and what had arrived (outcome.py)

    ErrorKind                in Outcome.error.kind
    ├── dns  connect  tls
    ├── timeout.connect  timeout.first_byte  timeout.attempt  timeout.deadline
    ├── protocol  too_large
    ├── refused_stream       HTTP/2: the server says that it did not process the request (RFC 9113 §8.7)
    ├── proxy                the proxy refused, with a status of 400 to 499
    ├── out_of_files         this process had no file descriptor left for a connection
    ├── blocked_address      Engine(address_guard=…) refused where the name, or a redirect, led
    ├── breaker_open  budget_spent  host_down    ended by a policy; the last attempt has the cause
    ├── cancelled
    └── status               an answer came, with a status of 400 or above, or Retry(when=…) refused it
"""

from enum import StrEnum

import msgspec


class YelpazeError(Exception):
    """The base of every exception that Yelpaze raises on purpose."""


class MisuseError(YelpazeError, ValueError):
    """The call itself is wrong; nothing was sent."""


class FlowError(YelpazeError):
    """A flow that cannot run. The message says where (file and line) and what to do."""


class InputError(YelpazeError):
    """An input or output that cannot be used: missing, a folder, not readable."""


class StoppedError(YelpazeError):
    """The work could not go on, through no fault of an item: the disk is full, a broker away."""


class RemoteError(YelpazeError):
    """A call at a worker has no value.

    `kind`: `exception`, with the worker's `traceback`; `timeout.compute`; `crashed`; `validation`, an
    argument that does not fit; `result`, a value that can't travel.
    """

    def __init__(self, kind: str, message: str, traceback: str = "") -> None:
        self.kind = kind
        self.traceback = traceback
        super().__init__(f"{kind}: {message}")
        if traceback:
            self.add_note(f"at the worker:\n{traceback}")


def check_numbers(settings: msgspec.Struct) -> None:
    """Raise MisuseError unless each field is a number, or None where that is its default."""
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        if not isinstance(value, int | float) and not (value is None and field.default is None):
            raise MisuseError(f"{type(settings).__name__}({field.name}=…) takes a number, not {value!r}")


class ErrorKind(StrEnum):
    """The closed list of causes of a failed call. A kind compares equal to its name."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    CONNECT_TIMEOUT = "timeout.connect"
    FIRST_BYTE_TIMEOUT = "timeout.first_byte"
    ATTEMPT_TIMEOUT = "timeout.attempt"
    DEADLINE_TIMEOUT = "timeout.deadline"
    PROTOCOL = "protocol"
    REFUSED_STREAM = "refused_stream"
    TOO_LARGE = "too_large"
    PROXY = "proxy"
    OUT_OF_FILES = "out_of_files"
    BLOCKED_ADDRESS = "blocked_address"
    BREAKER_OPEN = "breaker_open"
    BUDGET_SPENT = "budget_spent"
    HOST_DOWN = "host_down"
    CANCELLED = "cancelled"
    STATUS = "status"


class Error(msgspec.Struct, frozen=True, gc=False):
    """Why a call, or one attempt of it, failed: the kind for programs, the message for people.

    `code` says more for programs: of a failed look-up the name server's answer, such as `NXDOMAIN`.
    """

    kind: ErrorKind
    message: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
