"""Nodes that die and a Redis that goes: nothing is lost for those who recover, the others are told."""

import shutil
import signal
import threading
from contextlib import ExitStack

import pytest

from support.live import Centrifugo, Events, Gateway, WebSocket, token
from support.needed import absent, needs
from support.redis_server import Redis

CHANNEL = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    "history_size": 10_000,
    "history_ttl": "300s",
    "force_recovery": True,
}
CONFIG = {
    # No pings: these clients look only now and then.
    "client": {"ping_interval": "0s"},
    "websocket": {"plain_ping_interval": "0s"},
    "channel": {"without_namespace": CHANNEL},
}


@pytest.fixture
def nodes(tmp_path):
    """Two nodes with one Redis, all to be killed."""
    needs("redis", "uvloop", "httptools", "jwt", "yaml")
    if shutil.which("redis-server") is None:
        absent("Redis (redis-server)")
    with ExitStack() as stack:

        def start(**options):
            (tmp_path / "redis").mkdir()
            redis = Redis(tmp_path / "redis", **options)
            stack.callback(redis.close)
            both = [Gateway(tmp_path, CONFIG, "--broker", redis.url) for _ in range(2)]
            for node in both:
                stack.callback(node.stop)
            return redis, both

        yield start


@pytest.fixture
def held():
    """Connections that are closed at the end of a test, whatever comes."""
    with ExitStack() as stack:
        yield stack.enter_context


class Publisher(threading.Thread):
    """Publishes numbers, each until it is accepted, by turns on the nodes."""

    def __init__(self, nodes, count):
        super().__init__(daemon=True)
        self._nodes, self._count = nodes, count
        self.reached = threading.Condition()
        self.number = 0
        self.failed = 0

    def run(self):
        for number in range(1, self._count + 1):
            while "error" in self._nodes[number % len(self._nodes)].call(
                "publish", channel="news", data=number, idempotency_key=f"n{number}"
            ):
                self.failed += 1
            with self.reached:
                self.number = number
                self.reached.notify_all()

    def wait_for(self, number):
        with self.reached:
            assert self.reached.wait_for(lambda: self.number >= number, 60), self.number


def subscribed(node, **since):
    client = Centrifugo(node.port, connect={"token": token("42")})
    client.place = client.ask("subscribe", channel="news", **since)
    return client


def test_nobody_misses_anything_while_redis_is_killed_and_started_again(nodes, held):
    count = 600
    redis, both = nodes(keeps=True)
    readers = [held(subscribed(node)) for node in both]
    plain = [held(WebSocket(node.port, f"/ws/news?token={token('7')}")) for node in both]
    events = [held(Events(node.port, "news", token=token("8"))) for node in both]
    both[0].publish("news", 0)
    assert {reader.data() for reader in readers} == {0}
    assert {client.hear() for client in plain} == {"0"}
    assert {stream.next().data for stream in events} == {"0"}
    publisher = Publisher(both, count)
    publisher.start()
    for number in (100, 250, 400):
        publisher.wait_for(number)
        redis.kill()
        redis.start()
    publisher.wait_for(count)
    wanted = list(range(1, count + 1))
    for reader in readers:
        assert [reader.data() for _ in wanted] == wanted
    for client in plain:
        assert [int(client.hear()) for _ in wanted] == wanted
    for stream in events:
        assert [int(stream.next().data) for _ in wanted] == wanted


def test_those_who_cannot_recover_are_told_when_redis_forgets(nodes, held):
    redis, (node, _) = nodes()
    reader, plain = held(subscribed(node)), held(WebSocket(node.port, f"/ws/news?token={token('7')}"))
    events = held(Events(node.port, "news", token=token("8")))
    node.publish("news", "before")
    assert reader.data() == plain.hear() == events.next().data == "before"
    since = len(node.lines)
    redis.kill()
    node.says("Redis is away", since=since)
    redis.start()
    node.says("Redis is back", since=since)
    told = reader.push()
    assert told["channel"] == "news"
    assert told["unsubscribe"] == {"code": 2500, "reason": "insufficient state"}
    again = reader.ask("subscribe", channel="news", recover=True, offset=1, epoch=reader.place["epoch"])
    assert again["was_recovering"]
    assert not again.get("recovered")
    assert again["epoch"] != reader.place["epoch"]
    assert plain.closed() == (3010, "insufficient state")
    with pytest.raises(EOFError):
        events.next()
    with Events(node.port, "news", token=token("8"), last=events.last) as back:
        assert back.next().kind == "missed"


def test_what_is_asked_while_redis_is_away_fails_and_works_again(nodes, held):
    redis, (node, other) = nodes(keeps=True)
    reader = held(subscribed(node))
    redis.kill()
    number = reader.send_command("publish", channel="news", data=1)
    assert reader.reply(number)["error"] == {
        "code": 100,
        "message": "internal server error",
        "temporary": True,
    }
    assert node.call("publish", channel="news", data=1)["error"]["code"] == 100
    with Centrifugo(node.port, connect={"token": token("43")}) as late:
        assert late.refused("subscribe", channel="else") == 100
    since = len(other.lines)
    redis.start()
    other.says("Redis is back", since=since)
    other.publish("news", 2)
    assert reader.data() == 2


def test_clients_of_a_killed_node_find_what_they_missed_on_the_other(nodes, held):
    _, (first, second) = nodes()
    reader = held(subscribed(first))
    second.publish("news", 1)
    assert reader.data() == 1
    first.kill()
    assert reader.closed()[0] == 1006
    for number in range(2, 12):
        second.publish("news", number)
    back = held(subscribed(second, recover=True, offset=1, epoch=reader.place["epoch"]))
    assert back.place["recovered"]
    assert [one["data"] for one in back.place["publications"]] == list(range(2, 12))


def test_a_node_that_drains_sends_its_clients_to_the_other(nodes, held):
    _, (first, second) = nodes()
    readers = [held(subscribed(first)) for _ in range(5)]
    streams = [held(Events(first.port, "news", token=token("8"))) for _ in range(3)]
    second.publish("news", 1)
    assert {reader.data() for reader in readers} == {1}
    assert {stream.next().data for stream in streams} == {"1"}
    first.signal(signal.SIGTERM)
    assert {reader.closed() for reader in readers} == {(3001, "shutdown")}
    second.publish("news", 2)
    for reader in readers:
        with subscribed(second, recover=True, offset=1, epoch=reader.place["epoch"]) as back:
            assert [one["data"] for one in back.place["publications"]] == [2]
    for stream in streams:
        with Events(second.port, "news", token=token("8"), last=stream.last) as back:
            assert back.next().data == "2"


def test_without_redis_a_gateway_does_not_start(gateways):
    with pytest.raises(AssertionError, match=r"Redis at redis://127\.0\.0\.1:1: "):
        gateways(CONFIG, "--broker", "redis://127.0.0.1:1")
