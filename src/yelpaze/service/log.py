"""One line an event: text for people, or JSON for machines.

    yelpaze: warning: Redis is away: …
    {"event": "broker.away", "message": "Redis is away: …", "service": "live", "level": "warning", …}

A notice's kind is the event, and its `data` are fields of the line. What other libraries log by the
standard library's `logging` goes the same way.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

from yelpaze.model.errors import MisuseError
from yelpaze.model.notice import Level, Notice, NoticeHandler, Report

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
_Event = MutableMapping[str, Any]


def json_logger(file: TextIO, **fields: Any) -> Any:
    """A structlog logger that writes JSON Lines."""
    import structlog  # noqa: PLC0415  takes a tenth of a second

    return structlog.wrap_logger(
        structlog.PrintLogger(file),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
        **fields,
    )


def text_logger(file: TextIO, **fields: Any) -> Any:
    """A structlog logger that writes `yelpaze: MESSAGE`."""
    import structlog  # noqa: PLC0415

    return structlog.wrap_logger(
        structlog.PrintLogger(file), processors=[structlog.processors.add_log_level, _as_text], **fields
    )


def _as_text(_logger: Any, _method: str, event: _Event) -> str:
    level = "" if event["level"] == Level.INFO else f"{event['level']}: "
    return f"yelpaze: {level}{event['message']}"


def reporting(logger: Any) -> Report:
    """Return a report that logs notices."""

    def report(notice: Notice) -> None:
        write: Callable[..., Any] = getattr(logger, notice.level.value)
        write(notice.kind, message=notice.text, **notice.data)

    return report


def service_report(
    service: str, *, form: Format = "text", quiet: bool = False, file: TextIO | None = None
) -> Report:
    """The report of a long-running command: lines on stderr; with `quiet`, only warnings and errors."""
    if form not in FORMATS:
        raise MisuseError(f"log_format takes text or json: {form!r}")
    out = sys.stderr if file is None else file
    report = reporting((json_logger if form == "json" else text_logger)(out, service=service))
    if not quiet:
        return report
    return lambda notice: report(notice) if notice.level is not Level.INFO else None


def forward_logging(report: Report) -> None:
    """Log what libraries log by the standard library, from warnings on, through this report."""
    handlers = [NoticeHandler(report)]
    logging.basicConfig(handlers=handlers, level=logging.WARNING, format="%(message)s", force=True)
