"""What happens to a host while calls go to it, for listeners, logs and metrics."""

from typing import Literal

import msgspec

EventKind = Literal[
    "breaker.open", "breaker.half_open", "breaker.closed", "host.paused", "host.down", "host.up"
]


class HostEvent(msgspec.Struct, frozen=True, gc=False):
    """A change in how a host is treated; `seconds` says for how long, where that is known."""

    kind: EventKind
    host: str
    seconds: float = 0.0
