"""What becomes of a delivery: never lost, never due outside its schedule, never a success that was none."""

import json
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from yelpaze.hooks.delivery.decision import Answer, decide
from yelpaze.hooks.kinds.protocol import Kind
from yelpaze.hooks.kinds.registry import KINDS
from yelpaze.hooks.tables import FAILED, PENDING, SUCCEEDED
from yelpaze.policy.schedule import Schedule

NOW = 1_800_000_000_000
WEBHOOK = KINDS["webhook"]

schedules = st.builds(
    Schedule,
    st.lists(st.floats(0, 86_400), min_size=1, max_size=6).map(tuple),
    jitter=st.floats(0, 0.9),
    retry_after_cap=st.floats(0, 7200),
)
waits = st.none() | st.floats(0, 1e9) | st.just(float("inf"))
numbers = st.sampled_from([-1e308, -5, -0.0, 0, 0.5, 60, 10**30, 1e308])
json_bodies = st.fixed_dictionaries(
    {},
    optional={
        "ok": st.booleans() | st.text(max_size=3),
        "description": st.text(max_size=600) | st.none(),
        "retry_after": numbers | st.text(max_size=3) | st.none(),
        "parameters": st.fixed_dictionaries({"retry_after": numbers}) | st.none() | st.lists(st.integers()),
        "status": st.text(max_size=5),
        "message": st.text(max_size=5),
    },
).map(lambda value: json.dumps(value).encode())
bodies = st.binary(max_size=40) | json_bodies | st.just(b'{"ok": false, "description": "\xff"}')
sources = st.sampled_from([min, max]) | st.integers().map(lambda seed: random.Random(seed).uniform)


no_error = st.just("")


def answers(statuses, kinds=no_error, given_bodies=bodies):
    return st.builds(
        Answer, status=statuses, kind=kinds, text=st.text(max_size=600), body=given_bodies, retry_after=waits
    )


any_answer = answers(st.integers(0, 999)) | answers(
    st.sampled_from([0, 200, 410, 503]),
    st.sampled_from(["dns", "connect", "timeout.attempt", "too_large", "template"]),
)
any_kind = st.sampled_from(list(KINDS.values()))


def decided(answer, kind=WEBHOOK, schedule=None, step=0, expires=None, uniform=min, now=NOW):
    schedule = schedule or Schedule((0, 5, 300), jitter=0)
    return decide(answer, kind, schedule, step=step, now=now, expires=expires, uniform=uniform)


def asked_of(answer, kind):
    """Seconds that an answer asks for, in its header or in its body."""
    if answer.retry_after is None and answer.status in (429, 503):
        return kind.retry_after(answer.body)
    return answer.retry_after


@given(any_answer, any_kind, schedules, st.integers(0, 8), st.none() | st.integers(-(10**6), 10**9), sources)
def test_whatever_comes_is_decided_once_and_within_bounds(answer, kind, schedule, step, expires, uniform):
    expires = None if expires is None else NOW + expires
    decision = decided(answer, kind, schedule, step, expires, uniform)
    cap = schedule.retry_after_cap
    assert decision.state in (SUCCEEDED, PENDING, FAILED)
    assert (decision.reason == "") == (decision.state == SUCCEEDED)
    assert "\n" not in decision.reason.partition(":")[0]
    assert 0 <= decision.block <= cap
    assert decision.block == 0 or answer.status in (429, 503)
    if decision.state != PENDING:
        assert decision.due == 0
        return
    assert decision.step == step + 1 < len(schedule.delays)
    assert decision.disable == ""
    delay = schedule.delays[step + 1] * 1000
    asked = asked_of(answer, kind)
    floor = 0 if asked is None else max(0, min(asked, cap)) * 1000
    assert NOW + max(floor, delay * (1 - schedule.jitter)) - 1 <= decision.due
    assert decision.due <= NOW + max(floor, delay * (1 + schedule.jitter)) + 1
    assert expires is None or decision.due <= expires


@given(any_answer, schedules, st.integers(0, 8))
def test_only_a_status_of_200_to_299_is_a_success(answer, schedule, step):
    decision = decided(answer, schedule=schedule, step=step)
    assert (decision.state == SUCCEEDED) == (not answer.kind and 200 <= answer.status < 300)


@given(any_answer, any_kind)
def test_no_kind_makes_a_success_of_another_status(answer, kind):
    if answer.kind or not 200 <= answer.status < 300:
        assert decided(answer, kind).state != SUCCEEDED


@given(answers(st.integers(200, 299)), st.text(min_size=1, max_size=600), schedules)
def test_a_kind_can_refuse_a_status_of_200_to_299(answer, why, schedule):
    refusing = Kind(
        name="own", options=WEBHOOK.options, prepare=WEBHOOK.prepare, refusal=lambda status, body: why
    )
    decision = decided(answer, refusing, schedule)
    assert decision.state in (PENDING, FAILED)
    assert decision.reason.startswith("refused: ")
    assert len(decision.reason) < 600


@given(answers(st.just(410)), any_kind, schedules, st.integers(0, 8), st.none() | st.just(NOW))
def test_410_fails_and_disables_the_endpoint_whatever_is_left(answer, kind, schedule, step, expires):
    decision = decided(answer, kind, schedule, step, expires)
    assert (decision.state, decision.due) == (FAILED, 0)
    assert decision.disable == "it answered 410 Gone"


@given(any_answer, any_kind)
def test_nothing_else_disables_the_endpoint(answer, kind):
    assume(answer.status != 410)
    assert decided(answer, kind).disable == ""


@given(answers(st.integers(300, 399)), any_kind, schedules)
def test_a_redirect_is_a_failure_that_is_tried_again_and_never_followed(answer, kind, schedule):
    decision = decided(answer, kind, schedule)
    assert decision.state == (PENDING if len(schedule.delays) > 1 else FAILED)
    assert decision.reason.startswith(f"redirect: {answer.status}")


@given(answers(st.sampled_from([400, 404, 429, 500, 502, 503, 504])), schedules, st.integers(0, 8), sources)
def test_a_failure_is_tried_again_as_long_as_the_schedule_has_attempts(answer, schedule, step, uniform):
    decision = decided(answer, schedule=schedule, step=step, uniform=uniform)
    assert decision.state == (PENDING if step + 1 < len(schedule.delays) else FAILED)


@pytest.mark.parametrize(
    ("status", "asked", "pause", "block"),
    [
        (503, None, 5, 0),
        (503, 2, 5, 2),  # what the schedule says is later
        (503, 60, 60, 60),
        (429, 10_000, 100, 100),
        (429, float("inf"), 100, 100),
        (500, 60, 60, 0),  # the delivery waits, the endpoint does not
        (502, 10_000, 100, 100),
    ],
)
def test_retry_after_is_a_floor_with_a_cap(status, asked, pause, block):
    schedule = Schedule((0, 5), jitter=0, retry_after_cap=100)
    decision = decided(Answer(status=status, retry_after=asked), schedule=schedule)
    assert (decision.due, decision.block) == (NOW + pause * 1000, block)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("discord", b'{"retry_after": 60.5}'),
        ("telegram", b'{"ok": false, "parameters": {"retry_after": 60.5}}'),
    ],
)
def test_what_a_body_asks_for_counts_if_there_is_no_header(kind, body):
    assert decided(Answer(status=429, body=body), KINDS[kind]).due == NOW + 60_500
    assert decided(Answer(status=429, body=body, retry_after=7), KINDS[kind]).due == NOW + 7000


@pytest.mark.parametrize("status", [200, 429, 503])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 5000,
        b"[" * 5000,
        b'{"ok": false, "description": "\xff"}',
        b'{"retry_after": -1, "ok": false, "parameters": {"retry_after": -1}}',
        b'{"retry_after": 1e999}',
    ],
    ids=["deep objects", "deep lists", "no UTF-8", "negative", "infinite"],
)
def test_an_answer_that_is_meant_to_do_harm_is_decided_like_any_other(kind, status, body):
    decision = decided(Answer(status=status, body=body), KINDS[kind])
    assert decision.state in ((SUCCEEDED, PENDING) if status == 200 else (PENDING,))
    assert decision.block >= 0


@given(schedules, st.integers(0, 4), st.integers(-100_000, 100_000_000), sources)
def test_what_would_be_attempted_after_it_expires_fails_now(schedule, step, seconds, uniform):
    expires = NOW + seconds
    free = decided(Answer(status=500), schedule=schedule, step=step, uniform=lambda low, high: high)
    bound = decided(
        Answer(status=500), schedule=schedule, step=step, expires=expires, uniform=lambda low, high: high
    )
    if free.state == FAILED or free.due <= expires:
        assert bound == free
    else:
        assert bound.state == FAILED
        assert "expires before the next attempt" in bound.reason


@given(answers(st.integers(200, 299), given_bodies=st.just(b"")), st.integers(-(10**6), 0))
def test_a_success_stays_one_although_it_came_too_late(answer, late):
    assert decided(answer, expires=NOW + late).state == SUCCEEDED


@given(schedules, st.integers())
def test_deliveries_that_only_fail_end_after_all_attempts(schedule, seed):
    uniform, now, step, attempts = random.Random(seed).uniform, NOW, 0, 0
    while True:
        decision = decided(Answer(status=500), schedule=schedule, step=step, uniform=uniform, now=now)
        attempts += 1
        if decision.state == FAILED:
            break
        assert decision.due >= now
        now, step = decision.due, decision.step
    assert attempts == len(schedule.delays)
    assert now <= NOW + sum(schedule.delays[1:]) * 1000 * (1 + schedule.jitter) + attempts
