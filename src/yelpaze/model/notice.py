"""What a long-lived command reports to its operator: an event with a kind and a level."""

import logging
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

_LEVELS = {logging.WARNING: Level.WARNING, logging.ERROR: Level.ERROR, logging.CRITICAL: Level.ERROR}
_MOST_TEXT = 16 << 10  # of a traceback, whose ends say most


class NoticeHandler(logging.Handler):
    """Reports what is logged by the standard library's `logging`, from warnings on, as `log.NAME`."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = _LEVELS.get(record.levelno, Level.WARNING)
            self._report(Notice(f"log.{record.name}", _cut(self.format(record)), level))
        except Exception:  # noqa: BLE001  as logging's own handlers: it must not raise
            self.handleError(record)


def _cut(text: str) -> str:
    half = _MOST_TEXT // 2
    return text if len(text) <= _MOST_TEXT else f"{text[:half]}\n…\n{text[-half:]}"
