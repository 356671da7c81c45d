"""What a run's record says: as lines for a terminal, and as a page of its own."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from yelpaze.jobs import charts
from yelpaze.jobs.runs import RunRecord
from yelpaze.model.histogram import Histogram

_QUANTILES = (0.5, 0.95, 0.99)
_MINUTE = 60


def summary(record: RunRecord) -> list[tuple[str, str]]:
    """The facts, by name."""
    state = record.state if not record.reason else f"{record.state}: {record.reason}"
    times = "once" if record.sessions == 1 else f"{record.sessions} times"
    facts = [
        ("run", record.run),
        ("state", state),
        ("flow", f"{record.flow} ({record.flow_spec or 'in no file'})"),
        ("input", ", ".join(record.inputs)),
        ("output", record.output),
        ("started", when(record.started)),
        ("worked", f"{duration(record.seconds, digits=1)}, started {times}"),
        ("rows", f"{record.rows:,}: {record.succeeded:,} succeeded, {record.failed:,} failed"),
        ("requests", f"{record.requests:,}, and {record.retries:,} retries"),
    ]
    if record.repaired:
        facts.append(("repaired", f"{record.repaired:,} of the succeeded had failed, and were retried"))
    if record.failed:
        facts.append(("dead letters", record.failures_file))
    return facts


def when(seconds: float) -> str:
    """A time for people, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float, *, digits: int = 0) -> str:
    """`45s` (`45.2s` with one digit), `3m20s`, `2h05m`."""
    if round(seconds, digits) < _MINUTE:
        return f"{seconds:.{digits}f}s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes}m{rest:02}s" if minutes < _MINUTE else f"{minutes // 60}h{minutes % 60:02}m"


def latencies(record: RunRecord) -> Iterator[tuple[str, str, list[float]]]:
    """What, its name, and the quantiles of its calls in milliseconds."""
    for name, counts in record.steps.items():
        yield "step", name, _quantiles(counts)
    for name, host in record.hosts.items():
        yield "host", name, _quantiles(host.latency)


def _quantiles(counts: dict[str, float]) -> list[float]:
    histogram = Histogram.of(counts)
    return [round(histogram.quantile(share) * 1000, 2) for share in _QUANTILES]


def text(record: RunRecord) -> list[str]:
    """For a terminal."""
    lines = [f"{name + ':':<14}{value}" for name, value in summary(record)]
    if record.kinds:
        lines += ["", "failures by kind"]
        for kind, count in sorted(record.kinds.items(), key=lambda item: -item[1]):
            lines.append(f"  {kind:<20} {count:>9,}")
            for example in record.examples.get(kind, ()):
                step = f" ({example.step})" if example.step else ""
                lines.append(f"    row {example.row}{step}: {example.message[:120]}")
    lines += ["", f"{'latency of calls':<42} {'p50':>10} {'p95':>10} {'p99':>10}  ms"]
    for what, name, values in latencies(record):
        lines.append(f"  {what} {name:<35} " + " ".join(f"{value:>10,.2f}" for value in values))
    for name, host in record.hosts.items():
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(host.statuses.items()))
        answers = f"; {statuses}" if statuses else ""
        lines.append(f"  host {name}: {host.requests:,} requests, and {host.retries:,} retries{answers}")
    if record.slowest:
        slowest = ", ".join(f"{row} ({seconds:.3g} s)" for seconds, row in record.slowest[:5])
        lines += ["", f"slowest rows: {slowest}"]
    return lines


def page(record: RunRecord) -> str:
    """A page that needs nothing else: facts, throughput, latency, failures."""
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in summary(record)
    )
    parts = [
        f"<h1>{escape(record.flow)}</h1><p class='{escape(record.state)}'>{escape(record.state)}</p>",
        f"<table>{facts}</table>",
        f"<h2>Throughput over time</h2>{_throughput(record)}",
        f"<h2>Latency of calls, by step</h2>{_latency(record)}",
        f"<h2>Hosts</h2>{_hosts(record)}",
        f"<h2>Failures</h2>{_failures(record)}",
        f"<h2>Slowest rows</h2>{_slowest(record)}",
    ]
    title = f"{escape(record.run)} · Yelpaze"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _throughput(record: RunRecord) -> str:
    points = record.timeline
    times: list[float] = []
    rows: list[float] = []
    failed: list[float] = []
    before = (0.0, 0, 0)
    for point in points:
        span = point.seconds - before[0]
        if span <= 0:
            continue
        times.append(point.seconds)
        rows.append(max(0, point.rows - before[1]) / span)
        failed.append(max(0, point.failed - before[2]) / span)
        before = (point.seconds, point.rows, point.failed)
    if not times:
        return "<p>It was over before anything could be measured.</p>"
    return _wide(charts.lines(times, [("rows", rows), ("failed rows", failed)], unit="/s"))


def _wide(content: str) -> str:
    """On a narrow screen it is scrolled, not shrunk."""
    return f"<div class='wide'>{content}</div>"


def _latency(record: RunRecord) -> str:
    names = [f"p{share * 100:g}" for share in _QUANTILES]
    groups = [
        (name, list(zip(names, values, strict=True)))
        for what, name, values in latencies(record)
        if what == "step"
    ]
    return _wide(charts.bars(groups, unit="ms")) if groups else "<p>The flow makes no calls.</p>"


def _hosts(record: RunRecord) -> str:
    if not record.hosts:
        return "<p>None was called.</p>"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{host.requests:,}</td><td>{host.retries:,}</td>"
        f"<td>{host.failures:,}</td><td>"
        + escape(", ".join(f"{status}: {count:,}" for status, count in sorted(host.statuses.items())))
        + "</td><td>"
        + " / ".join(f"{value:,.4g}" for value in _quantiles(host.latency))
        + " ms</td></tr>"
        for name, host in record.hosts.items()
    )
    return _wide(
        "<table><tr><th>host</th><th>requests</th><th>retries</th><th>failures</th><th>statuses</th>"
        f"<th>p50 / p95 / p99</th></tr>{rows}</table>"
    )


def _failures(record: RunRecord) -> str:
    if not record.kinds:
        return "<p>None.</p>"
    kinds = sorted(record.kinds.items(), key=lambda item: -item[1])
    chart = charts.bars([(kind, [("", float(count))]) for kind, count in kinds], unit="rows")
    rows = "".join(
        f"<tr><td>{escape(kind)}</td><td>{example.row}</td><td>{escape(example.step or '')}</td>"
        f"<td>{escape(example.message)}</td></tr>"
        for kind, _ in kinds
        for example in record.examples.get(kind, ())
    )
    head = "<tr><th>kind</th><th>row</th><th>step</th><th>an example</th></tr>"
    return f"{_wide(chart)}{_wide(f'<table>{head}{rows}</table>')}"


def _slowest(record: RunRecord) -> str:
    if not record.slowest:
        return "<p>None has ended.</p>"
    rows = "".join(f"<tr><td>{row}</td><td>{seconds:.4g} s</td></tr>" for seconds, row in record.slowest)
    return f"<table><tr><th>row</th><th>took</th></tr>{rows}</table>"


_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#1f2933;background:#fff}
main{max-width:800px;margin:2rem auto;padding:0 1rem}
h1{margin:0 0 .2rem}h2{margin:2rem 0 .5rem;font-size:1.1rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #e4e7eb;vertical-align:top;
overflow-wrap:anywhere}
th{font-weight:600;white-space:nowrap}
svg text{fill:#1f2933}svg .quiet{fill:#7b8794}svg .rule{stroke:#e4e7eb}
.wide{overflow-x:auto}.wide>*{min-width:600px}
p.finished{color:#0b6e6e}p.interrupted,p.stopped,p.killed{color:#b91c1c}
@media(prefers-color-scheme:dark){body{background:#14181d;color:#e4e7eb}svg text{fill:#e4e7eb}
th,td{border-color:#323f4b}svg .rule{stroke:#323f4b}}
"""
