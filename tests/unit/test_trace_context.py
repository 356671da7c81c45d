"""The rules of W3C Trace Context for what comes in with a request and what goes out.

Section numbers are those of Level 2, https://www.w3.org/TR/trace-context-2/.
"""

import random
import re

import pytest

from support.simulated import Answer, Simulation
from yelpaze import Retry, get
from yelpaze.http.tracer import TraceContext, Tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
LONG = ",".join(f"k{number}={'v' * 20}" for number in range(32))
OUT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def sent(*headers, tracer=None, trace_id=None, context=None):
    """What a request with these headers sends: ((trace id, span id, flags), its other lines)."""
    tracer = tracer or Tracer(random.Random(1))
    request = get("http://a.test/", headers=headers)
    lines = tracer.header_lines(request, trace_id or tracer.trace_id_of(request), context)
    lines = [line if isinstance(line, str) else line.decode() for line in lines]
    (own,) = [line for line in lines if line.lower().startswith("traceparent")]
    name, _, value = own.partition(": ")
    assert name == "traceparent"
    return OUT.fullmatch(value).groups(), [line for line in lines if line is not own]


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (GOOD, "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        # later versions: read as version 00, sent as version 00 (§3.2.4)
        (f"01-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-00", "00"),
        (f"fe-{TRACE}-{SPAN}-01", "01"),
        (f"01-{TRACE}-{SPAN}-01-", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", "01"),
        (f"cc-{TRACE}-{SPAN}-00-{'x' * 500}", "00"),
        (f"01-{TRACE}-{SPAN}-01-ÜPPER case", "01"),
        # the edges of the ids
        (f"00-{'0' * 31}1-{SPAN}-01", "01"),
        (f"00-{TRACE}-{'0' * 15}1-01", "01"),
        (f"00-{'f' * 32}-{'f' * 16}-01", "01"),
        # bit 1 says that the trace id is random, which only who made it knows (§3.2.2.5.2)
        (f"00-{TRACE}-{SPAN}-02", "02"),
        (f"00-{TRACE}-{SPAN}-03", "03"),
        # the others are reserved and must go out as 0 (§3.2.2.5.3)
        (f"00-{TRACE}-{SPAN}-ff", "03"),
        (f"00-{TRACE}-{SPAN}-08", "00"),
        (f"cc-{TRACE}-{SPAN}-05-more", "01"),
        # blanks around a value are not part of it (RFC 9110 §5.5)
        (f"{GOOD} ", "01"),
        (f"{GOOD}\t", "01"),
        (f" \t{GOOD} \t ", "01"),
        (f"cc-{TRACE}-{SPAN}-00-more ", "00"),
    ],
)
@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
def test_a_valid_parent_is_carried_on(name, parent, flags):
    (trace, span, sent_flags), others = sent((name, parent), ("tracestate", STATE))
    assert (trace, sent_flags) == (parent.strip()[3:35], flags)
    assert span != parent.strip()[36:52]
    assert others == [f"tracestate: {STATE}"]


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        ["00"],
        [f"{TRACE}-{SPAN}-01"],
        # the version
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"ff-{TRACE}-{SPAN}-01-more"],
        [f"FF-{TRACE}-{SPAN}-01"],
        [f"0-{TRACE}-{SPAN}-01"],
        [f"000-{TRACE}-{SPAN}-01"],
        [f".0-{TRACE}-{SPAN}-01"],
        [f"0A-{TRACE}-{SPAN}-01"],
        # version 00 ends after the flags, others there or with a dash
        [f"{GOOD}-"],
        [f"{GOOD}-more"],
        [f"{GOOD}."],
        [f"{GOOD}\u00a0"],
        [f"{GOOD} -"],
        [f"01-{TRACE}-{SPAN}-01more"],
        [f"01-{TRACE}-{SPAN}-01."],
        # the trace id
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"cc-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE}0-{SPAN}-01"],
        [f"00-{TRACE[:-1]}g-{SPAN}-01"],
        [f"00-{TRACE[:-1]}\u0664-{SPAN}-01"],
        # the span id
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"cc-{TRACE}-{'0' * 16}-01-more"],
        [f"00-{TRACE}-{SPAN.upper()}-01"],
        [f"00-{TRACE}-{SPAN[:-1]}-01"],
        [f"00-{TRACE}-{SPAN}0-01"],
        [f"00-{TRACE}-{SPAN[:-1]}.-01"],
        # the flags
        [f"00-{TRACE}-{SPAN}"],
        [f"00-{TRACE}-{SPAN}-"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-001"],
        [f"00-{TRACE}-{SPAN}-0A"],
        [f"00-{TRACE}-{SPAN}-.1"],
        # the dashes
        [GOOD.replace("-", "_")],
        [GOOD.replace("-", "")],
        # more than one
        [GOOD, GOOD],
        [GOOD, f"00-{'1' * 32}-{SPAN}-01"],
        [GOOD, "broken"],
        ["broken", GOOD],
        [f"{GOOD}, {GOOD}"],
    ],
)
def test_an_invalid_parent_begins_a_new_trace(parents):
    """And its tracestate, which may come before it, is dropped with it (§3.3)."""
    headers = [("tracestate", STATE), *(("traceparent", parent) for parent in parents), ("TraceState", "a=1")]
    (trace, span, flags), others = sent(*headers)
    assert trace not in (TRACE, "1" * 32)
    assert (span != SPAN, flags) == (True, "03")  # a new id is random (§3.2.2.5.2)
    assert others == []


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([], None),
        (["a=1"], "a=1"),
        ([STATE], STATE),
        (["a=1", "b=2", "a=3"], "a=1,b=2,a=3"),  # several fields are one list, so their order stays
        (["a=1,b=2", "c=3,d=4"], "a=1,b=2,c=3,d=4"),
        # empty fields and members are taken and not sent (§3.3.1.1)
        ([""], None),
        ([" \t", ""], None),
        ([",", " , "], None),
        (["", "a=1"], "a=1"),
        (["a=1", ""], "a=1"),
        (["a=1,,b=2,", ",c=3"], "a=1,b=2,c=3"),
        # blanks are not part of a member, but of what is between its own characters
        (["a=1 \t , \t b=2,\tc=3 "], "a=1,b=2,c=3"),
        (["fw529a3039@dt=FfAq-_*/;0_k= x~y "], "fw529a3039@dt=FfAq-_*/;0_k= x~y"),
        (["not a list"], "not a list"),  # to us it is opaque, and says nothing against the traceparent
        (["a=ü"], "a=ü"),
        ([LONG], LONG),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_state_of_a_valid_parent_is_carried_on(states, state, first):
    """In one field, whatever it came in (RFC 9110 §5.3)."""
    fields = [("TraceState", given) for given in states]
    headers = [("traceparent", GOOD), *fields] if first else [*fields, ("traceparent", GOOD)]
    (trace, _, _), others = sent(*headers)
    assert trace == TRACE
    assert others == ([f"tracestate: {state}"] if state else [])


@pytest.mark.parametrize(
    "given",
    [
        {"trace_id": "1" * 32},
        {"trace_id": "1" * 32, "context": TraceContext(f"00-{'1' * 32}-{'2' * 16}-01")},
    ],
)
def test_the_state_stays_with_its_trace(given):
    (trace, _, _), others = sent(("traceparent", GOOD), ("tracestate", STATE), **given)
    assert trace == "1" * 32
    assert others == []


def test_a_span_of_the_callers_own_is_sent_as_it_is():
    context = TraceContext(f"00-{TRACE}-{'2' * 16}-00")
    assert sent(trace_id=TRACE, context=context) == ((TRACE, "2" * 16, "00"), [])
    assert sent(("traceparent", GOOD), trace_id=TRACE, context=context)[0] == (TRACE, "2" * 16, "00")
    context = TraceContext(context.parent, "mine=1")
    given = [("traceparent", GOOD), ("tracestate", STATE)]
    assert sent(*given, trace_id=TRACE, context=context)[1] == ["tracestate: mine=1"]


def test_no_state_is_sent_without_a_parent():
    """Who gets one alone must drop it (§3.3)."""
    tracer = Tracer(random.Random(1), sends=False)
    request = get("http://a.test/", headers=[("traceparent", GOOD), ("tracestate", STATE)])
    assert tracer.header_lines(request, tracer.trace_id_of(request)) == []


def test_ids_are_never_all_zero():
    class Nought(random.Random):
        def getrandbits(self, _):
            return 0

    (trace, span, _), _ = sent(tracer=Tracer(Nought()))
    assert (trace, span) == ("1".zfill(32), "1".zfill(16))


@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": GOOD, "tracestate": STATE}, {"traceparent": "broken"}]
)
def test_each_attempt_is_a_new_span_of_one_trace(headers):
    sim = Simulation(lambda *_: Answer(500), retry=Retry(attempts=5), correlation_header="X-Request-Id")
    outcome = sim.run(lambda engine: engine.send(get("http://10.0.0.1/", headers=headers)))
    parents = [OUT.fullmatch(one.headers["traceparent"]).groups() for one in sim.requests]
    assert {trace for trace, _, _ in parents} == {outcome.trace_id}
    assert (outcome.trace_id == TRACE) == (headers.get("traceparent") == GOOD)
    assert len({span for _, span, _ in parents} - {SPAN}) == 5
    assert {one.headers["X-Request-Id"] for one in sim.requests} == {outcome.trace_id}
    assert [one.headers.get("tracestate") for one in sim.requests] == [headers.get("tracestate")] * 5
    assert {flags for _, _, flags in parents} == {"01" if outcome.trace_id == TRACE else "03"}


@pytest.mark.parametrize(
    ("extra", "headers", "lines"),
    [
        (None, [], []),
        ("X-Request-Id", [], [f"X-Request-Id: {TRACE}"]),
        ("X-Request-Id", [("X-Other", "1")], ["X-Other: 1", f"X-Request-Id: {TRACE}"]),
        # the caller's own stays, and alone
        ("X-Request-Id", [("X-Request-Id", "mine")], ["X-Request-Id: mine"]),
        ("X-Request-Id", [("x-request-ID", "mine")], ["x-request-ID: mine"]),
        ("X-Request-Id", [("X-Request-Id", "")], ["X-Request-Id;"]),
        (None, [("X-Request-Id", "mine")], ["X-Request-Id: mine"]),
    ],
)
def test_a_second_header_for_the_trace_id(extra, headers, lines):
    tracer = Tracer(random.Random(1), extra)
    (trace, _, _), others = sent(("traceparent", GOOD), *headers, tracer=tracer)
    assert trace == TRACE
    assert others == lines
