"""Prometheus metrics of a monitor, with blackbox_exporter's names for checks."""

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yelpaze.model.histogram import Histogram
from yelpaze.monitor.check import Check
from yelpaze.monitor.probe.prober import ProbeTotals
from yelpaze.monitor.records import Result

_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LABELS = ["name", "group", "location"]
_PHASES = ("resolve", "connect", "tls", "processing")
_COUNTERS = (
    ("made", "Checks made."),
    ("failed", "Checks that failed."),
    ("skipped", "Checks left out because the one before was still running."),
    ("dropped", "Results dropped for want of room while the brokers were away."),
)


class MonitorSnapshot(msgspec.Struct, frozen=True):
    """What a process of a monitor has to tell: last results by check, and counts."""

    results: list[tuple[Check, Result]]
    probes: dict[str, ProbeTotals]
    counters: dict[str, int]


class MonitorCollector(Collector):
    """Gives the snapshot of a monitor's process to a Prometheus registry."""

    def __init__(self, snapshot: Callable[[], MonitorSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """All metrics as they stand; called by the registry, from any thread."""
        snapshot = self._snapshot()
        yield from _checks(snapshot.results)
        yield from _probes(snapshot.probes)
        for name, count in snapshot.counters.items():
            text = f"{name.replace('_', ' ').capitalize()}."
            yield CounterMetricFamily(f"yelpaze_monitor_{name}", text, count)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry then does not collect in order to register."""
        return []


def _checks(results: Iterable[tuple[Check, Result]]) -> Iterator[Metric]:
    success = GaugeMetricFamily("probe_success", "Whether the last check passed.", labels=_LABELS)
    duration = GaugeMetricFamily("probe_duration_seconds", "Duration of the last check.", labels=_LABELS)
    status = GaugeMetricFamily("probe_http_status_code", "Status of the last check.", labels=_LABELS)
    phases = GaugeMetricFamily(
        "probe_http_duration_seconds", "Duration of the last check by phase.", labels=[*_LABELS, "phase"]
    )
    expiry = GaugeMetricFamily(
        "probe_ssl_earliest_cert_expiry", "When the certificate expires, in UNIX seconds.", labels=_LABELS
    )
    for check, result in results:
        labels = [check.name, check.group, result.location]
        success.add_metric(labels, float(result.success))
        duration.add_metric(labels, result.duration / 1000)
        if check.options.kind == "http":
            status.add_metric(labels, result.status)
        if result.timings is not None:
            before = 0.0
            for name, at in zip(_PHASES, result.timings, strict=True):
                phases.add_metric([*labels, name], max(0.0, at - before) / 1000)
                before = max(before, at)
            transfer = max(0.0, result.duration - before) / 1000
            phases.add_metric([*labels, "transfer"], transfer)
        if result.certificate is not None:
            expiry.add_metric(labels, result.certificate / 1000)
    yield from (success, duration, status, phases, expiry)


def _probes(probes: dict[str, ProbeTotals]) -> Iterator[Metric]:
    for field, text in _COUNTERS:
        counter = CounterMetricFamily(f"yelpaze_monitor_checks_{field}", text, labels=["location"])
        for location, totals in probes.items():
            counter.add_metric([location], getattr(totals, field))
        yield counter
    for field, text in (
        ("checks", "Checks of this probe."),
        ("running", "Checks under way."),
        ("blind", "Whether everything fails at this location."),
    ):
        gauge = GaugeMetricFamily(f"yelpaze_monitor_probe_{field}", text, labels=["location"])
        for location, totals in probes.items():
            gauge.add_metric([location], float(getattr(totals, field)))
        yield gauge
    late = HistogramMetricFamily(
        "yelpaze_monitor_lateness_seconds", "Time from a check's slot to its start.", labels=["location"]
    )
    for location, totals in probes.items():
        histogram = Histogram.of(totals.late)
        buckets = [(str(edge), float(histogram.up_to(edge))) for edge in _EDGES]
        late.add_metric([location], [*buckets, ("+Inf", float(histogram.count))], histogram.total)
    yield late
