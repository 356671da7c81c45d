"""The timing wheel: phases that stay, nothing twice, nothing lost, and clocks that jump."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.monitor.check import Check, CheckOptions, id_of
from yelpaze.monitor.probe.blindness import Blindness
from yelpaze.monitor.probe.schedule import TICK, Schedule, next_due

START = 1_800_000_000.0


def check(name, interval=60.0):
    return Check(id_of(name), name, name, "", "http://a.test", CheckOptions(interval=interval))


def run(schedule, begin, seconds, step=TICK):
    """Look every tick; the slots that were due, by check, with when they came."""
    found, now = {}, begin
    while now < begin + seconds:
        now += step
        for entry, slot in schedule.due(now):
            found.setdefault(entry.check.key, []).append((slot, now))
    return found


def test_a_check_is_due_once_an_interval_at_its_phase():
    schedule = Schedule()
    checks = [check(f"c{n}", 10.0) for n in range(50)]
    schedule.add(checks, START, at_once=False)
    found = run(schedule, START, 100)
    assert len(found) == 50
    for one in checks:
        slots = [slot for slot, _ in found[one.key]]
        assert 9 <= len(slots) <= 10
        assert all(
            abs((slot - one.phase()) % 10) < 1e-6 or (slot - one.phase()) % 10 > 9.999 for slot in slots
        )
        assert [round(b - a, 6) for a, b in itertools.pairwise(slots)] == [10.0] * (len(slots) - 1)
        assert all(0 <= now - slot <= 2 * TICK for slot, now in found[one.key])


def test_phases_are_spread():
    phases = sorted(check(f"site-{n}").phase() for n in range(6000))
    assert max(b - a for a, b in itertools.pairwise(phases)) < 0.5
    assert sum(1 for one in phases if one < 6) in range(500, 700)


def test_the_first_look_comes_soon_for_the_slot_that_runs():
    schedule = Schedule()
    one = check("a", 3600.0)
    schedule.add([one], START)
    [(slot, now)] = run(schedule, START, 2)["a"]
    assert slot <= START < slot + 3600
    assert now <= START + 0.2


def test_a_reload_keeps_phases_and_touches_nothing_else():
    schedule = Schedule()
    checks = [check(f"c{n}", 30.0) for n in range(100)]
    schedule.add(checks, START, at_once=False)
    before = {one.key: schedule.get(one.key).due for one in checks}
    changed = Check(checks[0].id, "c0", "c0", "", "http://b.test", checks[0].options)
    schedule.add([changed, *checks[1:]], START + 3, at_once=True)
    assert {one.key: schedule.get(one.key).due for one in checks} == before
    assert schedule.get("c0").check.url == "http://b.test"
    schedule.remove("c1")
    assert "c1" not in run(schedule, START, 60)
    assert len(schedule) == 99


def test_another_interval_gets_another_schedule():
    schedule = Schedule()
    schedule.add([check("a", 10.0)], START, at_once=False)
    schedule.add([check("a", 5.0)], START, at_once=False)
    assert len(run(schedule, START, 50)["a"]) in (9, 10, 11)


@pytest.mark.parametrize("jump", [-3600.0, -5.0, 3600.0])
def test_a_clock_that_jumps_goes_on_with_the_next_slot(jump):
    schedule = Schedule()
    schedule.add([check("a", 10.0)], START, at_once=False)
    run(schedule, START, 100)
    found = run(schedule, START + 100 + jump, 50)["a"]
    assert 4 <= len(found) <= 6
    assert all(now - slot <= 11 for slot, now in found)


def test_a_loop_that_was_blocked_leaves_slots_out_and_does_not_make_them_up():
    schedule = Schedule()
    schedule.add([check("a", 1.0)], START, at_once=False)
    run(schedule, START, 5)
    late = schedule.due(START + 35)
    assert len(late) <= 1
    assert len(run(schedule, START + 35, 5)["a"]) in (4, 5, 6)


@given(st.integers(0, 10**6), st.floats(1, 86_400), st.floats(1.7e9, 1.9e9))
def test_the_next_slot_is_after_and_within_an_interval(number, interval, now):
    one = check(f"k{number}", interval)
    due = next_due(one, now)
    assert now - 1e-3 * interval <= due <= now + interval * 1.001


def test_a_location_where_everything_fails_is_blind_and_sees_again():
    blindness, now = Blindness(), 0.0
    for n in range(30):
        now += 1
        assert blindness.add(f"host{n % 6}", now, success=True) is False
    states = []
    for n in range(30):
        now += 1
        states.append(blindness.add(f"host{n % 6}", now, success=False))
    assert states[-1] is True
    assert states.index(True) < 25
    assert blindness.add("host1", now + 1, success=True) is False


def test_a_location_with_few_hosts_is_never_blind():
    blindness = Blindness()
    for n in range(100):
        assert blindness.add(f"host{n % 2}", float(n), success=n < 10) is False


def test_an_outage_of_some_sites_is_no_blindness():
    blindness = Blindness()
    assert not any(blindness.add(f"host{n % 20}", n / 2, success=n % 20 > 14) for n in range(400))
