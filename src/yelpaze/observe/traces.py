"""OpenTelemetry spans: one for a call, one for each attempt, whose ids are those on the wire.

    Engine(tracing=open_telemetry())

The names of attributes are those of OpenTelemetry's semantic conventions for HTTP clients.
A call is a child of the span that is current where it was made; where none is, of the trace context that
its request's own headers carry.
"""

from typing import Any
from urllib.parse import urlsplit

from yelpaze.http.options import CallSpan, Tracing
from yelpaze.http.tracer import TraceContext, incoming_context
from yelpaze.model.errors import MisuseError
from yelpaze.model.outcome import Attempt, Outcome
from yelpaze.model.request import Request
from yelpaze.model.url import shown
from yelpaze.version import __version__


def open_telemetry(tracer_provider: Any = None) -> Tracing:
    """Tracing for an Engine, by the global tracer provider or the one given.

    Raises MisuseError where the package opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415  optional
    except ModuleNotFoundError:
        raise MisuseError("open_telemetry() needs a package: pip install opentelemetry-api") from None
    return _Tracing(trace, trace.get_tracer("yelpaze", __version__, tracer_provider))


class _Tracing:
    def __init__(self, trace: Any, tracer: Any) -> None:
        self._trace = trace
        self._tracer = tracer

    def begin(self, request: Request) -> CallSpan | None:
        parts = urlsplit(request.url)
        incoming = incoming_context(request)
        current = self._trace.get_current_span().get_span_context()
        is_carried_on = incoming is not None and not current.is_valid
        span = self._tracer.start_span(
            request.method,
            context=self._context_of(incoming) if incoming is not None and is_carried_on else None,
            kind=self._trace.SpanKind.INTERNAL,
            attributes={
                "http.request.method": request.method,
                "url.full": shown(request.url),
                "server.address": parts.hostname or "",
            },
        )
        # Without an SDK a span has no ids of its own: the engine then makes them, as without tracing.
        made = span.get_span_context()
        if not made.is_valid or (incoming is not None and incoming.parent[36:52] == f"{made.span_id:016x}"):
            return None
        # A tracestate must go on within its trace, also one that this package cannot read (W3C Trace Context
        # §3.5).
        is_same_trace = incoming is not None and incoming.parent[3:35] == f"{made.trace_id:032x}"
        state = incoming.state if incoming is not None and is_same_trace else ""
        return _CallSpan(self._trace, self._tracer, span, state)

    def _context_of(self, incoming: TraceContext) -> Any:
        trace = self._trace
        _, trace_id, span_id, flags = incoming.parent.split("-")
        remote = trace.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(int(flags, 16)),
            trace_state=trace.TraceState.from_header([incoming.state]),
        )
        return trace.set_span_in_context(trace.NonRecordingSpan(remote))


class _CallSpan:
    def __init__(self, trace: Any, tracer: Any, span: Any, state: str) -> None:
        self._trace = trace
        self._tracer = tracer
        self._span = span
        self._state = state  # of the request itself
        self._open: dict[TraceContext, Any] = {}
        self._number = 0
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def begin_attempt(self, method: str) -> TraceContext:
        self._number += 1
        span = self._tracer.start_span(
            method,
            context=self._trace.set_span_in_context(self._span),
            kind=self._trace.SpanKind.CLIENT,
            attributes={"http.request.method": method, "http.request.resend_count": self._number - 1},
        )
        made = span.get_span_context()
        context = TraceContext(
            f"00-{self.trace_id}-{made.span_id:016x}-{int(made.trace_flags):02x}",
            made.trace_state.to_header() or self._state,
        )
        self._open[context] = span
        return context

    def end_attempt(self, context: TraceContext, attempt: Attempt) -> None:
        span = self._open.pop(context, None)
        if span is not None:
            self._finish(span, attempt.status, None if attempt.error is None else str(attempt.error.kind))

    def end(self, outcome: Outcome | None) -> None:
        for span in self._open.values():
            span.end()
        if outcome is not None:
            kind = None if outcome.error is None else str(outcome.error.kind)
            self._finish(self._span, outcome.status, kind)
        else:
            self._span.end()

    def _finish(self, span: Any, status: int, error: str | None) -> None:
        if status:
            span.set_attribute("http.response.status_code", status)
        if error is not None:
            span.set_attribute("error.type", str(status) if error == "status" else error)
            span.set_status(self._trace.StatusCode.ERROR, error)
        span.end()
