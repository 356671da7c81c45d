"""What the supervisor and its processes say to each other, and processes to clients beside their answers."""

from typing import Any

import msgspec

from yelpaze.grpc.address import Address
from yelpaze.grpc.options import Credentials, Options

# Upper bounds in seconds, those of most gRPC servers' metrics; one more bucket has the rest, and the
# last place has the sum.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# Trailing metadata of calls that failed, by which a client knows whether they ran. A process that refuses a
# call gives its id, so that this says nothing to the clients of a servicer that passes on what it was told.
REFUSED_BY = "yelpaze-refused-by"
RAN = "yelpaze-ran"


class ProcessAddress(msgspec.Struct, frozen=True):
    """A process that takes calls, and where."""

    id: str
    address: Address


class ServerTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do, in which place. `listen` is the shared address, `own` its own."""

    id: str
    place: int
    program: bytes  # pickled: what it names is imported where failing can be told
    preparation: dict[str, Any]
    options: Options
    credentials: Credentials | None
    listen: Address | None
    own: Address | None


class Members(msgspec.Struct, frozen=True):
    """To a process: all that take calls now."""

    members: tuple[ProcessAddress, ...]


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """From a process: its calls since it began; see `Tally`."""

    started: dict[str, int]
    handled: dict[tuple[str, str], int]
    seconds: dict[str, list[float]]
    running: int
    waiting: int
    wants_replacement: bool = False

    @property
    def calls(self) -> int:
        """All that were started."""
        return sum(self.started.values())
