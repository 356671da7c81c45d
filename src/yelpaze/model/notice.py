"""What a long-lived command reports to its operator: an event with a kind and a level."""

from collections.abc import Callable
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How urgent a notice is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Notice(msgspec.Struct, frozen=True):
    """One notice. `kind` names the event (`process.lost`) for programs, `text` describes it for people.

    `data` are fields for programs; `text` says all of it.

    >>> str(Notice("broker.away", "Redis is away", Level.WARNING))
    'warning: Redis is away'
    """

    kind: str
    text: str
    level: Level = Level.INFO
    data: dict[str, str | int | float] = {}

    def __str__(self) -> str:
        return self.text if self.level is Level.INFO else f"{self.level}: {self.text}"


Report = Callable[[Notice], None]
