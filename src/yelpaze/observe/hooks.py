"""Prometheus metrics of hooks, summed over its processes."""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.hooks.delivery.statistics import HooksTotals
from yelpaze.model.histogram import Histogram

_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_COUNTERS = (
    ("accepted", "Messages accepted."),
    ("disabled", "Endpoints disabled: nothing but failure for days, or 410 Gone."),
    ("expired", "Deliveries that had expired before an attempt."),
    ("refused", "Results that were not written because the shard had another owner."),
    ("outages", "Times that the store could not be used."),
)
_GAUGES = (
    ("under_way", "Attempts under way."),
    ("backlog", "Deliveries in memory that wait for their turn."),
)
_LATENCIES = (
    ("first_attempt", "Time from the acceptance of a message to its first attempt."),
    ("delivery", "Time from the acceptance of a message to its delivery."),
)


class HooksCollector(Collector):
    """Gives the totals of hooks to a Prometheus registry."""

    def __init__(self, totals: Callable[[], HooksTotals]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        """All metrics as they stand; called by the registry, from any thread."""
        totals = self._totals()
        attempts = CounterMetricFamily(
            "yelpaze_hooks_attempts",
            "Attempts, by kind of endpoint, status and reason of failure.",
            labels=["kind", "status", "reason"],
        )
        for name, count in totals.attempts.items():
            attempts.add_metric(name.split("|", 2), count)
        yield attempts
        for name, text in _COUNTERS:
            yield CounterMetricFamily(f"yelpaze_hooks_{name}", text, getattr(totals, name))
        for name, text in _GAUGES:
            yield GaugeMetricFamily(f"yelpaze_hooks_{name}", text, getattr(totals, name))
        ages = GaugeMetricFamily(
            "yelpaze_hooks_queue_age_seconds",
            "Time that the oldest delivery of a shard has waited for its turn.",
            labels=["shard"],
        )
        for shard, age in sorted(totals.queue_ages.items()):
            ages.add_metric([str(shard)], age)
        yield ages
        for (name, text), counts in zip(_LATENCIES, (totals.first_attempt, totals.delivered), strict=True):
            yield _histogram(f"yelpaze_hooks_{name}_seconds", text, Histogram.of(counts))


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    buckets = [(str(edge), float(histogram.up_to(edge))) for edge in _EDGES]
    family.add_metric([], [*buckets, ("+Inf", float(histogram.count))], histogram.total)
    return family
