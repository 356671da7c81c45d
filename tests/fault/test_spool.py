"""Brokers that are away: what is published meanwhile is kept on disk, in order and bounded."""

import asyncio

import pytest

from support.waiting import until_true
from yelpaze.bus import spool
from yelpaze.bus.protocol import BusUnavailable, NewRecord, Topic
from yelpaze.bus.settings import BusSpool
from yelpaze.bus.spool import SpoolingBus
from yelpaze.bus.sqlite import SqliteBus
from yelpaze.config.values import Size

TOPIC = Topic("results", 2)
ROW = 60 + len("a") + len(b"000")  # what one of `some` counts


class Brokers(SqliteBus):
    """A bus whose brokers can be away."""

    is_away = False

    def _reached(self):
        if self.is_away:
            raise BusUnavailable("no brokers")

    async def __aenter__(self):
        self._reached()
        return await super().__aenter__()

    async def create(self, topics):
        self._reached()
        await super().create(topics)

    async def publish(self, topic, records):
        self._reached()
        await super().publish(topic, records)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_AGAIN_SECONDS", 0.01)
    return tmp_path


def spooling(place, brokers, size=1 << 20, said=None):
    settings = BusSpool(path=str(place / "spool.db"), size=Size(size))
    return SpoolingBus(brokers, settings, (said if said is not None else []).append)


def some(*numbers, **options):
    return [NewRecord("a", b"%03d" % number, **options) for number in numbers]


async def read(bus, count):
    async with bus.consume([TOPIC.name], "reader") as consumer:
        found = []
        while len(found) < count:
            records, ack = await consumer.read(1000, 5.0)
            assert records
            found += records
            await ack()
        records, _ = await consumer.read(1000, 0.0)
        return [int(one.value) for one in [*found, *records]]


async def test_what_is_published_meanwhile_comes_after_in_order(place):
    brokers, said = Brokers(str(place / "bus.db")), []
    async with spooling(place, brokers, said=said) as bus:
        await bus.create([TOPIC])
        await bus.publish(TOPIC.name, some(0))
        brokers.is_away = True
        for number in range(1, 50):
            await bus.publish(TOPIC.name, some(number))
        assert bus.spooled == 49
        brokers.is_away = False
        await bus.publish(TOPIC.name, some(50))
        await until_true(lambda: bus.spooled == 0)
        await bus.publish(TOPIC.name, some(51))
        assert await read(bus, 52) == list(range(52))
    assert [notice.kind for notice in said] == ["bus.spooling", "bus.back"]
    assert "50 kept records" in said[1].text


async def test_what_is_published_while_the_first_is_being_kept_does_not_pass_it(place):
    brokers = Brokers(str(place / "bus.db"))
    async with spooling(place, brokers) as bus:
        await bus.create([TOPIC])
        brokers.is_away = True
        first = asyncio.ensure_future(bus.publish(TOPIC.name, some(0)))
        await asyncio.sleep(0)  # it has failed, and is being written
        brokers.is_away = False
        await asyncio.gather(first, bus.publish(TOPIC.name, some(1)))
        assert await read(bus, 2) == [0, 1]


async def test_it_starts_without_brokers_and_after_a_kill(place):
    brokers = Brokers(str(place / "bus.db"))
    brokers.is_away = True
    async with spooling(place, brokers) as bus:
        await bus.create([TOPIC])
        await bus.publish(TOPIC.name, some(0, 1, 2))
    brokers = Brokers(str(place / "bus.db"))
    brokers.is_away = True
    async with spooling(place, brokers) as bus:
        assert bus.spooled == 3
        await bus.create([TOPIC])
        await bus.publish(TOPIC.name, some(3))
        brokers.is_away = False
        await until_true(lambda: bus.spooled == 0)
        assert await read(bus, 4) == [0, 1, 2, 3]


async def test_what_is_of_no_use_later_is_not_kept(place):
    brokers = Brokers(str(place / "bus.db"))
    async with spooling(place, brokers) as bus:
        await bus.create([TOPIC])
        brokers.is_away = True
        await bus.publish(TOPIC.name, [*some(0, is_transient=True), *some(1)])
        assert bus.spooled == 1
        brokers.is_away = False
        await until_true(lambda: bus.spooled == 0)
        assert await read(bus, 1) == [1]


async def test_the_oldest_that_may_be_lost_go_first(place):
    brokers, said = Brokers(str(place / "bus.db")), []
    async with spooling(place, brokers, size=5 * ROW, said=said) as bus:
        await bus.create([TOPIC])
        brokers.is_away = True
        await bus.publish(TOPIC.name, [*some(0), *some(1, is_droppable=True), *some(2)])
        await bus.publish(TOPIC.name, some(3, 4, is_droppable=True))
        await bus.publish(TOPIC.name, some(5, 6))
        assert (bus.spooled, bus.dropped) == (5, 2)
        await bus.publish(TOPIC.name, some(7, 8))  # one that may be lost is left, and then the oldest
        assert (bus.spooled, bus.dropped) == (5, 4)
        brokers.is_away = False
        await until_true(lambda: bus.spooled == 0)
        assert await read(bus, 5) == [2, 5, 6, 7, 8]
    assert "4 were lost for want of room" in said[-1].text


async def test_its_count_is_right_when_records_are_dropped_while_they_are_published(place):
    brokers = Brokers(str(place / "bus.db"))
    async with spooling(place, brokers, size=5 * ROW) as bus:
        await bus.create([TOPIC])
        brokers.is_away = True
        await bus.publish(TOPIC.name, some(*range(5)))
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def publish(topic, records):
            reached.set()
            await go_on.wait()
            await Brokers.publish(brokers, topic, records)

        brokers.publish, brokers.is_away = publish, False
        await reached.wait()
        await bus.publish(TOPIC.name, some(5, 6))
        go_on.set()
        await until_true(lambda: bus._draining is None)
        assert bus.spooled == 0
        assert set(await read(bus, 7)) == set(range(7))


async def test_a_spool_that_cannot_be_written_is_said(place):
    brokers = Brokers(str(place / "bus.db"))
    async with spooling(place, brokers) as bus:
        await bus.create([TOPIC])
        brokers.is_away = True
        await bus._store.close()
        with pytest.raises(BusUnavailable, match=r"spool\.db"):
            await bus.publish(TOPIC.name, some(0))
