"""The states of policies hold their promises whatever happens, in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.model.headers import Headers
from yelpaze.policy.adaptive import Adaptive
from yelpaze.policy.breaker import Breaker, BreakerState, State
from yelpaze.policy.budget import Budget, BudgetState
from yelpaze.policy.hedge import Hedge, HedgeState
from yelpaze.policy.quota import Quota, read_quota
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.policy.window import Window

steps = st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=120)


@given(steps)
def test_a_window_counts_what_is_not_too_old(events):
    window, now, seen = Window(10.0), 0.0, []
    for wait, marked in events:
        now += wait
        window.roll(now)
        window.calls += 1
        window.marked += marked
        seen.append((now, marked))
        certain = [mark for when, mark in seen if now - when <= 9.0]
        possible = [mark for when, mark in seen if now - when <= 10.0]
        assert len(certain) <= window.calls <= len(possible)
        assert sum(certain) <= window.marked <= sum(possible)


@given(steps, st.floats(0, 1), st.floats(0, 5))
def test_a_purse_never_pays_more_than_its_budget(events, share, per_second):
    budget = Budget(share=share, per_second=per_second, ttl=10)
    budget, now, calls, paid = BudgetState(budget), 0.0, [], []
    for wait, is_call in events:
        now += wait
        if is_call:
            budget.window.roll(now)
            budget.window.calls += 1
            calls.append(now)
        elif budget.withdraw(now):
            paid.append(now)
            within = [when for when in paid if now - when <= 9.0]
            assert len(within) <= share * sum(now - when <= 10.0 for when in calls) + per_second * 10 + 1e-6


@given(steps)
def test_a_circuit_moves_only_as_its_table_says(events):
    breaker, now = BreakerState(Breaker(calls=5, pause=4, probes=3)), 0.0
    row = 0
    allowed = {
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.HALF_OPEN, State.CLOSED),
    }
    for wait, good in events:
        now += wait
        before = breaker.state
        if breaker.cool(now):
            assert before is State.OPEN
            assert now >= breaker.until
            before = breaker.state
        generation = breaker.generation
        changed = breaker.record(now, good, generation)
        row = 0 if good or changed or before is not State.CLOSED else row + 1
        if breaker.state is not before:
            assert changed
            assert (before, breaker.state) in allowed
            assert breaker.generation == generation + 1
        assert row < 5  # five in a row would have opened it
        assert not breaker.record(now, False, breaker.generation - 1)  # old news


def test_half_open_judges_by_its_probes_alone():
    for results, state in (
        ((True, True, True), State.CLOSED),
        ((True, True, False, True), State.CLOSED),
        ((False, False, False), State.OPEN),
        ((True, False, False, True, False), State.OPEN),
        ((True, True), State.HALF_OPEN),
    ):
        breaker = BreakerState(Breaker(probes=5, pause=1))
        breaker.trip(0.0)
        assert breaker.cool(1.0)
        for good in results:
            breaker.record(1.0, good, breaker.generation)
        assert breaker.state is state, results


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 300), st.booleans()), max_size=400),
    st.integers(1, 200),
)
def test_an_adaptive_limit_stays_within_its_bounds(events, most):
    adaptive = Adaptive(most)
    for seconds, under_way, dropped in events:
        before = adaptive.limit
        changed = adaptive.dropped() if dropped else adaptive.sample(seconds, under_way)
        assert changed == (adaptive.limit != before)
        assert 1 <= adaptive.limit <= most


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=300), st.floats(0.01, 1))
def test_hedges_are_no_more_than_their_share(latencies, share):
    hedge, paid = HedgeState(Hedge(share=share)), 0
    for number, seconds in enumerate(latencies, 1):
        hedge.answered(seconds)
        paid += hedge.may()
        assert paid <= share * number + 1 + 1e-6
        assert (hedge.after == float("inf")) == (number < 100)
    if len(latencies) >= 100:
        assert min(latencies) <= hedge.after <= max(latencies) * 1.05


@given(st.floats(0.5, 1000), st.integers(1, 20), st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_a_rate_is_never_exceeded(rate, burst, waits):
    gcra = Gcra(Rate(rate, 1.0), burst)
    now, opens, starts = 0.0, float("-inf"), []
    for wait in waits:
        now = max(now + wait, opens)
        opens = gcra.take(now)
        starts.append(now)
    slack = max(burst - 1, 0.010 * rate)
    for index, first in enumerate(starts):
        for later in range(index, len(starts)):
            assert later - index + 1 <= (starts[later] - first) * rate + 1 + slack + 1e-6


@pytest.mark.parametrize(
    ("fields", "quota"),
    [
        ('RateLimit: "d";r=50;t=30', Quota(50, 30)),
        ('RateLimit: "d";r=50;t=30, "e";r=0;t=5', Quota(0, 5)),
        ('RateLimit: "d";r=0;t=5, "e";r=0;t=9', Quota(0, 9)),
        ("RateLimit: d;r=1;t=2", Quota(1, 2)),
        ('RateLimit: "d";r=1\r\nRateLimit-Policy: "d";q=10;w=60', Quota(1, 60)),
        ('RateLimit: "d";r=1', None),
        ('RateLimit: "d";r=-1;t=2', None),
        ('RateLimit: "d";r=1.5;t=2', None),
        ('RateLimit: "d";r=1;t', None),
        ('RateLimit: "d;r=1;t=2', None),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 7", Quota(3, 7)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1700000030", Quota(3, 30)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1600000000", Quota(3, 0)),
        ("RateLimit-Remaining: 3\r\nRateLimit-Reset: 7", Quota(3, 7)),
        ("X-RateLimit-Remaining: 3, 9;w=60\r\nX-RateLimit-Reset: 7", Quota(3, 7)),
        ("X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 99999999", Quota(0, 3600)),
        ("X-RateLimit-Remaining: many\r\nX-RateLimit-Reset: 7", None),
        ("X-RateLimit-Remaining: nan\r\nX-RateLimit-Reset: inf", None),
        ("X-RateLimit-Remaining: 3", None),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1700000030000", Quota(3, 30)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1700000030500000", Quota(3, 30.5)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1700000030.5", Quota(3, 30.5)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1600000000000", Quota(3, 0)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: Tue, 14 Nov 2023 22:13:50 GMT", Quota(3, 30)),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 2700000000", None),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: 1e300", None),
        ("X-RateLimit-Remaining: 3\r\nX-RateLimit-Reset: tomorrow", None),
    ],
)
def test_what_a_host_says_of_its_limits(fields, quota):
    headers = Headers(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
    assert read_quota(headers, wall=1_700_000_000) == quota


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_limits_that_make_no_sense_are_no_limits(one, two, three):
    raw = f"RateLimit: {one}\r\nX-RateLimit-Remaining: {two}\r\nX-RateLimit-Reset: {three}\r\n"
    quota = read_quota(Headers(raw.encode("utf-8", "surrogatepass")), wall=0)
    assert quota is None or (quota.remaining >= 0 and 0 <= quota.reset <= 3600)
