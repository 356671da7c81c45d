"""`/metrics`, `/healthz` and `/readyz` over HTTP, in a thread of their own.

The thread answers whatever the event loop does, so a service's `/healthz` asks the loop: one that is stuck
does not answer within a second, which is 503.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import TCPServer, ThreadingMixIn
from threading import Event, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.model.errors import InputError, MisuseError

_LAST_PORT = 65_535
_ALIVE_SECONDS = 1.0
_Start = Callable[[str, list[tuple[str, str]]], Any]


def new_registry(*collectors: Collector) -> CollectorRegistry:
    """A registry with these, and the figures of this process."""
    registry = CollectorRegistry()
    for make in (ProcessCollector, PlatformCollector, GCCollector):
        make(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Without the look-up of a name for the address, which may take as long as DNS does.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing for a scrape."""


@contextlib.contextmanager
def served_metrics(
    registries: Iterable[CollectorRegistry],
    address: str | None,
    *,
    is_alive: Callable[[], bool] = lambda: True,
    is_ready: Callable[[], bool] = lambda: True,
    started: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Serve at `[HOST:]PORT` while inside; nowhere without an address. `started` is called with the URL.

    A port alone is for this machine, `:PORT` for all of its addresses.

    Raises InputError and MisuseError for an address that can't be.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _LAST_PORT:
        raise MisuseError(f"--metrics takes PORT or HOST:PORT: {address!r}")
    is_everywhere = address.startswith(":") or host == "*"
    host = "0.0.0.0" if is_everywhere else host.strip("[]") or "127.0.0.1"  # noqa: S104  asked for
    application = _application(list(registries), is_alive, is_ready)
    try:
        server = make_server(host, int(port), application, _family_of(host), _Handler)
    except OSError as error:
        raise InputError(f"--metrics {address}: cannot listen there: {error.strerror}") from None
    thread = Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    started(f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _family_of(host: str) -> type[_Server]:
    return type("_Server6", (_Server,), {"address_family": socket.AF_INET6}) if ":" in host else _Server


def _application(
    registries: list[CollectorRegistry], is_alive: Callable[[], bool], is_ready: Callable[[], bool]
) -> Any:
    metrics = make_wsgi_app(_Together(registries))

    def found(environ: dict[str, Any], start: _Start) -> Any:
        path = environ.get("PATH_INFO", "/")
        if path in ("/metrics", "/"):
            return metrics({**environ, "REQUEST_METHOD": "GET"}, start)
        if path == "/healthz":
            return _respond(start, good=is_alive())
        if path == "/readyz":
            return _respond(start, good=is_ready())
        start("404 Not Found", [("Content-Type", "application/json")])
        return [b'{"error":{"code":404,"message":"there are /metrics, /healthz and /readyz"}}']

    def answer(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        """The answer; to HEAD with the length that GET's has, and no body (RFC 9110, section 9.3.2)."""
        head: list[Any] = []
        body = b"".join(found(environ, lambda *said: head.extend(said)))
        status, headers = head
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer


class _Together:
    """Several registries as one: a service's own, and the one that a user's code writes into."""

    def __init__(self, registries: Sequence[Any]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        seen: set[str] = set()
        for registry in self._registries:
            for metric in registry.collect():
                if metric.name not in seen:
                    seen.add(metric.name)
                    yield metric

    def restricted_registry(self, names: Iterable[str]) -> "_Together":
        return _Together([registry.restricted_registry(names) for registry in self._registries])


def _respond(start: _Start, *, good: bool) -> list[bytes]:
    start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "application/json")])
    return [b'{"status":"ok"}' if good else b'{"status":"unavailable"}']


def liveness_of(loop: asyncio.AbstractEventLoop) -> Callable[[], bool]:
    """A check, for other threads, of whether that event loop runs something within a second."""

    def is_alive() -> bool:
        alive = Event()
        try:
            loop.call_soon_threadsafe(alive.set)
        except RuntimeError:  # it has been closed
            return False
        return alive.wait(_ALIVE_SECONDS)

    return is_alive
