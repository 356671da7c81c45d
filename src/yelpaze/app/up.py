"""Parts that run in one process, and meet on the bus only: composed here, run by `Service`.

`monitor run` is the monitor with hooks and the gateway behind its pages. `yelpaze up`, which serves all APIs
of hooks and live as well, will be the same with more parts.
"""

from collections.abc import Sequence
from pathlib import Path

from yelpaze.app.monitor import MonitorPart
from yelpaze.model.notice import Report
from yelpaze.monitor.config.loading import load_monitor
from yelpaze.monitor.options import MonitorOptions
from yelpaze.observe.monitor import MonitorCollector
from yelpaze.service.endpoint import new_registry
from yelpaze.service.runner import Service


async def serve_monitor(options: MonitorOptions, report: Report, metrics: str | None) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    part = MonitorPart(options, report)
    registry = new_registry(MonitorCollector(part.snapshot))
    part.registry = registry
    await Service([part], report, metrics=metrics, registries=[registry]).run()


def listen_of(files: Sequence[Path]) -> str:
    """Where the files say that pages and API are served. Raises InputError."""
    web = load_monitor(list(files)).web
    return f"{web.address}:{web.port}"
