"""What the command line shows of an engine while it works: metrics, a log, traces.

Each is imported only where it is asked for: together they would take as long as a fetch.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from yelpaze.http.engine import Engine
from yelpaze.model.errors import InputError
from yelpaze.process.descriptors import raise_limit, room_for_calls


def observing_options(
    log: str | None, stack: contextlib.ExitStack, secrets: Iterable[str] = ()
) -> dict[str, Any]:
    """Engine options: listeners that log to a file (`-` is stderr), and spans where a provider is set up."""
    options: dict[str, Any] = {}
    # A tracer provider is set up by whoever starts us (`opentelemetry-instrument yelpaze …`).
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        from yelpaze.observe.traces import open_telemetry  # noqa: PLC0415

        options["tracing"] = open_telemetry()
    if log is not None:
        from yelpaze.observe.log import log_events  # noqa: PLC0415
        from yelpaze.service.log import json_logger  # noqa: PLC0415

        options |= log_events(json_logger(_opened(log, stack)), secrets=secrets)
    return options


def raise_limits(engine: Engine, note: Callable[[str], object]) -> None:
    """Raise the limit of open files; `note` gets a line if fewer calls than wanted can be under way."""
    limit = raise_limit()
    room = room_for_calls(engine.concurrency)
    if room < engine.concurrency:
        wanted = f"{engine.concurrency:,}"
        note(f"at most {room:,} calls at once, not {wanted}: the limit is {limit:,} open files (ulimit -n)")


def _opened(path: str, stack: contextlib.ExitStack) -> TextIO:
    if path == "-":
        return sys.stderr
    try:
        return stack.enter_context(open(path, "a", buffering=1, encoding="utf-8"))  # noqa: PTH123
    except OSError as error:
        raise InputError(f"--log {path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def served_engine_metrics(engine: Engine, address: str | None) -> Iterator[None]:
    """Serve an engine's Prometheus metrics, and what user code writes, at `[HOST:]PORT` while inside."""
    if address is None:
        yield
        return
    from prometheus_client import REGISTRY  # noqa: PLC0415

    from yelpaze.observe.metrics import EngineCollector  # noqa: PLC0415
    from yelpaze.service.endpoint import new_registry, served_metrics  # noqa: PLC0415

    def started(url: str) -> None:
        print(f"yelpaze: metrics at {url}", file=sys.stderr)  # noqa: T201

    # The last is prometheus_client's default, which `yelpaze.timed` and the user's flow write into.
    registries = [new_registry(EngineCollector(engine)), REGISTRY]
    with served_metrics(registries, address, started=started):
        yield
