"""What a compute backend does: run a numbered function on packed arguments.

The backend does not know what it runs. An `EntryPoint` names a function that is called once in
each process and gives the `Handler` for all calls; so a process needs nothing pickled but
plain values.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

Handler = Callable[[int, Any], Any]


class EntryPoint(msgspec.Struct, frozen=True):
    """`module:function`, called with `arguments` in each process, gives its Handler."""

    path: str
    arguments: tuple[Any, ...] = ()


class Fault(msgspec.Struct, frozen=True):
    """Why a call has no value.

    `kind` is `exception` (with the traceback), `timeout.compute`, `crashed`, or what the
    handler's own `CallError` says. `source`: the argument that did not fit, if one did not.
    """

    kind: str
    message: str
    traceback: str = ""
    source: str = ""


class UnreadableBatch(msgspec.Struct, frozen=True):
    """A worker process's answer to a batch that it cannot unpickle; it ran none of its calls."""

    why: str


class Unit(msgspec.Struct, frozen=True):
    """What can be called together: a flow's CPU steps, or a module's functions.

    `name` is `flow:NAME`, or the module's; `files` are hashes of its source files, by their place beside it.
    """

    name: str
    functions: tuple[str, ...]
    files: dict[str, str]

    def missing_in(self, client: "Unit") -> list[str]:
        """What a client has not, or not the same; empty if it may call us.

        What a client has beyond is no matter: a worker imports only what the source itself brings along.
        A client without any files calls what it has no source of.
        """
        files = [name for name, value in self.files.items() if client.files.get(name) != value]
        if not client.files:
            files = []
        return files + [name for name in client.functions if name not in self.functions]


class Exports(msgspec.Struct, frozen=True):
    """What a worker offers to other machines.

    `target`'s handler takes the place of a function, in the units one after the other, and bytes;
    it gives bytes.
    """

    units: tuple[Unit, ...]
    target: EntryPoint


class CallError(Exception):
    """Raised by a handler to set a fault's kind (and source) itself, without a traceback."""

    def __init__(self, kind: str, message: str, source: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.source = source


OnResult = Callable[[Any, Fault | None], None]


class Codec(Protocol):
    """How calls of one unit's functions travel to other machines."""

    @property
    def unit(self) -> Unit:
        """What is called; workers must have the same."""

    def name_of(self, function: int) -> str:
        """How workers know a function."""

    def encode(self, function: int, payload: Any) -> bytes:
        """A call's payload. Raises CallError for what can't travel."""

    def decode(self, function: int, payload: Any, data: bytes) -> Any:
        """The value of a call with that payload. Raises CallError."""


class Compute(Protocol):
    """Runs calls; each ends in exactly one `on_done(value, fault)` on the event loop."""

    @property
    def trouble(self) -> str:
        """What an operator should know now; empty if all is well."""

    @property
    def broken(self) -> str | None:
        """Why no call can run any more, if that is so."""

    async def start(self) -> None:
        """Be ready for calls, or raise StoppedError."""

    def submit(
        self, function: int, payload: Any, on_done: OnResult, *, timeout: float, size: int = 0
    ) -> object:
        """Queue a call of function number `function`; `timeout` in seconds of its own running.

        `size`: the payload's, in bytes, where it matters.
        """

    def peak_rss_mb(self) -> float:
        """The most memory that the backend's own processes held, in MB, summed."""

    async def close(self) -> None:
        """Stop at once; calls under way get no `on_done` any more."""
