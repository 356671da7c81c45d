"""What the command line shows of an engine while it works: metrics, a log, traces.

Each is imported only where it is asked for: together they would take as long as a fetch.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from yelpaze.http.engine import Engine
from yelpaze.live.core.statistics import NodeTotals
from yelpaze.model.errors import InputError, MisuseError


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

        options |= log_events(_logger(_opened(log, stack)), secrets=secrets)
    return options


def _opened(path: str, stack: contextlib.ExitStack) -> TextIO:
    if path == "-":
        return sys.stderr
    try:
        return stack.enter_context(open(path, "a", buffering=1, encoding="utf-8"))  # noqa: PTH123
    except OSError as error:
        raise InputError(f"--log {path}: cannot be written: {error.strerror}") from None


def _logger(file: TextIO) -> Any:
    import structlog  # noqa: PLC0415

    return structlog.wrap_logger(
        structlog.PrintLogger(file),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
    )


@contextlib.contextmanager
def served_metrics(engine: Engine, address: str | None) -> Iterator[None]:
    """Serve an engine's Prometheus metrics at `[HOST:]PORT` while inside."""
    if address is None:
        yield
        return
    from yelpaze.observe.metrics import EngineCollector  # noqa: PLC0415

    with served_collector(EngineCollector(engine), address):
        yield


@contextlib.contextmanager
def served_collector(collector: Any, address: str) -> Iterator[None]:
    """Serve a collector's Prometheus metrics, and the process's own, at `[HOST:]PORT` while inside."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004
        raise MisuseError(f"--metrics takes PORT or HOST:PORT: {address!r}")
    from prometheus_client import REGISTRY, start_http_server  # noqa: PLC0415

    REGISTRY.register(collector)
    try:
        try:
            server, thread = start_http_server(int(port), host or "127.0.0.1")
        except OSError as error:
            raise InputError(f"--metrics {address}: cannot listen there: {error.strerror}") from None
        print(f"metrics at http://{host or '127.0.0.1'}:{server.server_port}/metrics", file=sys.stderr)  # noqa: T201
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    finally:
        REGISTRY.unregister(collector)


@contextlib.contextmanager
def served_live_metrics(totals: Callable[[], NodeTotals], address: str | None) -> Iterator[None]:
    """Serve a gateway's Prometheus metrics at `[HOST:]PORT` while inside, if there is an address."""
    if address is None:
        yield
        return
    from yelpaze.observe.live import LiveCollector  # noqa: PLC0415

    with served_collector(LiveCollector(totals), address):
        yield
