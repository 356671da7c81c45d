"""Prometheus metrics of a gRPC server in many processes, summed; named as most gRPC servers name them."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.grpc.control import BUCKETS
from yelpaze.grpc.multi_process import MultiProcessServer

_METHOD = ["grpc_service", "grpc_method"]


class ServerCollector(Collector):
    """Gives a server's totals to a Prometheus registry."""

    def __init__(self, server: MultiProcessServer) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """All metrics as the processes last reported them; called by the registry, from any thread."""
        totals = self._server.totals()
        started = CounterMetricFamily("grpc_server_started", "Calls that began.", labels=_METHOD)
        for method, count in totals.started.items():
            started.add_metric(method.split("/"), count)
        yield started
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls that ended, by status.", labels=[*_METHOD, "grpc_code"]
        )
        for (method, status), count in totals.handled.items():
            handled.add_metric([*method.split("/"), _code(status)], count)
        yield handled
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time that calls took.", labels=_METHOD
        )
        edges = [*map(str, BUCKETS), "+Inf"]
        for method, values in totals.seconds.items():
            buckets = list(zip(edges, accumulate(values[:-1]), strict=True))
            seconds.add_metric(method.split("/"), buckets, values[-1])
        yield seconds
        for name, text, value in (
            ("running", "Calls under way.", totals.running),
            ("waiting", "Calls that wait for a thread.", totals.waiting),
            ("processes", "Processes that serve.", totals.processes),
        ):
            yield GaugeMetricFamily(f"yelpaze_server_{name}", text, value)
        restarts = CounterMetricFamily(
            "yelpaze_server_restarts", "Processes that were replaced.", labels=["reason"]
        )
        for reason, count in totals.restarts.items():
            restarts.add_metric([reason], count)
        yield restarts


def _code(status: str) -> str:
    """OK, and otherwise as gRPC's documents write them: ResourceExhausted."""
    return status if status == "OK" else status.title().replace("_", "")
