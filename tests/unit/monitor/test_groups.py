"""Groups of alarms, in simulated time: Alertmanager's documented behaviour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.monitor.alarm.groups import Group, Item, fire, flush, resolve

WAIT, INTERVAL, LOOK = 30_000, 300_000, 1000


class Channel:
    """A channel, and a clock in milliseconds."""

    def __init__(self, wait=WAIT, interval=INTERVAL):
        self.group = Group("slack|group=core", "slack")
        self.now = 1_000_000
        self.wait, self.interval = wait, interval
        self.muted = set()
        self.heard = []

    def fire(self, check, **fields):
        item = Item(check, f"{check}:1", self.now, **{"send_on_resolved": True, **fields})
        fire(self.group, item, self.now, self.wait, self.interval)

    def resolve(self, check):
        resolve(self.group, check, self.now, "probe_cleared", self.now, self.interval)

    def until(self, seconds):
        """Let time pass; return what was said, as (seconds, firing, resolved)."""
        end, said = self.now + int(seconds * 1000), []
        while self.now < end:
            self.now += 500
            found = flush(self.group, self.now, lambda item: item.check in self.muted, LOOK)
            if found is not None:
                firing = sorted(one.check for one in found.firing)
                said.append((firing, sorted(one.check for one in found.resolved), found.is_reminder))
        self.heard += said
        return said


def test_the_first_alarm_waits_for_others():
    channel = Channel()
    channel.fire("a")
    channel.until(10)
    channel.fire("b")
    assert channel.heard == []
    assert channel.until(30) == [(["a", "b"], [], False)]


def test_more_are_told_after_the_group_interval():
    channel = Channel()
    channel.fire("a")
    channel.until(31)
    channel.fire("b")
    assert channel.until(290) == []
    assert channel.until(20) == [(["a", "b"], [], False)]


def test_what_is_resolved_within_group_wait_is_never_sent():
    channel = Channel()
    channel.fire("a")
    channel.until(10)
    channel.resolve("a")
    assert channel.until(1000) == []
    assert channel.group.items == {}


def test_resolved_ones_are_told_once():
    channel = Channel()
    channel.fire("a")
    channel.fire("b")
    channel.until(31)
    channel.resolve("a")
    assert channel.until(400) == [(["b"], ["a"], False)]
    channel.resolve("b")
    assert channel.until(400) == [([], ["b"], False)]
    assert channel.until(10_000) == []


def test_without_grouping_everything_is_told_at_once():
    channel = Channel(0, 0)
    channel.fire("a")
    assert channel.until(0.5) == [(["a"], [], False)]
    channel.resolve("a")
    assert channel.until(0.5) == [([], ["a"], False)]
    channel.fire("a")
    assert channel.until(0.5) == [(["a"], [], False)]


def test_resolved_messages_are_only_for_those_that_want_them():
    channel = Channel(0, 0)
    channel.fire("a", send_on_resolved=False)
    channel.until(1)
    channel.resolve("a")
    assert channel.until(10) == []
    assert channel.group.items == {}


def test_reminders_come_at_their_interval_until_it_is_resolved():
    channel = Channel(0, 0)
    channel.fire("a", reminder=60_000)
    channel.until(1)
    assert channel.until(200) == [(["a"], [], True)] * 3
    channel.resolve("a")
    assert channel.until(200) == [([], ["a"], False)]


def test_an_acknowledged_one_is_not_reminded_of():
    channel = Channel(0, 0)
    channel.fire("a", reminder=60_000)
    channel.until(1)
    channel.muted.add("a")
    assert channel.until(300) == []
    channel.resolve("a")
    assert channel.until(10) == [([], ["a"], False)]


def test_a_muted_alarm_is_held_and_sent_when_it_still_fires():
    channel = Channel(0, 0)
    channel.muted.add("child")
    channel.fire("child")
    channel.fire("other")
    assert channel.until(5) == [(["other"], [], False)]
    channel.muted.clear()
    assert channel.until(5) == [(["child", "other"], [], False)]


def test_a_muted_alarm_that_ends_is_never_sent():
    channel = Channel(0, 0)
    channel.muted.add("child")
    channel.fire("child")
    channel.until(5)
    channel.resolve("child")
    channel.muted.clear()
    assert channel.until(100) == []


def test_an_alarm_is_held_until_its_parent_can_be_known():
    channel = Channel(0, 0)
    channel.fire("child", hold=channel.now + 20_000)
    assert channel.until(19) == []
    assert channel.until(3) == [(["child"], [], False)]


@pytest.mark.parametrize("flaps", [1, 5])
def test_a_flapping_check_is_told_of_once_an_interval(flaps):
    channel = Channel()
    channel.fire("a")
    channel.until(31)
    for _ in range(flaps):
        channel.resolve("a")
        channel.until(5)
        channel.fire("a")
        channel.until(5)
    assert len(channel.heard) == 1
    assert len(channel.until(400)) == 1
    assert channel.group.sent == 2


def test_the_end_of_an_alarm_is_told_though_another_ends_unsent_beside_it():
    channel = Channel(0, 1000)
    channel.fire("parent")
    channel.until(1)
    channel.fire("child", hold=channel.now + 60_000)
    channel.resolve("parent")
    channel.resolve("child")
    assert channel.until(5) == [([], ["parent"], False)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["fire", "held", "resolve", "wait", "long"]))
    )
)
def test_in_the_end_a_channel_knows_what_fires(steps):
    channel, firing, said = Channel(10_000, 20_000), set(), []
    for check, what in steps:
        if what in ("fire", "held") and check not in firing:
            firing.add(check)
            channel.fire(check, hold=channel.now + 30_000 if what == "held" else 0)
        elif what == "resolve":
            firing.discard(check)
            channel.resolve(check)
        else:
            said += channel.until(5 if what == "wait" else 100)
    said += channel.until(200)
    known = set()
    for fires, ended, _ in said:
        assert set(ended) <= known
        known = (known | set(fires)) - set(ended)
    assert known == firing
