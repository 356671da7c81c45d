"""One suite over the gateway's brokers: what a hub may rely on, whichever it has."""

import asyncio
import itertools

import msgspec
import pytest

from support.needed import needs
from yelpaze.live.brokers.broker import UNUSED_TTL, BrokerUnavailable, HistoryOptions, Query
from yelpaze.live.brokers.memory import MemoryBroker
from yelpaze.live.protocol.values import ClientInfo, Position, Publication

SECONDS = 20  # bound of every wait
META = 600.0
KEEP = HistoryOptions(size=5, ttl=60.0, meta_ttl=META)
ALL = Query(limit=-1)

numbers = itertools.count()


class Heard:
    """What a node hears."""

    def __init__(self):
        self.publications = []
        self.announcements = []
        self.messages = []
        self.changed = asyncio.Condition()

    def on_publication(self, channel, publication, epoch):
        self.publications.append((channel, bytes(publication.data), publication.offset, epoch))
        self._tell()

    def on_join_leave(self, channel, info, *, is_join):
        self.announcements.append((channel, info, is_join))
        self._tell()

    def on_control(self, message):
        self.messages.append(message)
        self._tell()

    def on_reconnected(self):
        raise AssertionError("the broker was never away")

    def _tell(self):
        asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self):
        task = asyncio.ensure_future(self._notified())
        task.add_done_callback(lambda done: done.result())

    async def _notified(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, holds):
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), SECONDS)


class Memory:
    """The broker of one process, with a clock that the test moves."""

    def __init__(self):
        self.now = 1000.0
        epochs = itertools.count(1)
        self.broker = MemoryBroker(lambda: self.now, lambda: f"e{next(epochs)}")

    async def pass_time(self, seconds):
        self.now += seconds

    def others(self):
        return []


class OverRedis:
    """The broker of many processes: time is Redis' own, so expiry is asked of Redis, or waited for."""

    def __init__(self, redis):
        needs("redis")
        from yelpaze.live.brokers.redis import RedisBroker
        from yelpaze.live.config import Redis as Settings

        epochs = itertools.count(1)
        prefix = f"t{next(numbers)}"
        self._made = lambda: RedisBroker(
            Settings(address=redis.url, prefix=prefix), lambda: f"e{next(epochs)}", lambda text: None
        )
        self._others = []
        self.broker = self._made()

    async def pass_time(self, seconds):
        await asyncio.sleep(seconds + 0.05)

    def others(self):
        self._others.append(self._made())
        return self._others[-1:]


@pytest.fixture(params=["memory", "redis"])
async def house(request):
    found = Memory() if request.param == "memory" else OverRedis(request.getfixturevalue("redis"))
    yield found
    for other in getattr(found, "_others", []):
        await other.close()


@pytest.fixture
async def heard():
    return Heard()


@pytest.fixture
async def broker(house, heard):
    await house.broker.start(heard)
    yield house.broker
    await house.broker.close()


def text(number):
    return Publication(msgspec.Raw(b'"%d"' % number))


async def filled(broker, count, keep=KEEP, channel="news"):
    return [await broker.publish(channel, text(number), keep) for number in range(1, count + 1)]


def offsets(history):
    return [one.offset for one in history.publications]


# ── publications ────────────────────────────────────────────────────────────────────


async def test_a_subscriber_hears_what_is_published_in_order(broker, heard):
    await broker.subscribe("news")
    positions = await filled(broker, 20)
    await heard.until(lambda: len(heard.publications) == 20)
    epoch = positions[0].epoch
    assert epoch
    assert positions == [Position(number, epoch) for number in range(1, 21)]
    assert heard.publications == [("news", b'"%d"' % number, number, epoch) for number in range(1, 21)]


async def test_without_history_publications_have_no_offset(broker, heard):
    await broker.subscribe("news")
    assert await broker.publish("news", text(1), None) == Position()
    await heard.until(lambda: heard.publications)
    assert heard.publications == [("news", b'"1"', 0, "")]


@pytest.mark.parametrize(
    "data", [b'"a:b:c"', b'{"a":[1,null]}', b"null", '"\u2028 ğ 🎈"'.encode(), b'"' + b"x" * 60_000 + b'"']
)
async def test_data_and_info_come_through_unchanged(broker, heard, data):
    info = ClientInfo("c1", "u:1", msgspec.Raw(b'{"name":"Ada"}'), msgspec.Raw(b"[1]"))
    await broker.subscribe("a:b #c")
    await broker.publish("a:b #c", Publication(msgspec.Raw(data), info), KEEP)
    await heard.until(lambda: heard.publications)
    assert heard.publications[0][:3] == ("a:b #c", data, 1)
    (kept,) = (await broker.history("a:b #c", ALL, META)).publications
    assert bytes(kept.data) == data
    assert msgspec.json.encode(kept.info) == msgspec.json.encode(info)


async def test_channels_have_streams_of_their_own(broker):
    await filled(broker, 3, channel="a")
    await filled(broker, 1, channel="b")
    assert offsets(await broker.history("a", ALL, META)) == [1, 2, 3]
    assert offsets(await broker.history("b", ALL, META)) == [1]


async def test_a_channel_is_heard_from_when_it_is_subscribed_until_it_is_not(house, broker, heard):
    for other in house.others():  # one process hears all anyway
        await other.start(Heard())
        await other.publish("news", text(1), None)
        await broker.subscribe("news")
        await other.publish("news", text(2), None)
        await heard.until(lambda: heard.publications)
        await broker.unsubscribe("news")
        await broker.subscribe("end")
        await other.publish("news", text(3), None)
        await other.publish("end", text(4), None)
        await heard.until(lambda: len(heard.publications) == 2)
        assert [data for _, data, _, _ in heard.publications] == [b'"2"', b'"4"']


async def test_who_comes_and_goes_in_one_breath_is_in(broker, heard):
    await broker.subscribe("news")
    going = broker.unsubscribe("news"), broker.subscribe("news"), broker.unsubscribe("news")
    for one in going:
        await one
    await broker.subscribe("news")
    await broker.publish("news", text(1), KEEP)
    await heard.until(lambda: heard.publications)
    assert len(heard.publications) == 1


async def test_what_is_asked_at_once_is_all_answered(broker):
    positions = await asyncio.gather(*(broker.publish("news", text(n), KEEP) for n in range(500)))
    assert sorted(one.offset for one in positions) == list(range(1, 501))
    assert offsets(await broker.history("news", ALL, META)) == [496, 497, 498, 499, 500]


# ── history ─────────────────────────────────────────────────────────────────────────


async def test_a_channel_without_history_has_a_position_that_stays(broker):
    first = await broker.history("news", Query(), META)
    assert first.publications == ()
    assert first.position.offset == 0
    assert first.position.epoch
    assert (await broker.publish("news", text(1), KEEP)) == Position(1, first.position.epoch)


async def test_only_so_many_are_kept(broker):
    await filled(broker, 8)
    found = await broker.history("news", ALL, META)
    assert offsets(found) == [4, 5, 6, 7, 8]
    assert found.position.offset == 8


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [-1, 0, 1, 3, 100])
@pytest.mark.parametrize("since", [None, 0, 1, 2, 3, 6, 7, 8, 100])
async def test_a_stretch_is_what_was_asked_for(broker, since, limit, reverse):
    await filled(broker, 7)
    kept = [3, 4, 5, 6, 7]
    position = None if since is None else Position(since, "whatever")
    found = await broker.history("news", Query(position, limit, reverse), META)
    if reverse:
        expected = [one for one in reversed(kept) if since is None or one < since]
    else:
        expected = [one for one in kept if since is None or one > since]
    assert offsets(found) == (expected if limit < 0 else expected[:limit])
    assert found.position.offset == 7


async def test_history_that_is_removed_leaves_the_position(broker):
    positions = await filled(broker, 3)
    await broker.remove_history("news")
    found = await broker.history("news", ALL, META)
    assert found.publications == ()
    assert found.position == positions[-1]
    assert await broker.publish("news", text(4), KEEP) == Position(4, positions[-1].epoch)
    assert offsets(await broker.history("news", ALL, META)) == [4]


async def test_history_that_was_never_there_can_be_removed(broker):
    await broker.remove_history("nobody")
    assert (await broker.history("nobody", ALL, META)).position.offset == 0


async def test_publications_expire_before_the_position(house, broker):
    positions = await filled(broker, 2, HistoryOptions(size=5, ttl=1.0, meta_ttl=META))
    await house.pass_time(1.0)
    found = await broker.history("news", ALL, META)
    assert found.publications == ()
    assert found.position == positions[-1]


async def test_a_stream_that_is_forgotten_begins_anew_under_another_epoch(house, broker):
    (before,) = await filled(broker, 1, HistoryOptions(size=5, ttl=1.0, meta_ttl=1.0))
    await house.pass_time(1.0)
    after = (await broker.history("news", ALL, META)).position
    assert after.offset == 0
    assert after.epoch != before.epoch
    assert await broker.publish("news", text(1), KEEP) == Position(1, after.epoch)


async def test_reading_keeps_the_position_alive(house, broker):
    (before,) = await filled(broker, 1, HistoryOptions(size=5, ttl=1.0, meta_ttl=1.0))
    assert (await broker.history("news", Query(), 600.0)).position == before
    await house.pass_time(1.0)
    assert (await broker.history("news", Query(), 600.0)).position == before


async def test_a_smaller_size_holds_from_the_next_publication_on(broker):
    await filled(broker, 5)
    await broker.publish("news", text(6), HistoryOptions(size=2, ttl=60.0, meta_ttl=META))
    assert offsets(await broker.history("news", ALL, META)) == [5, 6]


# ── idempotency ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keep", [KEEP, None])
async def test_a_key_used_again_publishes_nothing_and_gives_its_position(broker, heard, keep):
    await broker.subscribe("news")
    first = await broker.publish("news", text(1), keep, "key")
    second = await broker.publish("news", text(2), keep, "key")
    other = await broker.publish("news", text(3), keep, "other")
    assert second == first
    assert other.offset == (2 if keep else 0)
    await heard.until(lambda: len(heard.publications) == 2)
    assert [data for _, data, _, _ in heard.publications] == [b'"1"', b'"3"']


async def test_a_key_belongs_to_its_channel(broker):
    await broker.publish("a", text(1), KEEP, "key")
    assert (await broker.publish("b", text(1), KEEP, "key")).offset == 1
    assert offsets(await broker.history("b", ALL, META)) == [1]


async def test_keys_and_channels_with_colons_are_not_mixed_up(broker):
    await broker.publish("a", text(1), KEEP, "b:c")
    await broker.publish("a:b", text(1), KEEP, "c")
    assert offsets(await broker.history("a:b", ALL, META)) == [1]


# ── presence, joins, control ────────────────────────────────────────────────────────


async def test_presence_has_who_is_there(broker):
    ada = ClientInfo("c1", "ada", msgspec.Raw(b'{"x":1}'))
    await broker.add_presence("news", ada, 60.0)
    await broker.add_presence("news", ClientInfo("c2", "bob"), 60.0)
    await broker.add_presence("other", ClientInfo("c3", "eve"), 60.0)
    found = await broker.presence("news")
    assert {client: info.user for client, info in found.items()} == {"c1": "ada", "c2": "bob"}
    assert msgspec.json.encode(found["c1"]) == msgspec.json.encode(ada)
    await broker.remove_presence("news", "c1")
    await broker.remove_presence("news", "nobody")
    assert list(await broker.presence("news")) == ["c2"]
    assert await broker.presence("nowhere") == {}


async def test_presence_that_is_renewed_is_there_once_with_its_last_info(broker):
    await broker.add_presence("news", ClientInfo("c1", "ada"), 60.0)
    await broker.add_presence("news", ClientInfo("c1", "ada", msgspec.Raw(b"2")), 60.0)
    (found,) = (await broker.presence("news")).values()
    assert bytes(found.conn_info) == b"2"


async def test_who_goes_and_comes_at_once_is_there(broker):
    """Nobody waits for a removal."""
    await broker.add_presence("news", ClientInfo("c1", "ada"), 60.0)
    await asyncio.gather(
        broker.remove_presence("news", "c1"), broker.add_presence("news", ClientInfo("c1", "ada"), 1.0)
    )
    assert list(await broker.presence("news")) == ["c1"]


async def test_presence_ends_for_those_whose_node_is_gone(redis):
    """In memory there is no other node, so nobody can go without a word."""
    house = OverRedis(redis)
    await house.broker.start(Heard())
    try:
        await asyncio.gather(
            house.broker.remove_presence("news", "c1"),
            house.broker.add_presence("news", ClientInfo("c1"), 1.0),
            house.broker.add_presence("news", ClientInfo("c2"), 60.0),
        )
        async with asyncio.timeout(SECONDS):
            while "c1" in await house.broker.presence("news"):
                await asyncio.sleep(0.05)
        assert list(await house.broker.presence("news")) == ["c2"]
    finally:
        await house.broker.close()


async def test_joins_and_leaves_are_announced(broker, heard):
    await broker.subscribe("news")
    info = ClientInfo("c1", "ada")
    await broker.publish_join_leave("news", info, is_join=True)
    await broker.publish_join_leave("news", info, is_join=False)
    await heard.until(lambda: len(heard.announcements) == 2)
    assert heard.announcements == [("news", info, True), ("news", info, False)]


async def test_what_a_node_says_all_hear_it_too(house, broker, heard):
    everyone = [heard]
    for other in house.others():
        everyone.append(Heard())
        await other.start(everyone[-1])
    await broker.publish_control(b'{"x":"\xc3\xa9"}')
    for one in everyone:
        await one.until(lambda one=one: one.messages == [b'{"x":"\xc3\xa9"}'])


# ── in memory ───────────────────────────────────────────────────────────────────────


async def test_a_channel_without_publications_is_soon_forgotten(redis):
    """Whoever may subscribe can make up names: they must not stay for as long as a stream's position."""
    memory = Memory()
    await memory.broker.history("made up", ALL, 30 * 86_400.0)
    await memory.pass_time(UNUSED_TTL + 1)
    memory.broker.sweep()
    assert not memory.broker._streams
    over = OverRedis(redis)
    broker = over._made()
    await broker.start(Heard())
    await broker.history("made up", ALL, 30 * 86_400.0)
    key = broker._key("meta", "made up")
    assert 0 < await broker._do("TTL", key) <= UNUSED_TTL
    await broker.publish("made up", text(1), HistoryOptions(size=5, ttl=60.0, meta_ttl=30 * 86_400.0))
    assert await broker._do("TTL", key) > UNUSED_TTL
    await broker.close()


async def test_a_redis_that_takes_nothing_is_as_one_that_is_away(redis):
    over = OverRedis(redis)
    broker = over._made()
    await broker.start(Heard())
    await broker._do("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            for number in (1, 2):  # Redis looks at its memory after a command, so the first may pass
                await broker.publish("news", text(number), KEEP)
    finally:
        await broker._do("CONFIG", "SET", "maxmemory", "0")
    assert (await broker.publish("news", text(3), KEEP)).offset <= 2
    await broker.close()


async def test_memory_forgets_what_has_expired():
    house = Memory()
    await house.broker.start(Heard())
    await filled(house.broker, 2, HistoryOptions(size=5, ttl=10.0, meta_ttl=100.0))
    await house.broker.publish("news", text(3), None, "key")
    await house.pass_time(50)
    house.broker.sweep()
    assert not house.broker._streams["news"].publications
    await house.pass_time(300)
    house.broker.sweep()
    assert house.broker._streams == {}
    assert house.broker._results == {}
    await house.broker.close()


# ── in Redis ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "junk", [b"", b"p", b"p:", b"p1:e", b"px:e:{}", b"p1:e:{", b"p::\xff", b"j{", b"j5", b"?"]
)
async def test_what_others_write_into_our_redis_makes_nobody_deaf(redis, junk):
    from redis.asyncio import Redis

    house, heard = OverRedis(redis), Heard()
    await house.broker.start(heard)
    other = Redis.from_url(redis.url)
    try:
        await house.broker.subscribe("news")
        await other.publish(house.broker._name("news"), junk)
        await house.broker.publish("news", text(1), None)
        await heard.until(lambda: heard.publications)
        assert heard.publications == [("news", b'"1"', 0, "")]
    finally:
        await other.aclose()
        await house.broker.close()
