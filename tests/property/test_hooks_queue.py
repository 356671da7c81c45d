"""The queue of one endpoint: nothing is lost, keys keep their order, and it is never asked for too much."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yelpaze.hooks.delivery.queue import NEVER, EndpointQueue, Task
from yelpaze.policy.breaker import Breaker, State

BREAKER = Breaker(share=1.0, calls=3, pause=30.0, probes=1)
START = 1_800_000_000_000


def task_of(number, key=None, due=START):
    return Task(f"msg_{number:06}", "app_1", "a.b", b"{}", due, due, 0, 0, 0, key, None, None)


def queue_of(*tasks, proven=True, concurrency=3):
    queue = EndpointQueue("ep_1", 0, BREAKER)
    queue.concurrency = concurrency
    queue.is_loaded = True
    queue.is_proven = proven
    for task in tasks:
        assert queue.offer(task, 100)
    return queue


def waiting(queue):
    return [task.message_id for task in queue.ready]


class Endpoint:
    """A queue as the dispatcher uses it, and what must hold of it."""

    def __init__(self, concurrency, rate, most):
        self.queue = queue_of(concurrency=concurrency, proven=False)
        self.queue.set_rate(rate)
        self.rate = rate
        self.most = most
        self.now = 0.0  # seconds
        self.running = []
        self.started = []
        self.starts = []
        self.ended = set()
        self.numbers = itertools.count()
        self.accepted = {}
        self.canceled = set()
        self.in_store = []

    @property
    def wall(self):
        return START + int(self.now * 1000)

    def accept(self, key):
        """A message is accepted: those before it under the same key are canceled in the store."""
        task = task_of(next(self.numbers), key, self.wall)
        self.accepted[task.message_id] = task
        if key is not None:
            under_way = {one.message_id for one in self.running} | self.ended
            older = [
                one.message_id for one in self.accepted.values() if one.order_key == key and one is not task
            ]
            self.canceled.update(set(older) - under_way)
            self.in_store = [one for one in self.in_store if one.message_id not in self.canceled]
        if not self.queue.offer(task, self.most):
            self.in_store.append(task)
            self.queue.more_at = min(self.queue.more_at, task.due)

    def load(self, _):
        """What the store has is read when nothing else is ready."""
        queue = self.queue
        if queue.ready or queue.more_at > self.wall:
            return
        tasks, self.in_store = self.in_store[: self.most], self.in_store[self.most :]
        for task in tasks:
            queue.taken.add(task.message_id)
            queue.ready.append(task)
        queue.more_at = self.in_store[0].due if self.in_store else NEVER

    def start(self, _):
        queue = self.queue
        seconds = queue.wait(self.wall, self.now)
        assert seconds >= 0
        if seconds > 0:
            return
        assert queue.breaker.state is not State.OPEN
        assert queue.blocked_until <= self.wall
        free = [task for task in queue.ready if task.order_key is None or task.order_key not in queue.keys]
        task = queue.pop()
        assert (task is None) == (not free)
        if task is None:
            return
        is_probing = queue.breaker.state is State.HALF_OPEN or not queue.is_proven
        queue.running += 1
        assert queue.running <= (1 if is_probing else queue.concurrency)
        if task.order_key is not None:
            assert task.order_key not in queue.keys
            queue.keys.add(task.order_key)
        if queue.rate is not None:
            queue.rate.take(self.now)
        task.generation = queue.breaker.generation
        self.running.append(task)
        self.started.append(task)
        self.starts.append(self.now)

    def end(self, which, is_good):
        if not self.running:
            return
        queue = self.queue
        task = self.running.pop(which % len(self.running))
        queue.running -= 1
        queue.keys.discard(task.order_key)
        queue.breaker.record(self.now, is_good, task.generation)
        queue.is_proven = is_good
        queue.taken.discard(task.message_id)
        self.ended.add(task.message_id)

    def block(self, seconds):
        self.queue.blocked_until = max(self.queue.blocked_until, self.wall + int(seconds * 1000))

    def advance(self, seconds):
        self.now += seconds

    def check(self):
        queue = self.queue
        ready = waiting(queue)
        assert len(ready) == len(set(ready)) <= max(self.most, 1)
        assert queue.taken == {*ready, *(task.message_id for task in self.running)}
        known = {
            *ready,
            *(task.message_id for task in self.started),
            *(task.message_id for task in self.in_store),
        }
        assert set(self.accepted) <= known | self.canceled
        assert not self.canceled & set(ready)  # what the store has canceled is not sent
        for key in {task.order_key for task in self.started} - {None}:
            order = [task.message_id for task in self.started if task.order_key == key]
            assert order == sorted(set(order))
        if self.rate is not None:
            for first, last in itertools.combinations(range(len(self.starts)), 2):
                seconds = self.starts[last] - self.starts[first] + 0.011  # the slack of `Gcra`
                assert last - first <= seconds * self.rate + 1e-6

    def finish(self):
        """When time goes on and all succeeds, all that was not canceled is delivered."""
        for _ in range(2000):
            if not self.queue.ready and not self.running and not self.in_store:
                break
            self.load(None)
            self.start(None)
            self.end(0, is_good=True)
            self.advance(1.0)
        assert {task.message_id for task in self.started} == set(self.accepted) - self.canceled


steps = st.one_of(
    st.tuples(st.just("accept"), st.sampled_from([None, None, "a", "b"])),
    st.tuples(st.just("start"), st.none()),
    st.tuples(st.just("start"), st.none()),
    st.tuples(st.just("end"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("load"), st.none()),
    st.tuples(st.just("advance"), st.sampled_from([0.001, 0.1, 1.0, 30.0])),
    st.tuples(st.just("block"), st.sampled_from([0.5, 5.0])),
)


@given(st.integers(1, 4), st.none() | st.integers(1, 20), st.integers(1, 6), st.lists(steps, max_size=60))
@settings(max_examples=200)
def test_whatever_happens_limits_and_order_hold_and_nothing_is_lost(concurrency, rate, most, todo):
    endpoint = Endpoint(concurrency, rate, most)
    for name, *arguments in todo:
        getattr(endpoint, name)(*arguments)
        endpoint.check()
    endpoint.finish()


@pytest.mark.parametrize("seed", range(5))
def test_limits_and_order_hold_in_a_long_life(seed):
    rng = random.Random(seed)
    endpoint = Endpoint(rng.randint(1, 4), None, 10)
    for _ in range(600):
        name = rng.choices(["accept", "start", "end", "load", "advance", "block"], [5, 6, 5, 2, 2, 0.3])[0]
        arguments = {
            "accept": [rng.choice([None, "a", "b", "c"])],
            "end": [rng.randrange(9), rng.random() < 0.7],
            "advance": [rng.choice([0.01, 1.0, 20.0])],
            "block": [rng.choice([0.5, 5.0])],
        }.get(name, [None])
        getattr(endpoint, name)(*arguments)
        endpoint.check()
    endpoint.finish()


# ── whether an attempt may start ────────────────────────────────────────────────


@pytest.mark.parametrize(("proven", "most"), [(True, 3), (False, 1)])
def test_an_endpoint_has_one_attempt_at_a_time_until_it_is_proven(proven, most):
    queue = queue_of(proven=proven)
    for running in range(most):
        queue.running = running
        assert queue.wait(START, 0.0) == 0
    queue.running = most
    assert queue.wait(START, 0.0) == NEVER


def test_an_endpoint_that_failed_with_many_under_way_starts_none_until_they_have_ended():
    queue = queue_of()
    queue.running, queue.is_proven = 2, False
    assert queue.wait(START, 0.0) == NEVER
    queue.running = 0
    assert queue.wait(START, 0.0) == 0


def test_an_open_breaker_is_waited_for_and_then_one_attempt_probes():
    queue = queue_of()
    queue.breaker.trip(100.0)
    assert queue.wait(START, 100.0) == 30.0
    assert queue.wait(START, 129.0) == 1.0
    assert 0 < queue.wait(START, 129.9999) < 0.01
    assert queue.wait(START, 130.0) == 0
    queue.running = 1
    assert queue.breaker.state is State.HALF_OPEN
    assert queue.wait(START, 130.0) == NEVER
    queue.breaker.record(131.0, True, queue.breaker.generation)
    assert queue.wait(START, 131.0) == 0


def test_an_endpoint_that_asks_to_be_left_alone_is_left_alone():
    queue = queue_of()
    queue.blocked_until = START + 2500
    assert queue.wait(START, 0.0) == 2.5
    assert queue.wait(START + 2500, 2.5) == 0


def test_a_rate_spreads_the_attempts():
    queue = queue_of()
    queue.set_rate(2)
    assert queue.wait(START, 10.0) == 0
    queue.rate.take(10.0)
    assert queue.wait(START, 10.0) == pytest.approx(0.49)
    assert queue.wait(START, 10.5) == 0
    queue.set_rate(None)
    assert queue.wait(START, 10.0) == 0


# ── what is ready ───────────────────────────────────────────────────────────────


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=12), st.sets(st.sampled_from("abc")))
def test_the_first_whose_key_is_not_under_way_is_next(keys, under_way):
    queue = queue_of()
    queue.keys.update(under_way)
    queue.ready.extend(task_of(number, key) for number, key in enumerate(keys))
    before = list(queue.ready)
    task = queue.pop()
    free = [one for one in before if one.order_key not in under_way]
    assert task is (free[0] if free else None)
    assert sorted(waiting(queue)) == [one.message_id for one in before if one is not task]
    if task is None:
        assert list(queue.ready) == before


def test_those_that_were_passed_over_are_next_when_their_key_is_free():
    queue = queue_of(task_of(1, "a"), task_of(2), task_of(3))
    queue.keys.add("a")
    assert queue.pop().message_id == "msg_000002"
    queue.keys.clear()
    assert {queue.pop().message_id, queue.pop().message_id} == {"msg_000001", "msg_000003"}
    assert queue.pop() is None


def test_a_newer_message_takes_the_place_of_those_that_wait_under_its_key():
    queue = queue_of(task_of(1, "a"), task_of(2, "b"), task_of(3), task_of(4, "a"))
    assert waiting(queue) == ["msg_000002", "msg_000003", "msg_000004"]
    assert queue.taken == {"msg_000002", "msg_000003", "msg_000004"}


def test_messages_without_a_key_take_no_ones_place():
    assert waiting(queue_of(task_of(1), task_of(2), task_of(3))) == ["msg_000001", "msg_000002", "msg_000003"]


def test_one_that_is_under_way_is_not_forgotten_for_a_newer_one():
    queue = queue_of(task_of(1, "a"))
    task = queue.pop()
    queue.keys.add(task.order_key)
    assert queue.offer(task_of(2, "a"), 100)
    assert queue.taken == {"msg_000001", "msg_000002"}
    assert queue.pop() is None
    queue.keys.clear()
    assert queue.pop().message_id == "msg_000002"


def full(queue):
    return 1


def broken(queue):
    queue.breaker.trip(0.0)
    return 100


def behind(queue):
    queue.more_at = START - 1  # the store has something older
    return 100


@pytest.mark.parametrize("state", [full, broken, behind])
def test_a_newer_message_that_has_to_wait_in_the_store_takes_the_place_of_older_ones_too(state):
    queue = queue_of(task_of(1, "a"))
    queue.offer(task_of(2, "a"), state(queue))
    assert "msg_000001" not in waiting(queue)  # the store has canceled it
    assert queue.taken == set(waiting(queue))


@pytest.mark.parametrize("state", [full, broken, behind])
def test_one_that_has_to_wait_in_the_store_is_not_in_memory(state):
    queue = queue_of(task_of(1))
    assert not queue.offer(task_of(2), state(queue))
    assert waiting(queue) == ["msg_000001"]
    assert queue.taken == {"msg_000001"}


def test_an_endpoint_that_is_paused_or_disabled_takes_nothing():
    queue = queue_of()
    queue.is_idle = True
    assert not queue.offer(task_of(1), 100)
    assert not queue.taken


def test_forgetting_what_is_ready_leaves_what_is_under_way():
    queue = queue_of(task_of(1), task_of(2), task_of(3))
    queue.pop()
    queue.forget_ready()
    assert not queue.ready
    assert queue.taken == {"msg_000001"}
