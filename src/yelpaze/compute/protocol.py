"""What a compute backend does: run a numbered function on carried arguments.

The backend does not know what it runs. A `Target` names a function that is called once in
each process and gives the `Handler` for all calls; so a process needs nothing pickled but
plain values.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

Handler = Callable[[int, Any], Any]


class Target(msgspec.Struct, frozen=True):
    """`module:function`, called with `arguments` in each process, gives its Handler."""

    path: str
    arguments: tuple[Any, ...] = ()


class Fault(msgspec.Struct, frozen=True):
    """Why a call has no value.

    `kind` is `exception` (with the traceback), `timeout.compute`, `crashed`, or what the
    handler's own `CallError` says.
    """

    kind: str
    message: str
    traceback: str = ""


class CallError(Exception):
    """Raised by a handler to name a fault's kind itself, without a traceback."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


OnResult = Callable[[Any, Fault | None], None]


class Compute(Protocol):
    """Runs calls; each ends in exactly one `on_done(value, fault)` on the event loop."""

    @property
    def broken(self) -> str | None:
        """Why no call can run any more, if that is so."""

    async def start(self) -> None:
        """Be ready for calls, or raise StoppedError."""

    def submit(
        self, function: int, payload: Any, on_done: OnResult, *, timeout: float, size: int = 0
    ) -> None:
        """Queue a call of function number `function`; `timeout` in seconds of its own running.

        `size`: the payload's, in bytes, where it matters.
        """

    def peak_rss_mb(self) -> float:
        """The most memory that the backend's own processes held, in MB, summed."""

    async def close(self) -> None:
        """Stop at once; calls under way get no `on_done` any more."""
