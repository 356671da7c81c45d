"""Metrics, logs, spans and timed: what others read of us."""

import asyncio
import contextlib
import sys

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import CapturingLogger

import yelpaze
from support.simulated import Answer, Simulation
from yelpaze import EngineCollector, MisuseError, Retry, get, log_events, open_telemetry

API = "http://10.0.0.1/x"


def fails_once():
    seen = []

    def server(_url, _now):
        seen.append(1)
        return Answer(503 if len(seen) == 1 else 200, 0.03)

    return server


async def some_calls(engine):
    await engine.send(get(API))
    await asyncio.gather(*(engine.send(get(API)) for _ in range(9)))


def test_metrics_are_what_the_statistics_say():
    sim = Simulation(fails_once(), per_host=4)
    sim.run(some_calls)
    registry = CollectorRegistry()
    registry.register(EngineCollector(sim.engine))
    samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "host"}
            samples[sample.name, *labels.values()] = sample.value
            assert sample.labels["host"] == "http://10.0.0.1:80"
    assert samples["yelpaze_http_requests_total",] == 10
    assert samples["yelpaze_http_attempts_total",] == 11
    assert samples["yelpaze_http_retries_total",] == 1
    assert samples["yelpaze_http_failures_total",] == 1
    assert samples["yelpaze_http_responses_total", "200"] == 10
    assert samples["yelpaze_http_responses_total", "503"] == 1
    assert samples["yelpaze_http_breaker_state",] == 0
    assert samples["yelpaze_http_attempt_duration_seconds_count",] == 11
    assert samples["yelpaze_http_attempt_duration_seconds_bucket", "0.025"] == 0
    assert samples["yelpaze_http_attempt_duration_seconds_bucket", "0.05"] == 11
    assert samples["yelpaze_http_queue_duration_seconds_count",] == 5


def test_statistics_have_quantiles_for_each_host():
    sim = Simulation(lambda *_: Answer(200, 0.2))
    sim.run(some_calls)
    host = sim.engine.statistics().hosts["http://10.0.0.1:80"]
    assert host.latency.quantile(0.99) == pytest.approx(0.2, rel=0.03)
    before = host.latency.count
    assert before == 10  # a snapshot, not a view


def test_events_have_the_trace_id():
    logger = CapturingLogger()
    log = structlog.wrap_logger(logger, processors=[])
    sim = Simulation(lambda *_: Answer(500), **{**log_events(log), "retry": Retry(attempts=2)})
    outcome = sim.run(lambda engine: engine.send(get(API)))
    said = [(call.method_name, call.kwargs) for call in logger.calls]
    assert [(level, event["event"]) for level, event in said] == [
        ("debug", "attempt.failed"),
        ("debug", "attempt.failed"),
        ("warning", "call.failed"),
    ]
    assert said[-1][1]["trace_id"] == outcome.trace_id
    assert said[-1][1]["attempts"] == 2


def test_a_breaker_that_opens_is_logged():
    logger = CapturingLogger()
    sim = Simulation(
        lambda *_: Answer(500), **{**log_events(structlog.wrap_logger(logger, processors=[])), "retry": None}
    )

    async def main(engine):
        await asyncio.gather(*(engine.send(get(API)) for _ in range(30)))

    sim.run(main)
    opened = [call.kwargs for call in logger.calls if call.kwargs["event"] == "breaker.open"]
    assert opened == [{"event": "breaker.open", "host": "http://10.0.0.1:80", "seconds": 30.0}]


@pytest.fixture
def spans():
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def test_spans_are_those_on_the_wire(spans):
    provider, exporter = spans
    sim = Simulation(fails_once(), tracing=open_telemetry(provider))

    async def main(engine):
        with provider.get_tracer("test").start_as_current_span("page"):
            return await engine.send(get("http://me:secret@10.0.0.1/x"))

    outcome = sim.run(main)
    by_name = {}
    for span in exporter.get_finished_spans():
        by_name.setdefault(span.kind.name, []).append(span)
    (call, page) = by_name["INTERNAL"]
    attempts = by_name["CLIENT"]
    assert page.name == "page"
    assert call.parent.span_id == page.context.span_id
    assert [span.parent.span_id for span in attempts] == [call.context.span_id] * 2
    assert [span.attributes["http.response.status_code"] for span in attempts] == [503, 200]
    assert attempts[0].attributes["error.type"] == "503"
    assert [span.attributes["http.request.resend_count"] for span in attempts] == [0, 1]
    assert outcome.trace_id == f"{page.context.trace_id:032x}"
    assert [sent.headers["traceparent"] for sent in sim.requests] == [
        f"00-{outcome.trace_id}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        for span in attempts
    ]
    assert "secret" not in call.attributes["url.full"]


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INCOMING = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}


def remote_span(state, trace_id=TRACE):
    """A span as a server's instrumentation makes it from the request that it serves."""
    context = trace.SpanContext(
        int(trace_id, 16),
        int("2" * 16, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        trace_state=trace.TraceState.from_header([state]),
    )
    return trace.use_span(trace.NonRecordingSpan(context))


def sent_by(tracing, headers, current=None):
    """The outcome of a call that is sent twice, and the headers of both attempts."""
    sim = Simulation(fails_once(), tracing=tracing)

    async def main(engine):
        with current or contextlib.nullcontext():
            return await engine.send(get("http://10.0.0.1/", headers=headers))

    outcome = sim.run(main)
    assert outcome.ok
    return outcome, [sent.headers for sent in sim.requests]


@pytest.mark.parametrize(
    ("flags", "sent_flags", "is_recorded"),
    [("01", "01", True), ("03", "03", True), ("00", "00", False), ("02", "02", False)],
)
def test_a_request_that_carries_a_context_goes_on_with_it(spans, flags, sent_flags, is_recorded):
    provider, exporter = spans
    parent = f"cc-{TRACE}-{SPAN}-{flags}-more "
    outcome, sent = sent_by(
        open_telemetry(provider), {**INCOMING, "TraceParent": parent, "traceparent": parent}
    )
    assert outcome.trace_id != TRACE  # given twice, it is none
    exporter.clear()
    outcome, sent = sent_by(open_telemetry(provider), {**INCOMING, "traceparent": parent})
    assert outcome.trace_id == TRACE
    parents = [headers["traceparent"].split("-") for headers in sent]
    assert [(one[1], one[3]) for one in parents] == [(TRACE, sent_flags)] * 2
    assert len({one[2] for one in parents} - {SPAN}) == 2
    assert [headers["tracestate"] for headers in sent] == [INCOMING["tracestate"]] * 2
    called = [span for span in exporter.get_finished_spans() if span.kind.name == "INTERNAL"]
    assert [f"{span.parent.span_id:016x}" for span in called] == [SPAN] * is_recorded


@pytest.mark.parametrize("parent", ["broken", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01"])
def test_a_broken_context_is_not_gone_on_with(spans, parent):
    outcome, sent = sent_by(open_telemetry(spans[0]), {**INCOMING, "traceparent": parent})
    assert outcome.trace_id != TRACE
    assert [headers["traceparent"][53:] for headers in sent] == ["03"] * 2  # the SDK's ids are random
    assert not any("tracestate" in headers for headers in sent)


@pytest.mark.parametrize(
    ("state", "headers", "sent_state"),
    [
        ("a=1,b=2", {}, "a=1,b=2"),
        ("a=1", INCOMING, "a=1"),  # of one trace, the span's own is newer
        ("", INCOMING, INCOMING["tracestate"]),
        ("", {**INCOMING, "tracestate": "not a list"}, "not a list"),
        ("", {**INCOMING, "traceparent": f"00-{'1' * 32}-{SPAN}-01"}, None),
        ("", {}, None),
    ],
)
def test_the_current_span_goes_before_the_request_and_its_state_goes_on(spans, state, headers, sent_state):
    outcome, sent = sent_by(open_telemetry(spans[0]), headers, remote_span(state))
    assert outcome.trace_id == TRACE
    assert [headers.get("tracestate") for headers in sent] == [sent_state] * 2
    assert len({headers["traceparent"][36:52] for headers in sent} - {SPAN, "2" * 16}) == 2


@pytest.mark.parametrize("current", [None, "2" * 16])
def test_without_an_sdk_the_incoming_context_is_carried_on(current):
    outcome, sent = sent_by(open_telemetry(), INCOMING, remote_span("a=1") if current else None)
    assert outcome.trace_id == TRACE
    assert [headers["tracestate"] for headers in sent] == ["a=1" if current else INCOMING["tracestate"]] * 2


def test_cancelled_calls_leave_no_span_open(spans):
    provider, exporter = spans
    sim = Simulation(lambda *_: Answer(200, 5), tracing=open_telemetry(provider))

    async def main(engine):
        task = asyncio.ensure_future(engine.send(get(API)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0.1)

    sim.run(main)
    assert len(exporter.get_finished_spans()) == 2


def test_without_an_sdk_the_engine_makes_its_own_ids():
    sim = Simulation(lambda *_: Answer(), tracing=open_telemetry())
    outcome = sim.run(lambda engine: engine.send(get(API)))
    assert len(outcome.trace_id) == 32
    assert int(outcome.trace_id, 16)


def test_without_the_package_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MisuseError, match="pip install opentelemetry-api"):
        open_telemetry()


async def test_timed_counts_success_and_failure():
    registry, logger = CollectorRegistry(), CapturingLogger()
    log = structlog.wrap_logger(logger, processors=[])
    options = {"registry": registry, "logger": log}

    @yelpaze.timed("page", **options)
    async def page(fails):
        """Kept."""
        if fails:
            raise ValueError("no")
        return 7

    @yelpaze.timed("sum", **options)
    def total(*numbers):
        return sum(numbers)

    assert await page(False) == 7
    with pytest.raises(ValueError, match="no"):
        await page(True)
    assert total(1, 2) == 3
    with yelpaze.timed("block", **options):
        pass
    async with yelpaze.timed("block", **options):
        pass

    def count(name, outcome):
        return registry.get_sample_value("yelpaze_timed_seconds_count", {"name": name, "outcome": outcome})

    assert (count("page", "success"), count("page", "failure")) == (1, 1)
    assert (count("sum", "success"), count("block", "success")) == (1, 2)
    assert page.__doc__ == "Kept."
    failed = [call for call in logger.calls if call.method_name == "warning"]
    assert failed[0].kwargs["error"] == "ValueError: no"
    with pytest.raises(TypeError, match="generator"):

        @yelpaze.timed("rows", **options)
        def rows():
            yield 1


async def test_timed_calls_may_overlap():
    registry = CollectorRegistry()

    @yelpaze.timed("sleep", registry=registry)
    async def sleeps(event):
        await event.wait()

    events = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.ensure_future(sleeps(event)) for event in events]
    await asyncio.sleep(0)
    for event in events:
        event.set()
    await asyncio.gather(*tasks)
    assert (
        registry.get_sample_value("yelpaze_timed_seconds_count", {"name": "sleep", "outcome": "success"}) == 3
    )


async def test_timed_without_a_name_takes_the_functions():
    @yelpaze.timed
    def bare():
        return 1

    @yelpaze.timed
    async def bare_too():
        return 2

    def value(function):
        labels = {"name": function.__qualname__, "outcome": "success"}
        return REGISTRY.get_sample_value("yelpaze_timed_seconds_count", labels)

    assert (bare(), await bare_too(), await bare_too()) == (1, 2, 2)
    assert (value(bare), value(bare_too)) == (1.0, 2.0)
    assert bare.__name__ == "bare"
