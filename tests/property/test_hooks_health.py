"""When an endpoint that fails is warned of and disabled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.hooks.delivery.decision import Decision
from yelpaze.hooks.delivery.health import Health, health_of
from yelpaze.hooks.settings import HooksSettings
from yelpaze.hooks.tables import FAILED, PENDING

DAY = 86_400_000
SETTINGS = HooksSettings()
FAILURE = Decision(PENDING, 1, 0, "status", "status: 500")


def health(*, failures=10, days, warned_days_ago=None, settings=SETTINGS, decision=FAILURE):
    now = 100 * DAY
    warned = 0 if warned_days_ago is None else int(now - warned_days_ago * DAY)
    since = int(now - days * DAY)
    return health_of(decision, settings, failures=failures, since=since, warned=warned, now=now)


@pytest.mark.parametrize(
    ("days", "warned_days_ago", "does"),
    [
        (1.9, None, ""),
        (2, None, "warn"),
        (30, None, "warn"),  # never without a notice before
        (3, 1, ""),
        (5, 2.9, ""),  # not long enough after the notice
        (5, 3, "disable"),
        (4.9, 3, ""),
    ],
)
def test_a_notice_comes_long_before_the_end(days, warned_days_ago, does):
    found = health(days=days, warned_days_ago=warned_days_ago)
    assert (bool(found.warn), bool(found.disable)) == (does == "warn", does == "disable")


def test_410_needs_no_notice():
    gone = Decision(FAILED, 1, 0, "status", "status: 410 Gone", disable="it answered 410 Gone")
    assert health(failures=1, days=0, decision=gone) == Health(disable="it answered 410 Gone")


@given(st.floats(0, 90), st.none() | st.floats(0, 90), st.integers(1, 4))
def test_a_few_failures_do_nothing(days, warned_days_ago, failures):
    assert health(failures=failures, days=days, warned_days_ago=warned_days_ago) == Health()


@given(st.floats(0, 90), st.none() | st.floats(0, 90))
def test_it_can_be_turned_off(days, warned_days_ago):
    never = HooksSettings(disable_after=0)
    assert health(days=days, warned_days_ago=warned_days_ago, settings=never) == Health()


@given(st.floats(0, 90), st.none() | st.floats(0, 90))
def test_never_both_at_once(days, warned_days_ago):
    found = health(days=days, warned_days_ago=warned_days_ago)
    assert not (found.warn and found.disable)
