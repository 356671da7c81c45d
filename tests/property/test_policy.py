"""Pure decisions hold for every input."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.request import IDEMPOTENT_METHODS, get, post
from yelpaze.policy.redirect import follow, is_redirect
from yelpaze.policy.retry import Retry, pause, retry_after_seconds, worth_retrying
from yelpaze.policy.slots import Slots

kinds = st.sampled_from(list(ErrorKind))
statuses = st.integers(100, 599)


@given(kinds, st.integers(1, 10), statuses, st.integers(1, 5))
def test_what_may_have_been_processed_is_not_repeated(kind, attempt, status, attempts):
    again = worth_retrying(
        Retry(attempts=attempts),
        attempt=attempt,
        replayable=False,
        status=status,
        error=Error(kind, ""),
    )
    never_processed = kind in ("dns", "connect", "timeout.connect") or (
        kind == "status" and status in (429, 503)
    )
    assert again == (never_processed and attempt < attempts)


@given(kinds, st.integers(1, 10), statuses)
def test_a_replayable_request_is_repeated_at_least_where_another_is(kind, attempt, status):
    def decide(*, replayable):
        return worth_retrying(
            Retry(), attempt=attempt, replayable=replayable, status=status, error=Error(kind, "")
        )

    assert decide(replayable=True) >= decide(replayable=False)
    if kind in ("cancelled", "too_large", "tls"):
        assert not decide(replayable=True)


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 100), st.integers())
def test_pauses_stay_within_full_jitter(attempt, base, cap, seed):
    policy = Retry(base=base, cap=cap)
    value = pause(policy, attempt=attempt, retry_after=None, uniform=random.Random(seed).uniform)
    assert 0 <= value <= cap
    assert value <= base * 2 ** min(attempt, 60)


@given(st.floats(0, 1e12))
def test_retry_after_is_clamped(seconds):
    assert pause(Retry(), attempt=1, retry_after=seconds, uniform=max) == min(seconds, 300)


@given(st.integers(0, 2**40))
def test_retry_after_reads_seconds(seconds):
    assert retry_after_seconds(f" {seconds} ", wall=0) == seconds


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)), st.integers(0, 4_000_000_000))
def test_retry_after_reads_dates(when, wall):
    text = when.strftime("%a, %d %b %Y %H:%M:%S GMT")
    expected = max(0, when.replace(tzinfo=UTC, microsecond=0).timestamp() - wall)
    assert retry_after_seconds(text, wall=wall) == expected


@given(st.text())
def test_retry_after_takes_anything(text):
    value = retry_after_seconds(text, wall=0)
    assert value is None or value >= 0


@pytest.mark.parametrize("text", ["9" * 400, "-1", "1.5", "soon", "", "²", None])
def test_retry_after_ignores_what_is_malformed(text):
    assert retry_after_seconds(text, wall=0) in (None, float("inf"))


class Ticket:
    def __init__(self) -> None:
        self.abandoned = False


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_slots_keep_their_bounds_and_strand_nobody(total, per_host, data):
    slots = Slots(total=total, per_host=per_host)
    lanes = [slots.lane() for _ in range(3)]
    running: list = []
    waiting: list[tuple[Ticket, object]] = []
    where: dict[Ticket, object] = {}
    for _ in range(data.draw(st.integers(0, 60))):
        action = data.draw(st.sampled_from(["start", "end", "abandon"]))
        if action == "start":
            lane = data.draw(st.sampled_from(lanes))
            if slots.take(lane):
                running.append(lane)
            else:
                ticket = Ticket()
                where[ticket] = lane
                waiting.append(ticket)
                slots.wait(lane, ticket)
        elif action == "end" and running:
            lane = running.pop(data.draw(st.integers(0, len(running) - 1)))
            granted = slots.give(lane)
            if granted is not None:
                assert not granted.abandoned
                waiting.remove(granted)
                running.append(where[granted])
        elif action == "abandon" and waiting:
            waiting.pop(data.draw(st.integers(0, len(waiting) - 1))).abandoned = True
        assert slots.busy == len(running) <= total
        for lane in lanes:
            assert lane.busy == running.count(lane) <= per_host
        # Whoever waits does so because all slots, or all of its host's, are taken.
        for ticket in waiting:
            assert slots.busy == total or where[ticket].busy == per_host
    while running:
        granted = slots.give(running.pop())
        if granted is not None:
            waiting.remove(granted)
            running.append(where[granted])
    assert not waiting
    assert slots.busy == 0


def test_free_slots_go_round_the_hosts():
    slots = Slots(total=1, per_host=1)
    slow, fast = slots.lane(), slots.lane()
    assert slots.take(slow)
    tickets = {}
    for name, lane in (("slow", slow),) * 3 + (("fast", fast),):
        ticket = Ticket()
        tickets[ticket] = (name, lane)
        slots.wait(lane, ticket)
    order, lane = [], slow
    while (ticket := slots.give(lane)) is not None:
        name, lane = tickets[ticket]
        order.append(name)
    assert order == ["fast", "slow", "slow", "slow"] or order == ["slow", "fast", "slow", "slow"]


@given(st.sampled_from([301, 302, 303, 307, 308]), st.booleans())
def test_redirects_change_the_method_by_the_book(status, same_origin):
    request = post("http://a.test/x", json={}, headers={"Authorization": "s"})
    target = "/y" if same_origin else "http://b.test/y"
    hop = follow(request, request.url, status, target, frozenset())
    kept = status in (307, 308)
    assert hop.method == ("POST" if kept else "GET")
    assert (hop.body is not None) == kept
    names = {name.lower() for name, _ in hop.headers}
    assert ("authorization" in names) == same_origin
    assert ("content-type" in names) == kept
    assert hop.replayable == (hop.method in IDEMPOTENT_METHODS)


def test_a_downgrade_or_another_port_is_another_origin():
    request = get("https://a.test/x", headers={"Cookie": "s"})
    for target in ("http://a.test/", "https://a.test:8443/", "https://A.test/"):
        hop = follow(request, request.url, 302, target, frozenset())
        assert bool(hop.headers) == (target == "https://A.test/")
    with pytest.raises(MisuseError):
        follow(request, request.url, 302, "gopher://a.test/", frozenset())
    assert not is_redirect(304, "/x")
    assert not is_redirect(302, None)
