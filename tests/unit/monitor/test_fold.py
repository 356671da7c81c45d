"""The verdict over a check: states, thresholds, quorum, stale and late votes, and what a replay gives."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.monitor.check import Check, CheckOptions
from yelpaze.monitor.evaluate.fold import CheckState, Input, Rules, close, fold
from yelpaze.monitor.evaluate.skews import Skews
from yelpaze.monitor.records import Result

START = 1_800_000_000_000
MINUTE = 60_000


def rules(locations=1, quorum=1, failures=(3,), successes=(2,), interval=MINUTE):
    return Rules("core_web", interval, 0, 3 * interval, quorum, failures, successes)


class Line:
    """A check's line of results, a slot a minute."""

    def __init__(self, **options):
        self.rules = rules(**options)
        self.state = CheckState()
        self.said = []

    def result(self, slot, success, location="a", *, received=None, skew=0, **fields):
        at = START + slot * MINUTE
        result = Result(
            check="core_web", location=location, slot=at + skew, sent=at, success=success, **fields
        )
        found = fold(self.state, Input(result, at + 500 if received is None else received, skew), self.rules)
        self.said += found
        return [one.kind for one in found]

    def kinds(self):
        return [one.kind for one in self.said]

    def run(self, pattern, location="a"):
        """`.` is a good slot, `x` a failing one."""
        return [self.result(slot, mark == ".", location) for slot, mark in enumerate(pattern)]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("....", []),
        ("..x", ["seems_down"]),
        ("..x.", ["seems_down", "resolved"]),
        ("..xx.", ["seems_down", "resolved"]),
        ("..xxx", ["seems_down", "down"]),
        ("xxxxxx", ["seems_down", "down"]),
        ("xxx.", ["seems_down", "down"]),
        ("xxx..", ["seems_down", "down", "resolved"]),
        ("xxx.x..", ["seems_down", "down", "resolved"]),
        ("xx.xx.xx.", ["seems_down", "resolved"] * 3),
        ("xxx..x", ["seems_down", "down", "resolved", "seems_down"]),
    ],
)
def test_one_location(pattern, said):
    line = Line()
    line.run(pattern)
    assert line.kinds() == said


def test_the_incident_is_dated_from_the_first_failure():
    line = Line()
    line.run("..xxx..")
    opened, down, resolved = line.said
    assert {one.incident for one in line.said} == {f"core_web:{START + 2 * MINUTE}"}
    assert [one.id for one in line.said] == [f"core_web:{START + 2 * MINUTE}:{n}" for n in (1, 2, 3)]
    assert {one.since for one in line.said} == {START + 2 * MINUTE}
    assert (opened.at, down.at, resolved.at) == (START + 2 * MINUTE, START + 4 * MINUTE, START + 6 * MINUTE)
    assert (down.count, resolved.reason) == (3, "probe_cleared")


def test_what_is_not_confirmed_is_a_false_alarm():
    line = Line()
    line.run("x.")
    assert line.said[-1].reason == "false_alarm"


def test_each_threshold_is_told_once():
    line = Line(failures=(1, 3, 5), successes=(1, 3))
    assert line.run("xxxxxx....") == [
        ["seems_down", "down"], [], ["failing"], [], ["failing"], [],
        ["passing"], [], ["resolved"], [],
    ]  # fmt: skip
    assert [one.count for one in line.said] == [0, 1, 3, 5, 1, 3]


def test_a_success_begins_the_count_anew():
    line = Line(failures=(3,), successes=(2,))
    line.run("xxx.xxx.")
    assert line.kinds() == ["seems_down", "down", "failing"]


# ── quorum ──────────────────────────────────────────────────────────────────────


def three(**options):
    return Line(quorum=2, failures=(1,), successes=(1,), **options)


def seen(line, slot):
    """All locations have voted before."""
    for location in "abc":
        line.result(slot, True, location)


def test_one_of_three_is_no_outage():
    line = three()
    seen(line, 0)
    assert line.result(1, False, "a") == ["seems_down"]
    assert line.result(1, True, "b") == []
    assert line.result(1, True, "c") == ["resolved"]
    assert line.said[-1].reason == "false_alarm"


def test_two_of_three_are():
    line = three()
    seen(line, 0)
    line.result(1, False, "a")
    assert line.result(1, False, "c") == ["down"]
    assert line.said[-1].locations == ("a", "c")
    assert line.result(2, True, "a") == []
    assert line.result(2, True, "b") == ["resolved"]


def test_a_silent_location_decides_nothing_until_its_vote_is_unknown():
    line = three()
    seen(line, 0)
    line.result(1, False, "a")
    assert line.result(1, True, "b") == []  # c may agree with a
    assert [line.result(slot, True, "b") for slot in (2, 3)] == [[], []]
    line.result(4, False, "a")
    assert line.result(4, True, "b") == ["resolved"]  # c was silent for three intervals


def test_a_failing_location_that_is_cut_off_keeps_nothing_down():
    line = Line(quorum=1, failures=(1,), successes=(1,))
    line.result(0, True, "b")
    line.result(1, False, "a")
    for slot in (1, 2, 3, 4):
        line.result(slot, True, "b")
    line.result(5, True, "b")
    assert line.state.state == "up"


def test_fewer_fresh_votes_than_the_quorum_move_nothing():
    line = Line(quorum=2, failures=(1,), successes=(1,))
    assert line.result(0, False, "a") == ["seems_down"]
    assert [line.result(slot, False, "a") for slot in (1, 2, 3)] == [[], [], []]
    assert [line.result(slot, True, "a") for slot in (4, 5)] == [[], []]
    assert line.state.state == "seems_down"


# ── what is no vote ─────────────────────────────────────────────────────────────


def test_blind_and_first_tries_are_no_votes():
    line = Line(failures=(1,))
    line.result(0, True)
    assert line.result(1, False, blind=True) == []
    assert line.result(2, False, final=False) == []
    assert line.result(2, True, attempt=2) == []
    assert line.said == []


def test_late_results_raise_no_alarm_and_end_none():
    line = Line(failures=(1,), successes=(1,))
    line.result(10, True)
    late = START + 20 * MINUTE
    assert [line.result(slot, False, received=late) for slot in range(11, 16)] == [[]] * 5
    assert line.result(20, True) == []
    line.result(21, False)
    assert [line.result(slot, True, received=START + 25 * MINUTE) for slot in (16, 17, 18)] == [[]] * 3
    assert line.state.state == "down"


def test_an_older_slot_changes_nothing():
    line = Line(failures=(1,))
    line.result(5, True)
    assert line.result(4, False) == []


@pytest.mark.parametrize("skew", [300_000, -300_000])
def test_a_clock_that_is_wrong_gives_the_same_verdicts(skew):
    right, wrong = three(), three()
    for line, off in ((right, 0), (wrong, skew)):
        for slot, marks in enumerate(["...", "x..", "xx.", "xxx", ".x.", "..."]):
            for location, mark in zip("abc", marks, strict=True):
                line.result(slot, mark == ".", location, skew=off if location == "b" else 0)
    shown = [[(one.id, one.kind, one.at, one.reason) for one in line.said] for line in (right, wrong)]
    assert shown[0] == shown[1]
    assert [kind for _, kind, _, _ in shown[0]].count("down") == 1


def test_skews_are_learned_from_heartbeats():
    skews = Skews()
    for at in range(0, 60_000, 5000):
        skews.add("eu", at + 300_000, at + 20 + at % 900)
    assert abs(skews.of("eu") - 300_000) < 900
    assert skews.of("us") == 0


# ── the end from outside ────────────────────────────────────────────────────────


def test_maintenance_ends_what_is_open():
    line = Line()
    line.run("xxx")
    at = START + 3 * MINUTE
    result = Result(check="core_web", location="a", slot=at, sent=at, success=False)
    [ended] = close(line.state, Input(result, at), line.rules, "maintenance")
    assert (ended.kind, ended.reason) == ("resolved", "maintenance")
    assert close(line.state, Input(result, at), line.rules, "maintenance") == []
    assert line.result(4, True) == []


def test_push_checks_have_a_slot_a_call():
    check = Check(1, "_job", "job", "", "", CheckOptions(kind="push", interval=0.0, locations=("push",)))
    found, state = Rules.of(check), CheckState()
    said = []
    for number, success in enumerate([False, False, False, True, True]):
        at = START + number * 86_400_000 + 7
        result = Result(check="_job", location="push", slot=at, sent=at, success=success)
        said += [one.kind for one in fold(state, Input(result, at), found)]
    assert said == ["seems_down", "down", "resolved"]


# ── properties ──────────────────────────────────────────────────────────────────

votes = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.booleans(), st.integers(0, 90_000)), max_size=80
)


def played(events, state=None, start=0):
    line = Line(quorum=2, failures=(1, 2), successes=(1, 2))
    if state is not None:
        line.state = state
    slot = {"a": 0, "b": 0, "c": 0}
    for number, (location, step, success, delay) in enumerate(events):
        slot[location] += step
        if number >= start:
            line.result(slot[location], success, location, received=START + slot[location] * MINUTE + delay)
    return line


@given(votes)
def test_incidents_open_and_close_in_turn(events):
    line = played(events)
    is_open = False
    for one in line.said:
        if one.kind == "seems_down":
            assert not is_open
            is_open = True
        else:
            assert is_open
        if one.kind == "resolved":
            is_open = False
    assert is_open == (line.state.state != "up")
    assert len({one.id for one in line.said}) == len(line.said)


@given(votes, st.integers(0, 80))
def test_a_snapshot_goes_on_as_if_nothing_had_happened(events, cut):
    cut = min(cut, len(events))
    whole = played(events)
    before = played(events[:cut])
    encoded = msgspec.msgpack.encode(before.state)
    after = played(events, msgspec.msgpack.decode(encoded, type=CheckState), cut)
    assert [*before.said, *after.said] == whole.said


@given(votes)
def test_results_that_are_read_twice_change_nothing(events):
    line, slot = Line(quorum=2, failures=(1, 2), successes=(1, 2)), {"a": 0, "b": 0, "c": 0}
    for location, step, success, delay in events:
        slot[location] += step
        at = START + slot[location] * MINUTE + delay
        line.result(slot[location], success, location, received=at)
        assert line.result(slot[location], success, location, received=at) == []


def test_no_outage_of_a_minority_ever_alarms():
    draw = random.Random(7)
    line = Line(quorum=2, failures=(1,), successes=(1,))
    for slot in range(500):
        ill = draw.choice("abc") if slot % 7 < 3 else None
        for location in draw.sample("abc", 3):
            line.result(slot, location != ill, location)
    assert not [one for one in line.said if one.kind == "down"]


@pytest.mark.parametrize("after", [5 * MINUTE, MINUTE // 6])
def test_another_interval_is_judged_from_the_next_slot_on(after):
    line = Line()
    line.run("....")
    line.rules = rules(interval=after)
    for number in range(1, 4):
        at = START + 10 * MINUTE + number * after
        fold(line.state, Input(Result(check="core_web", location="a", slot=at, sent=at), at), line.rules)
    assert line.state.state == "down"


def test_a_threshold_that_is_lowered_below_the_count_is_reached():
    line = Line(failures=(5,))
    line.run("xxx")
    line.rules = rules(failures=(2,))
    assert line.result(3, False) == ["down"]


def test_a_slot_far_in_the_future_is_no_vote():
    line = Line()
    assert line.result(10, False, received=START) == []
    assert line.result(0, False) == ["seems_down"]
