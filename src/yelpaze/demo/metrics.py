"""Prometheus metrics of the demo services."""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.demo.server import Server


class DemoCollector(Collector):
    """Gives a server's counts to a Prometheus registry; none before it has started."""

    def __init__(self, server: Callable[[], Server | None]) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """All metrics as they stand; called by the registry, from any thread."""
        server = self._server()
        if server is None:
            return
        answers = CounterMetricFamily("yelpaze_demo_answers", "Answers, by status.", labels=["status"])
        for status, count in sorted(server.answered.items()):
            answers.add_metric([str(status)], count)
        yield answers
        connections = list(server.connections)
        under_way = sum(connection.is_busy for connection in connections)
        yield GaugeMetricFamily("yelpaze_demo_connections", "Open connections.", len(connections))
        yield GaugeMetricFamily("yelpaze_demo_under_way", "Requests that wait for their answer.", under_way)
