"""The schedule of deliveries: pauses stay within their bounds, and end."""

import random
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.model.errors import MisuseError
from yelpaze.policy.schedule import ALARM, DELIVERY, Schedule

WEEK = 7 * 86_400.0
delays = st.lists(st.floats(0, WEEK) | st.integers(0, int(WEEK)), min_size=1, max_size=20).map(tuple)
schedules = st.builds(Schedule, delays, jitter=st.floats(0, 0.99), retry_after_cap=st.floats(0, 604_800))
waits = st.none() | st.floats(0, 1e12) | st.just(float("inf"))


def source(kind):
    """The lowest, the highest, or a random number of a range."""
    return {"min": min, "max": max}.get(kind) or random.Random(kind).uniform


sources = (st.sampled_from(["min", "max"]) | st.integers()).map(source)


@given(schedules, st.integers(0, 25), waits, sources)
def test_a_pause_is_within_the_jitter_of_its_delay_or_what_retry_after_asks_for(
    schedule, step, asked, uniform
):
    pause = schedule.pause(step, asked, uniform)
    if step >= len(schedule.delays):
        assert pause is None
        return
    delay = schedule.delays[step]
    floor = 0.0 if asked is None else min(asked, schedule.retry_after_cap)
    assert isinstance(pause, float)
    assert max(floor, delay * (1 - schedule.jitter)) <= pause * (1 + 1e-12)
    assert pause <= max(floor, delay * (1 + schedule.jitter)) * (1 + 1e-12)


@given(schedules, waits, sources)
def test_a_schedule_has_as_many_attempts_as_delays(schedule, asked, uniform):
    steps = 0
    while schedule.pause(steps, asked, uniform) is not None:
        steps += 1
    assert steps == len(schedule.delays)


@given(schedules, st.integers(0, 19), waits, st.integers())
def test_retry_after_never_makes_a_pause_shorter(schedule, step, asked, seed):
    without = schedule.pause(step, None, source(seed))
    with_it = schedule.pause(step, asked, source(seed))
    assert (without is None) == (with_it is None)
    assert without is None or without <= with_it


@given(delays, st.integers(0, 19), sources)
def test_without_jitter_a_pause_is_its_delay(given_delays, step, uniform):
    expected = given_delays[step] if step < len(given_delays) else None
    assert Schedule(given_delays, jitter=0).pause(step, None, uniform) == expected


@given(
    st.lists(st.floats() | st.integers() | st.booleans() | st.text() | st.none(), max_size=110), st.floats()
)
def test_whatever_is_given_is_a_schedule_or_misuse(given_delays, jitter):
    valid = (
        1 <= len(given_delays) <= 100
        and all(type(one) in (int, float) and 0 <= one <= WEEK for one in given_delays)
        and 0 <= jitter < 1
    )
    with nullcontext() if valid else pytest.raises(MisuseError, match=r"^a schedule"):
        Schedule(tuple(given_delays), jitter=jitter)


@pytest.mark.parametrize("cap", [-1.0, float("nan"), float("inf")])
def test_a_cap_that_bounds_nothing_is_misuse(cap):
    with pytest.raises(MisuseError):
        Schedule((0, 5), retry_after_cap=cap)


@pytest.mark.parametrize(("schedule", "hours"), [(DELIVERY, 75.6), (ALARM, 0.98)])
def test_the_schedules_at_hand_begin_at_once_and_last_as_long_as_they_say(schedule, hours):
    pauses = [
        schedule.pause(step, None, lambda low, high: (low + high) / 2) for step in range(len(schedule.delays))
    ]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert sum(pauses) / 3600 == pytest.approx(hours, rel=0.01)
