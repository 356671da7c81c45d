"""Who does the CPU work: how people say it."""

from collections.abc import Iterable

import msgspec

from yelpaze.grpc.target import Security, Target
from yelpaze.model.errors import MisuseError

LOCAL = "local"


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """Which workers do the CPU work, and how they are reached.

    - `targets`: `grpc://host:port`, `grpcs://host:port`, `unix:path`, all processes behind them being used;
      or `local`, one that this machine's clients share: it is started if there is none.
    - `hedge`: seconds after which a call that has no result is made a second time, at another worker; the
      function must bear that. None: never.
    - `security`: TLS for `grpcs://`.
    """

    targets: tuple[str, ...]
    hedge: float | None = None
    security: Security | None = None

    def __post_init__(self) -> None:
        if self.hedge is not None and not self.hedge > 0:
            raise MisuseError(f"hedge takes seconds, more than 0: {self.hedge!r}")
        if not self.targets or not isinstance(self.targets, tuple):
            raise MisuseError("give at least one worker, in a tuple")
        for target in self.targets:
            if target != LOCAL:
                Target.parse(target)


Who = int | str | Iterable[str] | Workers


def who(workers: Who) -> "int | Workers":
    """A number of processes, or workers. Raises MisuseError, InputError."""
    if isinstance(workers, bool):
        raise MisuseError("workers takes a number of processes, or addresses of workers")
    if isinstance(workers, int):
        if workers < 0:
            raise MisuseError("workers takes a number of processes, 0 or more")
        return workers
    if isinstance(workers, Workers):
        return workers
    targets = workers.split(",") if isinstance(workers, str) else list(workers)
    return Workers(targets=tuple(target.strip() for target in targets if target.strip()))
