"""Pure decisions hold for every input."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.model.errors import Error, ErrorKind, MisuseError
from yelpaze.model.request import IDEMPOTENT_METHODS, get, post
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.policy.redirect import follow, is_redirect
from yelpaze.policy.retry import Retry, pause, retry_after_seconds, worth_retrying
from yelpaze.policy.slots import HostQueue, Slots

kinds = st.sampled_from(list(ErrorKind))
statuses = st.integers(100, 599)


def decide(kind, status, *, replayable, keyed=False, policy=Retry()):  # noqa: B008  frozen
    return worth_retrying(policy, replayable=replayable, keyed=keyed, status=status, error=Error(kind, ""))


@given(kinds, statuses)
def test_what_may_have_been_processed_is_not_repeated(kind, status):
    unsent = ("dns", "connect", "timeout.connect", "refused_stream", "out_of_files")
    never_processed = kind in unsent or (kind == "status" and status in (429, 503))
    assert decide(kind, status, replayable=False) == never_processed


@given(kinds, statuses)
def test_a_replayable_request_is_repeated_at_least_where_another_is(kind, status):
    assert decide(kind, status, replayable=True) >= decide(kind, status, replayable=False)
    if kind in ("cancelled", "too_large", "tls", "breaker_open", "host_down", "timeout.deadline"):
        assert not decide(kind, status, replayable=True)


@given(statuses, st.booleans())
def test_a_key_makes_409_worth_another_try_and_422_never(status, replayable):
    with_key = decide(ErrorKind.STATUS, status, replayable=replayable, keyed=True)
    assert with_key == (status == 409 or decide(ErrorKind.STATUS, status, replayable=replayable))
    assert not decide(ErrorKind.STATUS, 422, replayable=True, keyed=True)


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
    blocked: list = []
    slots = Slots(total=total, on_blocked=blocked.append)
    queues = [HostQueue(per_host) for _ in range(3)]
    running: list = []
    waiting: list[Ticket] = []
    where: dict[Ticket, object] = {}
    now = 0.0

    def granted(ticket) -> None:
        assert not ticket.abandoned
        assert where[ticket].blocked_until <= now
        waiting.remove(ticket)
        running.append(where[ticket])

    for _ in range(data.draw(st.integers(0, 60))):
        action = data.draw(st.sampled_from(["start", "end", "abandon", "shut", "later"]))
        if action == "start":
            queue = data.draw(st.sampled_from(queues))
            if slots.take(queue, now):
                assert queue.blocked_until <= now
                running.append(queue)
            else:
                ticket = Ticket()
                where[ticket] = queue
                waiting.append(ticket)
                slots.wait(queue, ticket, now)
        elif action == "end" and running:
            queue = running.pop(data.draw(st.integers(0, len(running) - 1)))
            ticket = slots.give(queue, now)
            if ticket is not None:
                granted(ticket)
        elif action == "abandon" and waiting:
            ticket = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            ticket.abandoned = True
            where[ticket].left()
        elif action == "shut":
            data.draw(st.sampled_from(queues)).blocked_until = now + data.draw(st.integers(1, 5))
        elif action == "later":
            now += 3
            for queue in list(blocked):
                if queue.blocked_until <= now:
                    blocked.remove(queue)
                    slots.open(queue, now)
                    while (ticket := slots.next_ticket(now)) is not None:
                        granted(ticket)
        assert slots.busy == len(running) <= total
        for queue in queues:
            assert queue.busy == running.count(queue) <= per_host
        # Whoever waits does so because all slots are taken, or all of its host's, or it is shut
        # and somebody has been told to open it (or will be, when its turn comes).
        for ticket in waiting:
            queue = where[ticket]
            assert (
                slots.busy == total or queue.busy == per_host or queue.blocked_until > now or queue in blocked
            )
    now += 10
    while running or blocked:
        ticket = slots.give(running.pop(), now) if running else None
        if ticket is not None:
            granted(ticket)
        while blocked:
            slots.open(blocked.pop(), now)
        while (ticket := slots.next_ticket(now)) is not None:
            granted(ticket)
    assert not waiting
    assert slots.busy == 0


def test_free_slots_go_round_the_hosts():
    slots = Slots(total=1)
    slow, fast = HostQueue(1), HostQueue(1)
    assert slots.take(slow, 0.0)
    tickets = {}
    for name, queue in (("slow", slow),) * 3 + (("fast", fast),):
        ticket = Ticket()
        tickets[ticket] = (name, queue)
        slots.wait(queue, ticket, 0.0)
    order, queue = [], slow
    while (ticket := slots.give(queue, 0.0)) is not None:
        name, queue = tickets[ticket]
        order.append(name)
    assert order == ["fast", "slow", "slow", "slow"] or order == ["slow", "fast", "slow", "slow"]


def test_a_rate_over_all_lanes_spreads_their_starts():
    blocked: list = []
    slots = Slots(total=100, rate=Gcra(Rate.parse("10/s")), on_blocked=blocked.append)
    queues = [HostQueue(100) for _ in range(4)]
    now, started = 0.0, []
    for number in range(40):
        queue = queues[number % 4]
        if slots.take(queue, now):
            started.append(now)
        else:
            slots.wait(queue, Ticket(), now)
    while blocked:
        queue = blocked.pop()
        now = max(now, queue.blocked_until)
        slots.open(queue, now)
        while slots.next_ticket(now) is not None:
            started.append(now)
    assert len(started) == 40
    assert started[-1] == pytest.approx(3.9, abs=0.011)


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
