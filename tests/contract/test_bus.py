"""What every backend of the bus must do: SQLite, and (slow) a real Kafka."""

import asyncio
import contextlib
import uuid

import pytest

from yelpaze.bus.opening import open_bus
from yelpaze.bus.positions import POSITIONS, FencedError, StoredPositions
from yelpaze.bus.protocol import NewRecord, Topic
from yelpaze.bus.settings import BUS_SETTINGS
from yelpaze.model.errors import InputError
from yelpaze.store.opening import open_store

BACKENDS = ["sqlite", pytest.param("kafka", marks=pytest.mark.slow)]


class Place:
    """A bus that is empty, and names of its own, since a broker is shared."""

    def __init__(self, url):
        self.name = uuid.uuid4().hex[:8]
        self.settings = BUS_SETTINGS.of({"url": url, "lease": "6s", "prefix": f"{self.name}."})

    def opened(self):
        return open_bus(self.settings)

    def topic(self, partitions=1, **options):
        return Topic(f"t-{uuid.uuid4().hex[:8]}", partitions, **options)


@pytest.fixture(params=BACKENDS)
def place(request, tmp_path):
    if request.param == "sqlite":
        return Place(str(tmp_path / "bus.db"))
    return Place(f"kafka://{request.getfixturevalue('kafka').bootstrap}")


def some(count, keys=1, start=0):
    return [NewRecord(f"k{n % keys}", b"%d" % n) for n in range(start, start + count)]


async def read(consumer, count):
    """Read exactly that many, and acknowledge them."""
    found = []
    while len(found) < count:
        records, ack = await consumer.read(count - len(found), 10.0)
        found += records
        await ack()
    return found


async def test_records_come_in_order_with_their_key(place):
    topic = place.topic(4)
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(100, keys=10))
        async with bus.consume([topic.name], "g") as consumer:
            found = await read(consumer, 100)
    assert sorted(int(one.value) for one in found) == list(range(100))
    for key in range(10):
        of_key = [one for one in found if one.key == f"k{key}"]
        assert [int(one.value) for one in of_key] == list(range(key, 100, 10))
        assert len({one.partition for one in of_key}) == 1
    assert all(one.topic == topic.name and one.at > 1_700_000_000_000 for one in found)


async def test_what_is_acknowledged_is_not_read_again(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(10))
        async with bus.consume([topic.name], "g") as consumer:
            await read(consumer, 4)
            await consumer.read(3, 10.0)  # these are not acknowledged
        async with bus.consume([topic.name], "g") as consumer:
            assert [int(one.value) for one in await read(consumer, 6)] == list(range(4, 10))


async def test_each_group_reads_everything(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(5))
        for group in ("a", "b"):
            async with bus.consume([topic.name], f"{group}{place.name}") as consumer:
                assert len(await read(consumer, 5)) == 5


async def test_a_given_partition_counts(place):
    topic = place.topic(3)
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, [NewRecord("same", b"x", partition=n) for n in (2, 0)])
        async with bus.consume([topic.name], "g") as consumer:
            assert {one.partition for one in await read(consumer, 2)} == {0, 2}


async def test_records_are_there_after_a_restart(place):
    topic = place.topic(2)
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(20, keys=5))
    async with place.opened() as bus, bus.consume([topic.name], "g") as consumer:
        assert len(await read(consumer, 20)) == 20


async def test_partitions_are_divided_among_the_members_and_taken_over(place):
    topic = place.topic(4)
    async with place.opened() as bus, contextlib.AsyncExitStack() as stack:
        await bus.create([topic])
        members = []
        for count in (1, 2):
            member = await stack.enter_async_context(bus.consume([topic.name], f"g{place.name}"))
            members.append(member)

            async def is_divided(count=count):
                for one in members:
                    await one.read(1, 0.2)
                return sorted(len(one.assigned) for one in members) == [4 // count] * count

            await eventually(is_divided)
        assert not members[0].assigned & members[1].assigned
        await members[1].__aexit__(None, None, None)

        async def has_all():
            await members[0].read(1, 0.2)
            return len(members[0].assigned) == 4

        await eventually(has_all)


async def eventually(is_so):
    async with asyncio.timeout(60):
        while not await is_so():
            pass


class Listener:
    def __init__(self, start):
        self.start = start
        self.heard = []

    async def on_assigned(self, partitions):
        self.heard.append(("assigned", len(partitions)))
        return dict.fromkeys(partitions, self.start)

    async def on_revoked(self, partitions):
        self.heard.append(("revoked", len(partitions)))


async def test_a_listener_says_where_to_start(place):
    topic = place.topic(2)
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, [NewRecord("", b"%d" % n, partition=n % 2) for n in range(10)])
        listener = Listener(3)
        async with bus.consume([topic.name], f"g{place.name}", listener) as consumer:
            assert sorted(int(one.value) for one in await read(consumer, 4)) == [6, 7, 8, 9]
            await consumer.seek({(topic.name, 1): 0})
            assert [int(one.value) for one in await read(consumer, 5)] == [1, 3, 5, 7, 9]
        assert listener.heard == [("assigned", 2), ("revoked", 2)]


async def test_a_reader_without_a_group_begins_at_the_end(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(3))
        async with bus.consume([topic.name]) as consumer:
            await bus.publish(topic.name, some(1, start=3))
            assert [int(one.value) for one in await read(consumer, 1)] == [3]


async def test_replay_from_a_time(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(1))
        async with bus.consume([topic.name], "g") as consumer:
            [first] = await read(consumer, 1)
        before = await bus.offsets_at(topic.name, first.at)
        after = await bus.offsets_at(topic.name, first.at + 3_600_000)
    assert before == {(topic.name, 0): 0}
    assert after == {(topic.name, 0): 1}


async def test_lag_is_what_a_group_has_not_acknowledged(place):
    topic, group = place.topic(), f"g{place.name}"
    async with place.opened() as bus:
        await bus.create([topic])
        await bus.publish(topic.name, some(10))
        async with bus.consume([topic.name], group) as consumer:
            await read(consumer, 4)
            [lag] = [one for one in await bus.lag() if one.group == group]
        assert (lag.topic, lag.position, lag.end, lag.behind) == (topic.name, 4, 10, 6)
        [state] = [one for one in await bus.topics() if one.name == topic.name]
        assert (state.partitions, state.records) == (1, 10)


async def test_a_slow_consumer_gets_everything(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        async with bus.consume([topic.name], "g") as consumer:
            found = []
            for number in range(20):
                await bus.publish(topic.name, some(50, start=50 * number))
                records, ack = await consumer.read(10, 10.0)
                found += records
                await ack()
            found += await read(consumer, 1000 - len(found))
    assert [int(one.value) for one in found] == list(range(1000))


async def test_many_publish_at_once(place):
    topic = place.topic(8)
    async with place.opened() as bus:
        await bus.create([topic])
        await asyncio.gather(*(bus.publish(topic.name, some(50, keys=7, start=50 * n)) for n in range(40)))
        async with bus.consume([topic.name], "g") as consumer:
            found = await read(consumer, 2000)
    assert sorted(int(one.value) for one in found) == list(range(2000))


async def test_another_number_of_partitions_is_refused(place):
    topic = place.topic(2)
    async with place.opened() as bus:
        await bus.create([topic])
        with pytest.raises(InputError, match="has 2 partitions, and 3 are needed"):
            await bus.create([Topic(topic.name, 3)])


async def test_a_topic_that_is_not_there_is_named(place):
    async with place.opened() as bus:
        with pytest.raises(InputError, match="no topic nowhere"):
            await bus.publish("nowhere", some(1))
        with pytest.raises(InputError, match="no topic nowhere"):
            async with bus.consume(["nowhere"], "g"):
                pass


async def test_positions_in_the_store_fence_off_who_was_frozen(place, tmp_path):
    topic = place.topic()
    stored = StoredPositions("evaluate")
    where = (topic.name, 0)
    async with place.opened() as bus, open_store(str(tmp_path / "store.db"), POSITIONS) as store:
        await bus.create([topic])
        await bus.publish(topic.name, some(4))
        await store.write(lambda session: stored.advance(session, {}, {where: 2}))
        with pytest.raises(FencedError, match="is at 2, not at 1"):
            await store.write(lambda session: stored.advance(session, {where: 1}, {where: 3}))
        with pytest.raises(FencedError, match="is at 2, not at 0"):
            await store.write(lambda session: stored.advance(session, {}, {where: 1}))

        class FromStore(Listener):
            async def on_assigned(self, partitions):
                return await store.read(lambda session: stored.of(session, partitions))

        async with bus.consume([topic.name], f"g{place.name}", FromStore(0)) as consumer:
            assert [int(one.value) for one in await read(consumer, 2)] == [2, 3]


async def test_a_waiting_reader_is_woken(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        async with bus.consume([topic.name], "g") as consumer:
            waiting = asyncio.ensure_future(consumer.read(1, 30.0))
            await asyncio.sleep(0)
            await bus.publish(topic.name, some(1))
            records, _ = await waiting
            assert len(records) == 1


async def test_a_cancelled_reader_does_no_harm(place):
    topic = place.topic()
    async with place.opened() as bus:
        await bus.create([topic])
        async with bus.consume([topic.name], f"g{place.name}") as consumer:
            waiting = asyncio.ensure_future(consumer.read(1, 0.5))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await bus.publish(topic.name, some(1))
        async with bus.consume([topic.name], f"g{place.name}") as consumer:
            assert len(await read(consumer, 1)) == 1
