"""What a check came to, whatever its kind."""

import msgspec

from yelpaze.monitor.conditions import Answer

Timings = tuple[float, float, float, float]  # milliseconds until look-up, connection, TLS, first byte


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer, for conditions; `error` and `message` if there was none.

    `duration` is in milliseconds; `certificate` is when it expires, in UNIX seconds.
    """

    answer: Answer
    error: str = ""
    message: str = ""
    duration: float = 0.0
    timings: Timings | None = None
    certificate: float | None = None
