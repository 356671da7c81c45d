"""Prometheus metrics of a live gateway, summed over its processes."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.live.core.statistics import NodeTotals

_GAUGES = (
    ("users", "Users that are connected."),
    ("channels", "Channels that have subscribers."),
    ("subscriptions", "Subscriptions."),
)
_COUNTERS = (
    ("published", "Publications taken from clients and the server API."),
    ("delivered", "Publications given to connections."),
    ("missed", "Channels' streams that could not be made whole again: their readers were told."),
    ("outages", "Times that the broker was away and came back."),
)
_LABELLED = (
    ("accepted", "transport", "Connections that were made."),
    ("closed", "code", "Connections that ended, by close code."),
    ("commands", "method", "Commands of clients that were done."),
    ("refused", "code", "Commands of clients that were refused, by error code."),
    ("rejected", "status", "HTTP requests and handshakes that were refused, by status."),
)


class LiveCollector(Collector):
    """Gives a gateway's totals to a Prometheus registry."""

    def __init__(self, totals: Callable[[], NodeTotals]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        """All metrics as they stand; called by the registry, from any thread."""
        totals = self._totals()
        open_now = GaugeMetricFamily(
            "yelpaze_live_connections", "Connections that are open.", labels=["transport"]
        )
        for name, count in totals.connections.items():
            open_now.add_metric([name], count)
        yield open_now
        for name, text in _GAUGES:
            yield GaugeMetricFamily(f"yelpaze_live_{name}", text, getattr(totals, name))
        for name, text in _COUNTERS:
            yield CounterMetricFamily(f"yelpaze_live_{name}", text, getattr(totals, name))
        for name, label, text in _LABELLED:
            counter = CounterMetricFamily(f"yelpaze_live_{name}", text, labels=[label])
            values: Mapping[object, int] = getattr(totals, name)
            for value, count in values.items():
                counter.add_metric([str(value)], count)
            yield counter
