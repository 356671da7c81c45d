"""Prometheus metrics of engines, collected only when somebody asks for them."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.http.engine import Engine
from yelpaze.model.histogram import Histogram
from yelpaze.model.statistics import HostStatistics

_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STATES = {"closed": 0, "half_open": 1, "open": 2, "down": 3}
_COUNTERS = {
    "requests": "Calls made, each counted once however many attempts it took.",
    "attempts": "Attempts sent.",
    "retries": "Attempts after the first.",
    "hedges": "Attempts made because the first was slow.",
    "failures": "Attempts that failed: no answer, or one that says that the host is unwell.",
}
_GAUGES = {
    "in_flight": "Attempts under way.",
    "waiting": "Calls that wait for a slot, a pause or a breaker.",
    "limit": "Attempts at once that are allowed now.",
}


class EngineCollector(Collector):
    """Gives an engine's statistics to a Prometheus registry.

    >>> from prometheus_client import CollectorRegistry
    >>> from yelpaze import Engine, EngineCollector
    >>> registry = CollectorRegistry()
    >>> registry.register(EngineCollector(Engine()))
    """

    def __init__(self, *engines: Engine) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        """All metrics as they are now; called by the registry, from any thread."""
        hosts = [item for engine in self._engines for item in engine.statistics().hosts.items()]
        yield from _plain(hosts)
        responses = CounterMetricFamily(
            "yelpaze_http_responses", "Answers by status.", labels=["host", "status"]
        )
        for name, host in hosts:
            for status, count in host.statuses.items():
                responses.add_metric([name, status], count)
        yield responses
        yield _histogram(
            "attempt",
            "Time of an attempt that was answered.",
            ((name, host.latency) for name, host in hosts),
        )
        yield _histogram(
            "queue",
            "Time that a call waited to start, of those that had to.",
            ((name, host.queueing) for name, host in hosts),
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry then does not collect in order to register."""
        return []


def _plain(hosts: list[tuple[str, HostStatistics]]) -> Iterator[Metric]:
    for field, text in _COUNTERS.items():
        counter = CounterMetricFamily(f"yelpaze_http_{field}", text, labels=["host"])
        for name, host in hosts:
            counter.add_metric([name], getattr(host, field))
        yield counter
    for field, text in _GAUGES.items():
        gauge = GaugeMetricFamily(f"yelpaze_http_{field}", text, labels=["host"])
        for name, host in hosts:
            gauge.add_metric([name], getattr(host, field))
        yield gauge
    state = GaugeMetricFamily(
        "yelpaze_http_breaker_state", "0 closed, 1 half-open, 2 open, 3 given up.", labels=["host"]
    )
    pause = GaugeMetricFamily(
        "yelpaze_http_pause_seconds", "How long no attempt starts yet.", labels=["host"]
    )
    for name, host in hosts:
        state.add_metric([name], _STATES[host.state])
        pause.add_metric([name], host.paused)
    yield state
    yield pause


def _histogram(what: str, text: str, histograms: Iterable[tuple[str, Histogram]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"yelpaze_http_{what}_duration_seconds", text, labels=["host"])
    for name, histogram in histograms:
        buckets = [(str(edge), float(histogram.up_to(edge))) for edge in _EDGES]
        family.add_metric([name], [*buckets, ("+Inf", float(histogram.count))], histogram.total)
    return family
