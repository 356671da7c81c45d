"""A Redis that is there and refuses says why on stderr; gateways on two of its databases are apart."""

import itertools
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from support.needed import absent, needs
from support.nginx import free_port
from support.redis_server import Redis
from support.waiting import until, until_true
from yelpaze.live.brokers.broker import BrokerUnavailable, HistoryOptions, Query
from yelpaze.live.config import Redis as Settings
from yelpaze.live.protocol.values import ClientInfo, Publication
from yelpaze.model.errors import InputError, StoppedError

KEEP = HistoryOptions(size=5, ttl=60.0, meta_ttl=600.0)
ONE = Publication(msgspec.Raw(b"1"))
DOCS = Path(__file__).parents[2] / "docs" / "live.md"


class Heard:
    """What a broker has told its node."""

    def __init__(self):
        self.publications, self.joins, self.messages = [], [], []
        self.reconnected = 0

    def on_publication(self, channel, publication, epoch):
        self.publications.append((channel, bytes(publication.data)))

    def on_join_leave(self, channel, info, *, is_join):
        self.joins.append((channel, info.client, is_join))

    def on_control(self, message):
        self.messages.append(message)

    def on_reconnected(self):
        self.reconnected += 1


@pytest.fixture
def servers(tmp_path):
    """A factory of Redis servers, all to be ended."""
    needs("redis")
    if shutil.which("redis-server") is None:
        absent("Redis (redis-server)")
    started = []

    def start(*flags):
        folder = tmp_path / f"redis{len(started)}"
        folder.mkdir()
        started.append(Redis(folder, *flags))
        return started[-1]

    yield start
    for server in started:
        server.close()


class House:
    """A broker, what it has said, and what it has told its node."""

    def __init__(self, address, prefix="yelpaze"):
        from yelpaze.live.brokers.redis import RedisBroker

        self.now = 1000.0
        self.notices = []
        self.heard = Heard()
        epochs = itertools.count()
        self.broker = RedisBroker(
            Settings(address=address, prefix=prefix),
            lambda: f"e{next(epochs)}",
            self.notices.append,
            clock=lambda: self.now,
        )

    def said(self, kind="broker.refused"):
        return [notice.text for notice in self.notices if notice.kind == kind]


@pytest.fixture
async def houses():
    """A factory of brokers that have started, all to be closed."""
    opened = []

    async def open_(address, **options):
        house = House(address, **options)
        opened.append(house)
        await house.broker.start(house.heard)
        return house

    yield open_
    for house in opened:
        await house.broker.close()


async def test_a_read_only_replica_is_named_with_what_to_do_once_a_minute(servers, houses):
    primary = servers()
    replica = servers("--replicaof", "127.0.0.1", str(primary.port))
    house = await houses(replica.url)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            await house.broker.publish("news", ONE, KEEP)
    (told,) = house.said()
    assert "it is a read-only replica: set broker.redis.address to the primary" in told
    house.now += 61
    with pytest.raises(BrokerUnavailable):
        await house.broker.history("news", Query(), 60.0)
    assert house.said() == [told, told]


async def test_a_program_that_publishes_is_told_the_reason(servers, capsys):
    from yelpaze import Live

    replica = servers("--replicaof", "127.0.0.1", str(servers().port))
    options = {"history_size": 5, "history_ttl": "60s"}
    async with Live({"channel": {"without_namespace": options}}, broker=replica.url) as live:
        with pytest.raises(StoppedError, match=r"the broker refuses: .* read-only replica"):
            await live.publish("news", 1)
    assert "read-only replica" in capsys.readouterr().err


async def test_a_cluster_is_named_with_what_to_do(servers, houses):
    cluster = servers("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    cluster.ask("CLUSTER ADDSLOTSRANGE 0 16383")
    until(lambda: cluster.ask("SET one 1") == b"+OK")
    house = await houses(cluster.url)
    with pytest.raises(BrokerUnavailable):
        await house.broker.publish("news", ONE, KEEP)
    (told,) = house.said()
    assert "a node of Redis Cluster, which is not supported" in told


async def use(broker, heard):
    """Everything that a node asks of Redis."""
    info = ClientInfo("c1", "ada")
    await broker.subscribe("news")
    await broker.publish("news", ONE, None)
    await broker.publish("news", ONE, KEEP)
    await broker.publish("news", ONE, KEEP, "key")
    await broker.publish("news", ONE, None, "key")
    await broker.history("news", Query(limit=-1), 60.0)
    await broker.history("news", Query(limit=1, reverse=True), 60.0)
    await broker.add_presence("news", info, 60.0)
    assert list(await broker.presence("news")) == ["c1"]
    await broker.remove_presence("news", "c1")
    await broker.publish_join_leave("news", info, is_join=True)
    await broker.publish_control(b"hello")
    await broker.remove_history("news")
    await until_true(lambda: len(heard.publications) == 3 and heard.joins and heard.messages)
    await broker.unsubscribe("news")


def documented():
    """The user's permissions, as docs/live.md gives them."""
    (rules,) = re.findall(r"ACL SETUSER gateway on '>PASSWORD' (.*)", DOCS.read_text())
    return rules.replace("'", "")


async def test_a_user_with_the_documented_permissions_may_do_all_that_is_needed(servers, houses):
    server = servers()
    assert server.ask(f"ACL SETUSER gateway on >secret {documented()}") == b"+OK"
    house = await houses(f"redis://gateway:secret@127.0.0.1:{server.port}/1")
    await use(house.broker, house.heard)
    assert house.notices == []


@pytest.mark.parametrize("missing", ["-xadd", "-hset", "-evalsha", "resetkeys ~other:*", "resetchannels"])
async def test_a_user_without_a_permission_is_told_which_ones_are_needed(servers, houses, missing):
    server = servers()
    server.ask(f"ACL SETUSER gateway on >secret {documented()} {missing}")
    house = await houses(f"redis://gateway:secret@127.0.0.1:{server.port}")
    with pytest.raises(BrokerUnavailable):
        await house.broker.publish("news", ONE, KEEP)
    await until_true(house.said)
    assert "the permissions in docs/live.md" in house.said()[0]


async def test_what_is_missing_at_the_start_ends_it_with_the_reason(servers):
    server = servers()
    server.ask(f"ACL SETUSER gateway on >secret {documented()} -script|load")
    broker = House(f"redis://gateway:secret@127.0.0.1:{server.port}").broker
    with pytest.raises(StoppedError, match=r"127\.0\.0\.1:\d+: .*the permissions in docs/live\.md") as found:
        await broker.start(Heard())
    assert "secret" not in str(found.value)
    wrong = House(f"redis://gateway:wrong@127.0.0.1:{server.port}").broker
    with pytest.raises(StoppedError, match="it wants a password, or another"):
        await wrong.start(Heard())


async def test_a_password_that_was_changed_is_told_while_it_is_away(servers, houses):
    server = servers()
    server.ask("ACL SETUSER gateway on >secret ~* &* +@all")
    house = await houses(f"redis://gateway:secret@127.0.0.1:{server.port}")
    server.ask("ACL SETUSER gateway resetpass >another")
    server.ask("CLIENT KILL TYPE pubsub")
    await until_true(house.said)
    assert "it wants a password, or another" in house.said()[0]
    server.ask("ACL SETUSER gateway >secret")
    await until_true(lambda: house.heard.reconnected)
    await use(house.broker, house.heard)


@pytest.mark.parametrize("query", [False, True])
async def test_databases_of_one_redis_are_apart(servers, houses, query):
    server = servers()
    ends = ("?db=0", "?db=1") if query else ("", "/1")
    zero, one = [await houses(server.url + end) for end in ends]
    peer = await houses(server.url + ends[1])
    for house in (zero, one):
        await house.broker.subscribe("news")
    await use(zero.broker, zero.heard)
    assert (await one.broker.history("news", Query(limit=-1), 60.0)).publications == ()
    await peer.broker.publish("news", Publication(msgspec.Raw(b"2")), None)
    await peer.broker.publish_control(b"of one")
    await until_true(lambda: one.heard.publications and one.heard.messages)
    assert (one.heard.publications, one.heard.messages) == ([("news", b"2")], [b"of one"])
    assert one.heard.joins == []
    assert (zero.heard.messages, peer.heard.messages) == ([b"hello"], [b"of one"])


@pytest.mark.parametrize("path", ["/production", "/1x", "/-1"])
def test_a_database_that_is_no_number_is_refused(path):
    needs("redis")
    with pytest.raises(InputError, match=f"{path} is no database"):
        House(f"redis://127.0.0.1:6379{path}")


def test_a_prefix_and_a_database_cannot_be_taken_for_another_prefix():
    needs("redis")
    names = {
        House(f"redis://127.0.0.1{path}", prefix=prefix).broker._name("x")
        for prefix in ("a", "a:1", "a:1:1")
        for path in ("", "/1", "/11")
    }
    assert len(names) == 9


def test_a_path_of_a_unix_socket_is_no_database():
    needs("redis")
    assert House("unix:///run/redis/redis.sock?db=3").broker._name("x") == "yelpaze:3:channel:x"


def test_what_redis_repeats_of_a_command_is_not_told():
    needs("redis")
    from redis.exceptions import ResponseError

    from yelpaze.live.brokers.redis_refusals import explained

    error = ResponseError("unknown command 'EVALSHA', with args beginning with: 'a' 'secret data' ")
    assert explained(error) == "unknown command 'EVALSHA'"
