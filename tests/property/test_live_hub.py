"""The hub under a broker whose answers and publications come whenever they like.

What must hold, whatever happens: each member's publications follow its position one by one, each once; one that
was told `recovered` has all since the position that it came with; and when all is quiet, each has what there is
or was told that it has not.
"""

import asyncio
import re
from collections import Counter

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from yelpaze.live.brokers.broker import BrokerUnavailable, Query
from yelpaze.live.config import ChannelOptions
from yelpaze.live.core import eager
from yelpaze.live.core.hub import Hub
from yelpaze.live.core.stream import Membership
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import Refused
from yelpaze.live.protocol.values import History, Position, Publication

NAME = "news"
KEPT = 6
LIMIT = 5
OPTIONS = ChannelOptions(history_size=KEPT, history_ttl=60, force_recovery=True)
POSITIONED = Membership(is_positioned=True, is_recoverable=True)
EVENT = re.compile(rb"id: (\d+):(\w+)\ndata: (\w+-\d+)\n\n")


class Truth:
    """What the stream really is."""

    def __init__(self):
        self.number = 0
        self.anew()

    def anew(self):
        self.number += 1
        self.epoch = f"e{self.number}"
        self.offset = 0
        self.publications = []

    @property
    def position(self):
        return Position(self.offset, self.epoch)

    def add(self):
        self.offset += 1
        data = msgspec.Raw(f'"{self.epoch}-{self.offset}"'.encode())
        self.publications = [*self.publications, Publication(data, None, self.offset)][-KEPT:]
        return self.publications[-1], self.epoch

    def history(self, query):
        found = [one for one in self.publications if query.since is None or one.offset > query.since.offset]
        if query.limit >= 0:
            found = found[: query.limit]
        return History(tuple(found), self.position)


class SubscribeOptions:
    """A call that the broker has not answered: `answer` is what it found, once it has looked."""

    def __init__(self, query=None):
        self.query = query
        self.answer = None
        self.future = asyncio.get_running_loop().create_future()


class FakeBroker:
    """Calls lie in `asked` until a rule answers them; publications in `coming` until a rule brings them."""

    def __init__(self, truth):
        self.truth = truth
        self.is_away = False
        self.is_deaf = False  # Pub/Sub is lost, commands go on
        self.is_subscribed = False
        self.subscribing = []
        self.asked = []
        self.coming = []

    async def subscribe(self, channel):
        if self.is_away or self.is_deaf:
            raise BrokerUnavailable
        asked = SubscribeOptions()
        self.subscribing.append(asked)
        await asked.future

    async def unsubscribe(self, channel):
        self.is_subscribed = False
        for asked in self.subscribing:
            asked.future.set_exception(BrokerUnavailable())
        self.subscribing = []
        self.coming = []

    async def history(self, channel, query, meta_ttl):
        if self.is_away:
            raise BrokerUnavailable
        asked = SubscribeOptions(query)
        self.asked.append(asked)
        return await asked.future

    def publish(self):
        publication = self.truth.add()
        if self.is_subscribed and not self.is_deaf:
            self.coming.append(publication)


class Reader:
    """A member that checks what it is given."""

    kind = encoding.EVENTS
    backlog = None

    def __init__(self, hub, since, can_recover):
        self.hub = hub
        self.can_recover = can_recover
        self.since = since
        self.joined = None
        self.failed = None
        self.is_told = False  # that it has missed something
        self.position = None
        self.transport = self

    def start(self):
        join = self.hub.join(self, NAME, OPTIONS, 600, POSITIONED, self.since)
        eager.start(join, self.let_in, self.refused)

    def let_in(self, joined):
        self.joined = joined
        self.position = joined.position
        if joined.recovered:
            self.position = Position(self.since.offset, joined.position.epoch)
            assert self.since.epoch in ("", joined.position.epoch)
            for one in joined.publications:
                self.take(one.offset, joined.position.epoch, msgspec.json.decode(one.data))
            assert self.position == joined.position
        else:
            assert not joined.publications
            assert self.since is None or not self.can_recover(), "all that it missed is there"

    def refused(self, error):
        assert isinstance(error, BrokerUnavailable | Refused), error
        self.failed = error

    def write(self, data):
        assert self.joined is not None, "a publication before the answer"
        assert not self.is_told, "a publication after the word that some are missing"
        assert EVENT.sub(b"", data) == b""
        for offset, epoch, text in EVENT.findall(data):
            self.take(int(offset), epoch.decode(), text.decode())

    def take(self, offset, epoch, text):
        assert text == f"{epoch}-{offset}", "another epoch's publication"
        assert (offset, epoch) == (self.position.offset + 1, self.position.epoch), "not the next one"
        self.position = Position(offset, epoch)

    def insufficient(self, channel):
        assert not self.is_told
        self.is_told = True
        self.hub.leave(self, channel)


class HubMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.defects = []
        self.truth = Truth()
        self.broker = FakeBroker(self.truth)
        self.hub = Hub(
            self.broker,
            soon=lambda call: self.loop.call_soon(call),
            background=lambda work: eager.start(work, lambda _: None, self.unheard),
            clock=lambda: 0.0,
            recovery_limit=LIMIT,
        )
        self.readers = []
        self.places = [Position()]  # that a reader may come back with
        self.has_lost = False  # something that nobody is told of

    def unheard(self, error):
        if not isinstance(error, BrokerUnavailable | Refused):
            self.defects.append(error)

    def do(self, call):
        """Do it in the loop, and let all that follows from it happen."""

        async def main():
            call()
            for _ in range(12):
                await asyncio.sleep(0)

        errors = []
        self.loop.set_exception_handler(lambda _, context: errors.append(context))
        self.loop.run_until_complete(main())
        for error in (*(context["exception"] for context in errors), *self.defects):
            raise error

    # ── readers ─────────────────────────────────────────────────────────────────

    @initialize(count=st.integers(0, 2), published=st.integers(0, 4))
    def begin(self, count, published):
        for _ in range(count):
            self.come(None, 1)
        self.settle()
        for _ in range(published):
            self.publish(1)
        self.settle()

    @precondition(lambda self: len(self.readers) < 8)
    @rule(pick=st.none() | st.integers(0, 1000), epochless=st.integers(0, 9))
    def come(self, pick, epochless):
        since = None if pick is None else self.places[-1 - pick % len(self.places)]
        if since is not None and not epochless:
            since = Position(since.offset, "")
        epoch = self.truth.epoch
        self.readers.append(
            Reader(self.hub, since, lambda: epoch == self.truth.epoch and self.is_there(since))
        )
        self.do(self.readers[-1].start)

    def is_there(self, since):
        """Whether all since a position is kept, and not too much; not known if calls fail."""
        missed = self.truth.offset - since.offset
        kept = 0 <= missed <= min(LIMIT, len(self.truth.publications))
        return (
            kept and since.epoch in ("", self.truth.epoch) and not self.has_lost and not self.broker.is_away
        )

    @precondition(lambda self: any(reader.joined for reader in self.readers))
    @rule(pick=st.integers(0, 1000))
    def go(self, pick):
        there = [reader for reader in self.readers if reader.joined]
        reader = there[pick % len(there)]
        self.readers.remove(reader)
        self.places.append(reader.position)
        if not reader.is_told:
            self.do(lambda: self.hub.leave(reader, NAME))

    # ── the broker ──────────────────────────────────────────────────────────────

    @rule(count=st.integers(1, 3))
    def publish(self, count):
        for _ in range(count):
            self.broker.publish()
        self.places.append(self.truth.position)

    @rule(
        count=st.integers(1, 4), order=st.randoms(use_true_random=False), times=st.sampled_from((1, 1, 1, 2))
    )
    def arrive(self, count, order, times):
        """Some of what is on its way, in any order, maybe twice."""
        coming = self.broker.coming[:count] * times
        self.broker.coming = self.broker.coming[count:]
        order.shuffle(coming)
        self.do(lambda: [self.hub.on_publication(NAME, one, epoch) for one, epoch in coming])

    @precondition(lambda self: self.broker.coming)
    @rule(pick=st.integers(0, 1000))
    def get_lost(self, pick):
        self.broker.coming.pop(pick % len(self.broker.coming))
        self.has_lost = True

    @precondition(lambda self: self.broker.subscribing and not self.broker.is_deaf)
    @rule(is_heard=st.booleans())
    def subscribed(self, is_heard):
        """The broker has subscribed us; we may hear of that later."""
        self.broker.is_subscribed = True
        if is_heard:
            found, self.broker.subscribing = self.broker.subscribing, []
            self.do(lambda: [asked.future.set_result(None) for asked in found])

    @precondition(lambda self: self.broker.asked)
    @rule(pick=st.integers(0, 1000), is_heard=st.booleans())
    def look(self, pick, is_heard):
        """The broker looks into the stream; the answer may take longer."""
        asked = self.broker.asked[pick % len(self.broker.asked)]
        if asked.answer is None:
            asked.answer = self.truth.history(asked.query)
        if is_heard:
            self.broker.asked.remove(asked)
            self.do(lambda: asked.future.set_result(asked.answer))

    @precondition(lambda self: self.broker.asked)
    @rule()
    def fail(self):
        """One call gets no answer, and nothing else tells that something is wrong."""
        asked = self.broker.asked.pop(0)
        self.has_lost = True
        self.do(lambda: asked.future.set_exception(BrokerUnavailable()))

    @rule()
    def begin_anew(self):
        """The stream was forgotten, and somebody publishes."""
        self.truth.anew()
        self.publish(1)

    @precondition(lambda self: not self.broker.is_deaf)
    @rule(all_of_it=st.booleans())
    def lose(self, all_of_it):
        self.broker.is_deaf = True
        self.broker.coming = []
        if all_of_it:
            self.broker.is_away = True
            asked, self.broker.asked = self.broker.asked, []
            self.do(lambda: [one.future.set_exception(BrokerUnavailable()) for one in asked])

    @precondition(lambda self: self.broker.is_deaf)
    @rule()
    def come_back(self):
        self.broker.is_deaf = self.broker.is_away = False
        self.broker.is_subscribed = NAME in self.hub.streams
        waiting, self.broker.subscribing = self.broker.subscribing, []

        def back():
            for asked in waiting:
                asked.future.set_result(None)
            self.hub.compare_all()

        self.do(back)

    @rule(steps=st.integers(1, 3))
    def work(self, steps):
        """The broker does what it is asked for."""
        for _ in range(steps):
            self.step()

    # ── what must hold ──────────────────────────────────────────────────────────

    @invariant()
    def counts_are_right(self):
        there = [reader for reader in self.readers if reader.joined and not reader.is_told]
        assert self.hub.subscriptions == len(there)

    def step(self):
        """One thing of what is outstanding; whether there was any."""
        if self.broker.subscribing and not self.broker.is_deaf:
            self.subscribed(is_heard=True)
        elif self.broker.asked:
            self.look(0, is_heard=True)
        elif self.broker.coming:
            coming, self.broker.coming = self.broker.coming, []
            self.do(lambda: [self.hub.on_publication(NAME, *one) for one in coming])
        else:
            return False
        return True

    def settle(self):
        if self.broker.is_deaf:
            self.come_back()
        for _ in range(50):
            if not self.step():
                return
        raise AssertionError("it asks without end")

    def teardown(self):
        try:
            self.settle()
            if self.has_lost:  # as is done now and then, because such things happen
                self.do(self.hub.compare_all)
                self.settle()
            for reader in self.readers:
                assert reader.joined or reader.failed, "neither in nor refused"
                if reader.joined and not reader.is_told:
                    assert reader.position == self.truth.position, "it misses some, and does not know"
            self.do(lambda: [self.hub.leave(reader, NAME) for reader in self.readers])
            assert self.hub.streams == {}
            assert not self.broker.is_subscribed
        finally:
            self.loop.close()


class TestHub(HubMachine.TestCase):
    settings = settings(max_examples=300, stateful_step_count=40, report_multiple_bugs=False)


def test_streams_that_differ_are_written_in_the_same_turn():
    """Publications of one turn go out as one write for each member, and in order."""
    written = Counter()

    async def main():
        truth = Truth()
        broker = FakeBroker(truth)
        broker.is_subscribed = True
        loop = asyncio.get_running_loop()
        hub = Hub(broker, soon=loop.call_soon, background=lambda work: None, clock=lambda: 0.0)
        reader = Reader(hub, None, None)
        reader.start()
        broker.subscribing[0].future.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        broker.asked[0].future.set_result(truth.history(broker.asked[0].query))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        take = reader.take

        def counted(*what):
            written["publications"] += 1
            take(*what)

        write = reader.write

        def counted_write(data):
            written["writes"] += 1
            write(data)

        reader.take, reader.write = counted, counted_write
        for _ in range(10):
            hub.on_publication(NAME, *truth.add())
        await asyncio.sleep(0)

    asyncio.run(main())
    assert written == {"publications": 10, "writes": 1}


# ── cases that chance seldom finds ──────────────────────────────────────────────────


@pytest.fixture
def begun():
    """Makes a hub with one reader, who is in."""
    made = []

    def begin(published=0):
        made.append(HubMachine())
        made[-1].begin(1, published)
        return made[-1]

    yield begin
    for machine in made:
        machine.loop.close()


def come_back_with(machine, since):
    """A reader who comes with a position; the broker has been asked for what it missed."""
    reader = Reader(machine.hub, since, lambda: True)
    machine.readers.append(reader)
    machine.do(reader.start)
    return reader


def test_what_comes_between_the_look_and_its_answer_is_not_missing(begun):
    machine = begun(3)
    reader = come_back_with(machine, Position(1, "e1"))
    machine.look(0, is_heard=False)
    machine.publish(2)
    machine.arrive(2, NoOrder(), 1)
    machine.step()
    assert reader.joined.recovered
    assert [one.offset for one in reader.joined.publications] == [2, 3, 4, 5]
    machine.teardown()


def test_an_answer_that_is_older_than_the_stream_is_asked_for_again(begun):
    machine = begun(2)
    coming = machine.truth.history(Query(Position(1, "e1"), -1))
    reader = come_back_with(machine, Position(1, "e1"))
    machine.publish(1)
    machine.arrive(1, NoOrder(), 1)
    late = come_back_with(machine, Position(1, "e1"))
    machine.broker.asked[1].answer = coming  # as of a replica
    machine.settle()
    assert reader.joined.recovered
    assert late.joined.recovered
    assert [one.offset for one in late.joined.publications] == [2, 3]
    machine.teardown()


def test_answers_that_stay_too_old_are_an_error_that_passes(begun):
    machine = begun(2)
    old = machine.truth.history(Query(Position(1, "e1"), -1))
    machine.publish(1)
    machine.arrive(1, NoOrder(), 1)
    reader = come_back_with(machine, Position(1, "e1"))
    while machine.broker.asked:
        machine.broker.asked[0].answer = old
        machine.step()
    assert isinstance(reader.failed, Refused)
    assert reader.failed.failure.temporary
    machine.teardown()


def test_a_gap_is_not_closed_by_an_answer_from_before_it(begun):
    machine = begun(2)
    old = machine.truth.history(Query(Position(2, "e1"), -1))
    machine.publish(3)
    machine.broker.coming.pop(0)
    machine.arrive(2, NoOrder(), 1)
    machine.broker.asked[0].answer = old
    machine.settle()
    assert machine.readers[0].position == Position(5, "e1")
    assert not machine.readers[0].is_told
    machine.teardown()


def test_what_came_before_a_stream_began_anew_keeps_its_epoch(begun):
    machine = begun(2)
    machine.publish(1)
    machine.begin_anew()
    coming, machine.broker.coming = machine.broker.coming, []

    def both():  # in one turn, with the answer
        for one, epoch in coming:
            machine.hub.on_publication(NAME, one, epoch)
        machine.broker.asked[0].future.set_result(machine.truth.history(machine.broker.asked.pop(0).query))
        for _ in range(3):
            machine.loop.call_soon(lambda: None)

    soon = []
    machine.hub._soon = soon.append  # the turn's end comes after the answer
    machine.do(both)
    (reader,) = machine.readers
    assert reader.is_told
    assert reader.position == Position(3, "e1")
    machine.do(lambda: [call() for call in soon])
    machine.hub._soon = machine.loop.call_soon
    machine.teardown()


def test_one_who_cannot_catch_up_because_the_broker_is_away_is_asked_to_come_again(begun):
    machine = begun(2)
    machine.publish(2)
    machine.broker.coming = []
    reader = come_back_with(machine, Position(1, "e1"))
    machine.look(0, is_heard=True)  # it is ahead of the stream, which now asks for itself
    machine.fail()
    assert isinstance(reader.failed, BrokerUnavailable)
    machine.teardown()


def test_one_channel_that_cannot_be_written_holds_up_no_other(begun):
    machine = begun()
    (reader,) = machine.readers
    other = Reader(machine.hub, None, None)
    machine.do(
        lambda: eager.start(
            machine.hub.join(other, "other", ChannelOptions(), 600, Membership()), other.let_in, other.refused
        )
    )
    machine.settle()
    assert other.joined
    broken = Publication(msgspec.Raw(b'"\\'))
    with pytest.raises(msgspec.DecodeError):
        machine.do(
            lambda: (
                machine.hub.on_publication("other", broken, ""),
                machine.hub.on_publication(NAME, *machine.truth.add()),
            )
        )
    machine.do(lambda: None)
    assert reader.position == Position(1, "e1")
    machine.do(lambda: machine.hub.leave(other, "other"))
    machine.broker.is_subscribed = False
    machine.do(lambda: machine.hub.leave(reader, NAME))
    machine.loop.close()


def test_no_limit_of_recovery_is_none(begun):
    machine = begun(6)
    machine.hub._recovery_limit = Hub(
        machine.broker, soon=lambda _: None, background=lambda _: None, clock=lambda: 0.0, recovery_limit=0
    )._recovery_limit
    reader = come_back_with(machine, Position(0, "e1"))
    machine.settle()
    assert reader.joined.recovered
    assert len(reader.joined.publications) == 6
    machine.teardown()


class NoOrder:
    """Keeps the order."""

    @staticmethod
    def shuffle(_):
        pass


def test_an_answer_from_before_an_outage_does_not_hide_what_was_missed_in_it(begun):
    machine = begun(2)
    machine.publish(2)
    machine.broker.coming.pop(0)
    machine.arrive(1, NoOrder(), 1)  # a gap: the stream asks
    machine.look(0, is_heard=False)
    machine.lose(all_of_it=False)
    machine.publish(1)
    machine.come_back()
    machine.settle()
    assert machine.readers[0].position == Position(5, "e1")
    machine.teardown()


def test_a_position_from_before_an_outage_is_not_taken(begun):
    machine = HubMachine()
    machine.come(None, 1)
    machine.subscribed(is_heard=True)
    machine.look(0, is_heard=False)
    machine.lose(all_of_it=False)
    machine.publish(1)
    machine.come_back()
    machine.settle()
    assert machine.readers[0].joined.position == Position(1, "e1")
    machine.teardown()
