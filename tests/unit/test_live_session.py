"""A client of Centrifugo's protocol without a socket: what it asks, what it is told, and how it ends."""

import asyncio
import itertools
import json

import jwt
import msgspec
import pytest

from yelpaze.live.brokers.broker import BrokerUnavailable, HistoryOptions
from yelpaze.live.brokers.memory import MemoryBroker
from yelpaze.live.core.cluster import ControlMessage
from yelpaze.live.core.node import Node
from yelpaze.live.protocol import encoding
from yelpaze.live.protocol.codes import Ending
from yelpaze.live.protocol.values import Publication
from yelpaze.live.sessions.centrifugo import CentrifugoSession
from yelpaze.live.sessions.plain import PlainSession
from yelpaze.live.settings import LIVE
from yelpaze.live.transports.connection import Connection

SECRET = "a secret of the tests that is long enough for HS256"
NOW = 1_700_000_000
OPEN = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
HISTORY = {**OPEN, "history_size": 10, "history_ttl": "60s", "force_recovery": True}


def token(user="42", **claims):
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


def one(value):
    return Publication(msgspec.Raw(json.dumps(value).encode()))


def keep():
    return HistoryOptions(10, 60.0, 600.0)


class Away:
    """A memory broker whose calls wait for `lets`, or fail while it is away."""

    def __init__(self, broker):
        self._broker = broker
        self.is_away = False
        self.lets = asyncio.Event()
        self.lets.set()

    def __getattr__(self, name):
        method = getattr(self._broker, name)
        if name in ("start", "close", "sweep") or name.startswith("_"):
            return method

        async def call(*args, **options):
            if not self.lets.is_set():
                waiting = asyncio.get_running_loop().create_future()
                task = asyncio.ensure_future(self.lets.wait())
                task.add_done_callback(lambda _: waiting.set_result(None))
                await waiting
            if self.is_away:
                raise BrokerUnavailable
            return await method(*args, **options)

        return call


class House:
    """A node in memory, with clocks that the test moves."""

    def __init__(self, **sections):
        self.seconds = 1000.0
        self.lines = []
        self.slept = []
        client = {"token": {"hmac_secret_key": SECRET}, **sections.pop("client", {})}
        channel = {"without_namespace": OPEN, **sections.pop("channel", {})}
        config = LIVE.of({"client": client, "channel": channel, **sections})
        epochs = itertools.count(1)
        self.broker = Away(MemoryBroker(lambda: self.seconds, lambda: f"e{next(epochs)}"))
        self.node = Node(
            config,
            self.broker,
            now=lambda: NOW + self.seconds - 1000,
            clock=lambda: self.seconds,
            random=lambda: 0.5,
            report=lambda notice: self.lines.append(str(notice)),
        )
        self.node.sleep = self.sleep
        self.sleeping = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        waiting = asyncio.get_running_loop().create_future()
        self.sleeping.append(waiting)
        await waiting

    async def wake(self):
        sleeping, self.sleeping = self.sleeping, []
        for waiting in sleeping:
            waiting.set_result(None)
        await turn()

    async def pass_time(self, seconds):
        for _ in range(seconds):
            self.seconds += 1
            self.node.wheel.tick()
        await turn()

    def peer(self):
        return Peer(self.node)

    async def client(self, user="42", **claims):
        """One who is connected."""
        peer = self.peer()
        reply = await peer.ask("connect", token=token(user, **claims))
        assert "connect" in reply, reply
        return peer


async def turn():
    for _ in range(10):
        await asyncio.sleep(0)


class Transport:
    def __init__(self):
        self.lines = []

    def write(self, data):
        self.lines += data if isinstance(data, list) else data.split("\n")

    def abort(self):
        self.lines.append("aborted")


class Peer(Connection):
    """A connection that records; all but its socket is real."""

    def __init__(self, node, kind=encoding.CENTRIFUGO_TEXT):
        super().__init__(node, Transport(), kind, "")
        self.ended = None
        self.is_read = True
        self.is_greeted = False
        self.pongs = 0
        self.read = 0
        self.numbers = itertools.count(1)
        is_plain = kind == encoding.PLAIN_TEXT
        self.session = PlainSession(node, self, "news") if is_plain else CentrifugoSession(node, self)

    def send(self, message):
        if self.ended is None:
            self.put(message.decode())

    def greeted(self):
        self.is_greeted = True

    def ponged(self):
        self.pongs += 1

    def pause(self):
        self.is_read = False

    def resume(self):
        self.is_read = True

    def end(self, ending):
        if self.ended is None:
            self.ended = ending.code
            self.backlog = None
            self.session.client.closed()

    def wake(self):
        raise AssertionError("it lies in no wheel")

    # ── the client's side ───────────────────────────────────────────────────────

    def say(self, *lines):
        self.session.receive(
            "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()
        )

    def new(self):
        """What came since this was asked last."""
        found, self.read = self.transport.lines[self.read :], len(self.transport.lines)
        return [json.loads(line) for line in found]

    def pushes(self):
        return [line["push"] for line in self.new() if "push" in line]

    def data(self):
        return [push["pub"]["data"] for push in self.pushes() if "pub" in push]

    async def ask(self, name, **params):
        """Do a command; the whole reply to it, or None if there is none."""
        number = next(self.numbers)
        at = len(self.transport.lines)
        self.say({"id": number, name: params})
        await turn()
        replies = [json.loads(line) for line in self.transport.lines[at:]]
        found = [reply for reply in replies if reply.get("id") == number]
        assert len(found) <= 1
        return found[0] if found else None

    async def result(self, name, **params):
        reply = await self.ask(name, **params)
        assert reply is not None, f"ended with {self.ended}"
        assert name in reply, reply
        return reply[name]

    async def error(self, name, **params):
        """The error's code, or 0."""
        reply = await self.ask(name, **params)
        assert reply is not None, f"ended with {self.ended}"
        return reply.get("error", {}).get("code", 0)


@pytest.fixture
async def houses():
    """Makes houses; no defect may have been told at the end."""
    made = []

    async def start(**sections):
        made.append(House(**sections))
        await made[-1].broker.start(made[-1].node)
        return made[-1]

    yield start
    for house in made:
        for peer in list(house.node.clients.connections):
            peer.end(Ending(3001, ""))
            peer.connection_lost(None)
        await turn()
        assert not [line for line in house.lines if "a token was refused" not in line]
        assert house.node.hub.streams == {}
        assert house.node.clients.users == {}
        assert house.node.clients.connected == 0
        assert house.broker._presence == {}
        await house.broker.close()


# ── connecting ──────────────────────────────────────────────────────────────────────


async def test_who_connects_is_told_all_about_it(houses):
    house = await houses()
    peer = house.peer()
    found = await peer.result("connect", token=token(exp=NOW + 600))
    assert peer.is_greeted
    assert found.pop("version").startswith("Yelpaze ")
    assert found["client"] == found["session"] == peer.session.client.id
    assert found["node"] == house.node.uid
    assert {name: found[name] for name in ("expires", "ttl", "ping", "pong")} == {
        "expires": True,
        "ttl": 600,
        "ping": 25,
        "pong": True,
    }
    assert house.node.clients.connected == 1


@pytest.mark.parametrize(
    ("client", "given", "ended", "error"),
    [
        ({}, token(), None, 0),
        ({}, "", 3500, None),
        ({}, "junk", 3500, None),
        ({}, token(exp=NOW), None, 109),
        ({}, token(channel="news"), 3500, None),
        ({}, token(""), None, 0),
        ({"disallow_anonymous_connection_tokens": True}, token(""), 3500, None),
        ({"allow_anonymous_connect_without_token": True}, "", None, 0),
        ({"allow_anonymous_connect_without_token": True}, "junk", 3500, None),
        ({"insecure": True}, "", None, 0),
        ({"insecure": True}, "junk", 3500, None),
        ({"insecure": True, "token": {}}, "junk", None, 0),
        ({"token": {}}, token(), 3500, None),
    ],
)
async def test_who_is_let_in(houses, client, given, ended, error):
    house = await houses(client=client)
    peer = house.peer()
    reply = await peer.ask("connect", token=given)
    assert peer.ended == ended
    if error is None:
        assert reply is None
        assert peer.transport.lines == []
    else:
        assert reply.get("error", {}).get("code", 0) == error
    assert house.node.clients.connected == (1 if reply and not error else 0)


async def test_a_token_that_expired_may_be_followed_by_a_new_one(houses):
    house = await houses()
    peer = house.peer()
    assert await peer.error("connect", token=token(exp=NOW - 1)) == 109
    assert "connect" in await peer.ask("connect", token=token())


async def test_what_came_with_a_connect_that_was_refused_is_left(houses):
    """A library that comes back sends its subscriptions with its token: that this expired is what it must hear."""
    house = await houses()
    peer = house.peer()
    subscribe = {"id": 2, "subscribe": {"channel": "news"}}
    peer.say({"id": 1, "connect": {"token": token(exp=NOW - 1)}}, subscribe)
    (reply,) = peer.new()
    assert (reply["id"], reply["error"]["code"]) == (1, 109)
    assert peer.ended is None
    peer.say({"id": 3, "connect": {"token": token()}}, {"id": 4, "subscribe": {"channel": "news"}})
    assert [reply["id"] for reply in peer.new()] == [3, 4]


async def test_what_was_said_before_an_end_is_sent(houses):
    peer = await (await houses()).client()
    peer.new()
    peer.say({"id": 2, "subscribe": {"channel": "news"}}, {"id": 3, "ping": {}}, "nonsense")
    assert [reply["id"] for reply in peer.new()] == [2, 3]
    assert peer.ended == 3501


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[]",
        "5",
        "null",
        '{"id":1,"subscribe":{"channel":"news"}}',
        '{"id":1,"publish":{"channel":"news","data":1}}',
        '{"id":1}',
        '{"id":1,"nonsense":{}}',
        '{"id":1,"ping":{}}',
        '{"send":{"data":1}}',
        '{"connect":{}}',
        '{"id":0,"connect":{}}',
        '{"id":-1,"connect":{}}',
        '{"id":"1","connect":{}}',
        '{"id":1,"connect":[]}',
        '{"id":1,"connect":{},"subscribe":{"channel":"news"}}',
        '{"id":1,"connect":{"token":5}}',
        '{"id":1,"connect":{"subs":{"news":{"recover":true,"offset":-1}}}}',
        "[" * 5000,
        '{"id":1,"connect":{"data":' + "[" * 5000,
    ],
)
async def test_whatever_comes_before_connect_ends_it(houses, line):
    house = await houses(client={"allow_anonymous_connect_without_token": True})
    peer = house.peer()
    peer.say(line)
    await turn()
    assert peer.ended == 3501
    assert peer.transport.lines == []


async def test_a_second_connect_ends_it(houses):
    peer = await (await houses()).client()
    assert await peer.ask("connect", token=token()) is None
    assert peer.ended == 3501


async def test_a_user_has_only_so_many_connections(houses):
    house = await houses(client={"user_connection_limit": 2, "allow_anonymous_connect_without_token": True})
    first, _ = await house.client(), await house.client()
    third = house.peer()
    await third.ask("connect", token=token())
    assert third.ended == 3504
    await house.client("43")
    for _ in range(3):  # nobody in particular
        await house.peer().result("connect")
    first.end(Ending(3001, ""))
    await house.client()


async def test_channels_of_the_token_are_in_the_reply_with_what_was_missed(houses):
    house = await houses(channel={"without_namespace": HISTORY})
    other = await house.client()
    for number in range(3):
        await other.result("publish", channel="a", data=number)
    epoch = (await other.result("subscribe", channel="a"))["epoch"]
    peer = house.peer()
    found = await peer.result(
        "connect",
        token=token(channels=["a", "b", "a"]),
        subs={"a": {"recover": True, "offset": 1, "epoch": epoch}, "c": {"recover": True}},
    )
    assert set(found["subs"]) == {"a", "b"}
    assert found["subs"]["a"]["recovered"]
    assert [one["data"] for one in found["subs"]["a"]["publications"]] == [1, 2]
    assert peer.session.client.channels == ("a", "b")


async def test_what_is_published_while_it_connects_comes_after_the_reply(houses):
    house = await houses(channel={"without_namespace": HISTORY})
    other = await house.client()
    await other.result("publish", channel="b", data=0)
    peer = house.peer()
    house.broker.lets.clear()
    peer.say({"id": 1, "connect": {"token": token(channels=["a", "b"])}})
    house.broker.lets.set()
    for _ in range(5):
        await asyncio.sleep(0)
        await house.broker._broker.publish("a", one(7), keep())
    await turn()
    lines = peer.new()
    assert "connect" in lines[0], lines
    start = lines[0]["connect"]["subs"]["a"]["offset"]
    assert [line["push"]["pub"]["offset"] for line in lines[1:]] == list(range(start + 1, 6))


@pytest.mark.parametrize(("away", "error"), [(True, 100), (False, 102)])
async def test_a_connect_that_fails_half_way_is_told_and_ends(houses, away, error):
    house = await houses()
    house.broker.is_away = away
    peer = house.peer()
    reply = await peer.ask("connect", token=token(channels=["a", "a" if away else "unknown:b"]))
    assert reply["error"]["code"] == error
    assert peer.ended == 3004
    house.broker.is_away = False


async def test_ones_own_channel(houses):
    personal = {"enabled": True, "personal_channel_namespace": "user"}
    house = await houses(
        client={
            "subscribe_to_user_personal_channel": personal,
            "allow_anonymous_connect_without_token": True,
        },
        channel={"namespaces": [{"name": "user"}]},
    )
    assert set((await house.peer().result("connect", token=token()))["subs"]) == {"user:#42"}
    assert "subs" not in await house.peer().result("connect")


# ── rights ──────────────────────────────────────────────────────────────────────────

ANON, USER = "", "42"


@pytest.mark.parametrize(
    ("options", "user", "channel", "error"),
    [
        ({}, USER, "news", 103),
        ({"allow_subscribe_for_client": True}, USER, "news", 0),
        ({"allow_subscribe_for_client": True}, ANON, "news", 103),
        ({"allow_subscribe_for_anonymous": True}, ANON, "news", 103),
        ({"allow_subscribe_for_anonymous": True}, USER, "news", 103),
        ({"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}, ANON, "news", 0),
        ({"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}, ANON, "$news", 103),
        ({"allow_user_limited_channels": True}, USER, "$d#42", 103),
        ({"allow_subscribe_for_client": True}, USER, "$news", 103),
        ({"allow_subscribe_for_anonymous": True}, ANON, "$news", 103),
        ({"allow_user_limited_channels": True}, USER, "news", 103),
        ({"allow_user_limited_channels": True}, USER, "d#42", 0),
        ({"allow_user_limited_channels": True}, USER, "d#41,42,43", 0),
        ({"allow_user_limited_channels": True}, USER, "d#41,43", 103),
        ({"allow_user_limited_channels": True}, USER, "d#421", 103),
        ({"allow_user_limited_channels": True}, USER, "d#", 103),
        ({"allow_user_limited_channels": True}, ANON, "d#", 103),
        ({"allow_user_limited_channels": True, "allow_subscribe_for_client": True}, USER, "d#43", 103),
        ({"allow_user_limited_channels": True, "allow_subscribe_for_anonymous": True}, ANON, "d#43", 103),
        ({"allow_subscribe_for_client": True, "channel_regex": "[a-z]+"}, USER, "news", 0),
        ({"allow_subscribe_for_client": True, "channel_regex": "[a-z]+"}, USER, "news1", 107),
        ({"allow_subscribe_for_client": True}, USER, "unknown:news", 102),
        ({"allow_subscribe_for_client": True}, USER, "", 107),
        ({"allow_subscribe_for_client": True}, USER, "a" * 256, 107),
        ({"allow_subscribe_for_client": True}, USER, "a" * 255, 0),
        ({"allow_subscribe_for_client": True}, USER, "a\nb", 107),
        ({"allow_subscribe_for_client": True}, USER, "a\u200eb", 107),
    ],
)
async def test_who_may_subscribe(houses, options, user, channel, error):
    house = await houses(channel={"without_namespace": options})
    peer = await house.client(user)
    assert await peer.error("subscribe", channel=channel) == error
    assert peer.session.client.channels == (() if error else (channel,))


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"channel": "$news"}, 0),
        ({"channel": "$other"}, 103),
        ({}, 103),
        ({"channel": "$news", "sub": "43"}, 103),
        ({"channel": "$news", "sub": ""}, 103),
        ({"channel": "$news", "exp": NOW}, 109),
        ({"channel": "$news", "client": "somebody else"}, 103),
    ],
)
async def test_a_subscription_token_is_for_one_channel_and_user(houses, claims, error):
    peer = await (await houses()).client()
    given = jwt.encode({"sub": "42", **claims}, SECRET, "HS256")
    assert await peer.error("subscribe", channel="$news", token=given) == error


async def test_a_subscription_token_may_be_for_one_client(houses):
    peer = await (await houses()).client()
    given = token(channel="$news", client=peer.session.client.id)
    assert await peer.error("subscribe", channel="$news", token=given) == 0


async def test_keys_of_subscriptions_may_be_their_own(houses):
    own = "another secret of the tests, as long as the first"
    house = await houses(client={"subscription_token": {"enabled": True, "hmac_secret_key": own}})
    peer = await house.client()
    assert await peer.error("subscribe", channel="$a", token=token(channel="$a")) == 103
    good = jwt.encode({"sub": "42", "channel": "$a"}, own, "HS256")
    assert await peer.error("subscribe", channel="$a", token=good) == 0


@pytest.mark.parametrize("what", ["publish", "history", "presence", "presence_stats"])
@pytest.mark.parametrize(
    ("right", "user", "is_in", "allowed"),
    [
        ("", USER, True, False),
        ("client", USER, False, True),
        ("client", ANON, True, False),
        ("anonymous", ANON, False, False),
        ("client anonymous", ANON, False, True),
        ("subscriber", USER, True, True),
        ("subscriber", ANON, True, False),
        ("subscriber anonymous", ANON, True, True),
        ("subscriber anonymous", ANON, False, False),
        ("subscriber", USER, False, False),
    ],
)
async def test_who_may_do_what(houses, what, right, user, is_in, allowed):
    options = {
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "presence": True,
        "history_size": 1,
        "history_ttl": "60s",
    }
    for one in right.split():
        options[f"allow_{what.removesuffix('_stats')}_for_{one}"] = True
    house = await houses(channel={"without_namespace": options})
    peer = await house.client(user)
    if is_in:
        await peer.result("subscribe", channel="news")
    params = {"data": 1} if what == "publish" else {}
    assert await peer.error(what, channel="news", **params) == (0 if allowed else 103)


async def test_insecure_may_do_all_but_what_cannot_be(houses):
    house = await houses(client={"insecure": True, "token": {}}, channel={"without_namespace": {}})
    peer = house.peer()
    await peer.result("connect")
    assert await peer.error("subscribe", channel="$news") == 0
    assert await peer.error("publish", channel="news", data=1) == 0
    assert await peer.error("history", channel="news") == 108
    assert await peer.error("presence", channel="news") == 108
    assert await peer.error("subscribe", channel="x:news") == 102


# ── channels ────────────────────────────────────────────────────────────────────────


async def test_publications_reach_subscribers_until_they_leave(houses):
    house = await houses()
    first, second = await house.client(), await house.client("43")
    await first.result("subscribe", channel="news")
    await second.result("subscribe", channel="news")
    first.new()
    await second.result("publish", channel="news", data={"a": 1})
    (push,) = first.pushes()
    assert push["channel"] == "news"
    assert push["pub"]["data"] == {"a": 1}
    assert push["pub"]["info"] == {"client": second.session.client.id, "user": "43"}
    await first.result("unsubscribe", channel="news")
    first.new()
    await second.result("publish", channel="news", data=2)
    assert first.new() == []
    assert house.node.hub.subscriptions == 1


async def test_subscribing_twice_is_an_error_and_leaving_twice_is_none(houses):
    peer = await (await houses()).client()
    await peer.result("subscribe", channel="news")
    assert await peer.error("subscribe", channel="news") == 105
    await peer.result("unsubscribe", channel="news")
    await peer.result("unsubscribe", channel="news")
    await peer.result("subscribe", channel="news")


async def test_only_so_many_channels(houses):
    peer = await (await houses(client={"channel_limit": 3})).client()
    for number in range(3):
        await peer.result("subscribe", channel=f"c{number}")
    assert await peer.error("subscribe", channel="c3") == 106
    await peer.result("unsubscribe", channel="c0")
    await peer.result("subscribe", channel="c3")


async def test_data_with_line_breaks_is_one_line(houses):
    house = await houses()
    peer = await house.client()
    await peer.result("subscribe", channel="news")
    peer.new()
    peer.session.receive(b'{"id":77,"publish":{"channel":"news","data":{"a":\r1}}}')
    await turn()
    assert peer.data() == [{"a": 1}]


async def test_publishing_nothing_is_a_bad_request(houses):
    peer = await (await houses()).client()
    assert await peer.error("publish", channel="news") == 107
    assert await peer.error("publish", channel="news", data=None) == 0


async def test_recovery(houses):
    house = await houses(channel={"without_namespace": {**HISTORY, "history_size": 3}})
    peer = await house.client()
    position = await peer.result("subscribe", channel="news")
    assert (position["recoverable"], position["positioned"], position.get("offset", 0)) == (True, True, 0)
    await peer.result("unsubscribe", channel="news")
    for number in range(1, 5):
        await peer.result("publish", channel="news", data=number)
    for offset, recovered in ((4, True), (3, True), (1, True), (0, False), (9, False)):
        found = await peer.result(
            "subscribe", channel="news", recover=True, offset=offset, epoch=position["epoch"]
        )
        assert found["was_recovering"]
        assert found.get("recovered", False) == recovered
        expected = list(range(offset + 1, 5)) if recovered else []
        assert [one["data"] for one in found.get("publications", [])] == expected
        assert found["offset"] == 4
        await peer.result("unsubscribe", channel="news")
    other = await peer.result("subscribe", channel="news", recover=True, offset=3, epoch="other")
    assert not other.get("recovered", False)


async def test_who_rather_fails_than_misses_something_is_not_in(houses):
    peer = await (await houses(channel={"without_namespace": HISTORY})).client()
    await peer.result("publish", channel="news", data=1)
    request = {"channel": "news", "recover": True, "offset": 1, "epoch": "other", "flag": 2}
    assert await peer.error("subscribe", **request) == 112
    assert peer.session.client.channels == ()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("subscribe", {"recover": True, "offset": -1}),
        ("subscribe", {"recover": True, "offset": 1 << 63}),
        ("history", {"since": {"offset": -1}}),
        ("history", {"since": {"offset": 1 << 64}, "limit": 1}),
        ("history", {"limit": 1 << 40}),
        ("history", {"limit": "1"}),
        ("publish", {"channel": 5}),
        ("subscribe", {"channel": ["news"]}),
        ("presence", {"channel": None}),
    ],
)
async def test_requests_that_make_no_sense_end_it(houses, method, params):
    peer = await (await houses(channel={"without_namespace": HISTORY})).client()
    await peer.ask(method, **{"channel": "news", **params})
    assert peer.ended == 3501


async def test_history(houses):
    options = {**HISTORY, "allow_history_for_client": True}
    house = await houses(client={"history_max_publication_limit": 4}, channel={"without_namespace": options})
    peer = await house.client()
    for number in range(1, 7):
        await peer.result("publish", channel="news", data=number)

    async def data(**params):
        found = await peer.result("history", channel="news", **params)
        assert found["offset"] == 6
        return [publication["data"] for publication in found.get("publications", [])]

    assert await data() == []
    assert await data(limit=2) == [1, 2]
    assert await data(limit=-1) == await data(limit=99) == [1, 2, 3, 4]
    assert await data(limit=-1, since={"offset": 4}) == [5, 6]
    assert await data(limit=2, reverse=True) == [6, 5]
    assert await data(limit=2, reverse=True, since={"offset": 3}) == [2, 1]


async def test_presence_joins_and_leaves(houses):
    options = {
        **OPEN,
        "presence": True,
        "allow_presence_for_client": True,
        "join_leave": True,
        "force_push_join_leave": True,
    }
    house = await houses(channel={"without_namespace": options})
    first = await house.client(info={"name": "Ada"})
    await first.result("subscribe", channel="news")
    second = await house.client("43")
    await second.result("subscribe", channel="news")
    third = await house.client("43")
    await third.result("subscribe", channel="news")
    found = (await first.result("presence", channel="news"))["presence"]
    assert found[first.session.client.id] == {
        "client": first.session.client.id,
        "user": "42",
        "conn_info": {"name": "Ada"},
    }
    assert await first.result("presence_stats", channel="news") == {"num_clients": 3, "num_users": 2}
    first.new()
    await second.result("unsubscribe", channel="news")
    third.end(Ending(3001, ""))
    await turn()
    assert [push["leave"]["info"]["client"] for push in first.pushes()] == [
        second.session.client.id,
        third.session.client.id,
    ]
    assert await first.result("presence_stats", channel="news") == {"num_clients": 1, "num_users": 1}


async def test_who_comes_and_goes_in_one_breath_joins_before_it_leaves(houses):
    options = {**OPEN, "join_leave": True, "force_push_join_leave": True}
    house = await houses(channel={"without_namespace": options})
    first, second = await house.client(), await house.client("43")
    await first.result("subscribe", channel="news")
    first.new()
    second.say(
        {"id": 90, "subscribe": {"channel": "news"}},
        {"id": 91, "unsubscribe": {"channel": "news"}},
        {"id": 92, "subscribe": {"channel": "news"}},
    )
    await turn()
    kinds = [next(name for name in ("join", "leave") if name in push) for push in first.pushes()[-3:]]
    assert kinds == ["join", "leave", "join"]


# ── what others do to it ────────────────────────────────────────────────────────────


async def test_the_server_takes_it_out_and_puts_it_in(houses):
    house = await houses()
    peer = await house.client()
    await peer.result("subscribe", channel="a")
    peer.new()
    await house.node.cluster.send(ControlMessage(do="unsubscribe", user="42", channel="a"))
    await house.node.cluster.send(ControlMessage(do="unsubscribe", user="42", channel="never"))
    await house.node.cluster.send(ControlMessage(do="subscribe", user="42", channel="b"))
    await turn()
    out, into = peer.pushes()
    assert (out["channel"], out["unsubscribe"]["code"]) == ("a", 2000)
    assert into["channel"] == "b"
    assert "subscribe" in into
    assert peer.session.client.channels == ("b",)
    await house.node.cluster.send(ControlMessage(do="disconnect", user="42", ending=Ending(4500, "bye")))
    assert peer.ended == 4500


@pytest.mark.parametrize("is_gone", [False, True])
async def test_who_is_taken_out_or_goes_while_it_joins_is_out(houses, is_gone):
    house = await houses(channel={"without_namespace": {**OPEN, "presence": True, "join_leave": True}})
    peer = await house.client()
    house.broker.lets.clear()
    peer.say({"id": 9, "subscribe": {"channel": "news"}})
    await turn()
    if is_gone:
        peer.end(Ending(3001, ""))
    else:
        peer.session.client.unsubscribed("news", Ending(2000, ""))
    house.broker.lets.set()
    await turn()
    assert peer.session.client.channels == ()
    assert house.node.hub.streams == {}
    assert house.broker._presence == {}
    replies = [line for line in peer.new() if line.get("id") == 9]
    assert [reply["error"]["code"] for reply in replies] == ([] if is_gone else [103])


async def test_who_is_taken_out_while_it_joins_may_come_again(houses):
    house = await houses()
    peer = await house.client()
    house.broker.lets.clear()
    peer.say({"id": 9, "subscribe": {"channel": "news"}}, {"id": 10, "subscribe": {"channel": "news"}})
    await turn()
    peer.session.client.unsubscribed("news", Ending(2000, ""))
    house.broker.lets.set()
    await turn()
    found = {line["id"]: line for line in peer.new() if "id" in line}
    assert found[9]["error"]["code"] == 103
    assert "subscribe" in found[10]
    assert peer.session.client.channels == ("news",)


async def test_who_has_missed_something_subscribes_again(houses):
    house = await houses(channel={"without_namespace": HISTORY})
    peer = await house.client()
    await peer.result("subscribe", channel="news")
    peer.new()
    house.broker._streams.clear()
    await house.broker.publish("news", one(1), keep())
    await turn()
    (push,) = peer.pushes()
    assert push["unsubscribe"]["code"] == 2500
    assert peer.session.client.channels == ()


async def test_who_was_subscribed_by_the_gateway_connects_again(houses):
    """Clients don't subscribe by themselves to what they did not subscribe to."""
    house = await houses(channel={"without_namespace": HISTORY})
    peer = await house.client(channels=["news"])
    house.broker._streams.clear()
    await house.broker.publish("news", one(1), keep())
    await turn()
    assert peer.ended == 3010
    assert not [push for push in peer.pushes() if "unsubscribe" in push]


async def test_history_of_another_epoch_is_unrecoverable(houses):
    house = await houses(channel={"without_namespace": {**HISTORY, "allow_history_for_client": True}})
    peer = await house.client()
    epoch = (await peer.result("subscribe", channel="news"))["epoch"]
    for given, error in ((epoch, 0), ("", 0), ("another", 112)):
        since = {"offset": 0, "epoch": given}
        assert await peer.error("history", channel="news", limit=10, since=since) == error


async def test_replies_come_before_what_follows_from_them(houses):
    """An unsubscribe sends what its channel still has: not before the reply to the subscribe beside it."""
    house = await houses(channel={"without_namespace": HISTORY})
    peer = await house.client()
    await peer.result("subscribe", channel="other")
    peer.new()
    peer.say(
        {"id": 11, "subscribe": {"channel": "news"}},
        {"id": 12, "publish": {"channel": "news", "data": 1}},
        {"id": 13, "unsubscribe": {"channel": "other"}},
    )
    await turn()
    lines = peer.new()
    assert [line.get("id", "push") for line in lines] == [11, 12, "push", 13]


async def test_only_clients_that_know_joins_are_told_of_them(houses):
    house = await houses(
        channel={"without_namespace": {**OPEN, "join_leave": True, "force_push_join_leave": True}}
    )
    reader = await plain(house, token())
    first, second = await house.client(), await house.client("43")
    await first.result("subscribe", channel="news")
    await second.result("subscribe", channel="news")
    await turn()
    joins = [push["join"]["info"]["user"] for push in first.pushes() if "join" in push]
    assert joins == ["42", "43"]
    assert reader.transport.lines == []
    assert house.lines == []


# ── expiry ──────────────────────────────────────────────────────────────────────────


async def test_a_connection_that_expires_is_closed_unless_it_is_refreshed(houses):
    house = await houses(client={"expired_close_delay": "5s"})
    late, good = await house.client(exp=NOW + 20), await house.client(exp=NOW + 20)
    await house.pass_time(10)
    assert await good.result("refresh", token=token(exp=NOW + 100)) == {
        "client": good.session.client.id,
        "version": (await good.result("refresh", token=token(exp=NOW + 100)))["version"],
        "expires": True,
        "ttl": 90,
    }
    await house.pass_time(14)
    assert late.ended is None
    await house.pass_time(3)
    assert (late.ended, good.ended) == (3005, None)
    await house.pass_time(75)
    assert good.ended is None
    await house.pass_time(10)
    assert good.ended == 3005
    assert len(house.node.wheel) == 0


@pytest.mark.parametrize(
    ("given", "ended", "error"),
    [
        (token("43"), 3500, None),
        ("junk", 3500, None),
        ("", 3501, None),
        (token(exp=NOW - 1), 3005, None),  # not an error: SDKs stay away after one here
        (token(channel="news"), 3500, None),
    ],
)
async def test_refreshing_with_another_token(houses, given, ended, error):
    peer = await (await houses()).client(exp=NOW + 20)
    reply = await peer.ask("refresh", token=given)
    assert peer.ended == ended
    assert (reply["error"]["code"] if reply else None) == error


async def test_a_connection_may_be_refreshed_to_never_expire(houses):
    house = await houses(client={"expired_close_delay": "1s"})
    peer = await house.client(exp=NOW + 5)
    found = await peer.result("refresh", token=token())
    assert not found.get("expires", False)
    await house.pass_time(30)
    assert peer.ended is None


async def test_a_subscription_that_expires_ends_unless_it_is_refreshed(houses):
    house = await houses(client={"expired_sub_close_delay": "5s"})
    peer = await house.client()
    for name in ("$a", "$b"):
        found = await peer.result("subscribe", channel=name, token=token(channel=name, exp=NOW + 20))
        assert (found["expires"], found["ttl"]) == (True, 20)
    await house.pass_time(10)
    found = await peer.result("sub_refresh", channel="$b", token=token(channel="$b", exp=NOW + 100))
    assert (found["expires"], found["ttl"]) == (True, 90)
    peer.new()
    await house.pass_time(17)
    (push,) = peer.pushes()
    assert (push["channel"], push["unsubscribe"]["code"]) == ("$a", 2501)
    assert peer.session.client.channels == ("$b",)
    assert peer.ended is None


@pytest.mark.parametrize(
    ("params", "error", "ended"),
    [
        ({"channel": "$a", "token": token(channel="$b")}, 103, None),
        ({"channel": "$b", "token": token(channel="$b")}, 103, None),  # it is not in
        ({"channel": "$a", "token": token(channel="$a", exp=NOW - 1)}, 109, None),
        ({"channel": "$a", "token": "junk"}, 103, None),
        ({"channel": "$a", "token": ""}, 103, None),
        ({"channel": "$a"}, 103, None),
        ({"channel": "$b"}, 103, None),
        ({"channel": "$a", "token": token(channel="$a"), "type": 1}, 107, None),  # track
        ({"channel": "$a", "token": token(channel="$a"), "type": 2}, 107, None),  # untrack
        ({"channel": "", "token": "x"}, None, 3501),
    ],
)
async def test_refreshing_a_subscription_with_another_token(houses, params, error, ended):
    peer = await (await houses()).client()
    await peer.result("subscribe", channel="$a", token=token(channel="$a", exp=NOW + 20))
    reply = await peer.ask("sub_refresh", **params)
    assert (reply["error"]["code"] if reply else None, peer.ended) == (error, ended)


# ── the flow of commands ────────────────────────────────────────────────────────────


async def test_errors_that_are_no_fault_of_the_channel(houses):
    house = await houses()
    peer = await house.client()
    assert await peer.error("rpc", method="x") == 108
    assert await peer.error("nonsense") == 104
    assert await peer.error("ping") == 0
    house.broker.is_away = True
    reply = await peer.ask("subscribe", channel="news")
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    assert await peer.error("publish", channel="news", data=1) == 100
    house.broker.is_away = False
    await peer.result("subscribe", channel="news")


async def test_pongs_are_not_answered(houses):
    peer = await (await houses()).client()
    peer.new()
    peer.say("{}", "", "{}")
    await turn()
    assert peer.new() == []
    assert peer.pongs == 2
    assert peer.ended is None


@pytest.mark.parametrize("number", [{}, {"id": 9}])
async def test_a_message_without_a_reply_ends_it_since_nobody_takes_it(houses, number):
    peer = await (await houses()).client()
    peer.say({**number, "send": {"data": 1}})
    await turn()
    assert peer.ended == 3508


FILTER = {"op": "", "key": "level", "cmp": "eq", "val": "high"}


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("subscribe", {"type": 1}, 103),  # map
        ("subscribe", {"type": 2, "phase": 2, "limit": 10}, 103),  # a map's clients
        ("subscribe", {"type": 3}, 103),  # a map's users
        ("subscribe", {"type": 4}, 108),  # shared poll
        ("subscribe", {"type": 5}, 107),
        ("subscribe", {"type": -1}, 107),
        ("subscribe", {"tf": FILTER}, 107),
        ("subscribe", {"tf": {}}, 107),
        ("publish", {"type": 1, "key": "a"}, 103),
        ("publish", {"type": 1, "key": "a", "removed": True}, 103),
        ("publish", {"type": 2}, 107),
        ("publish", {"key": "a"}, 107),
        ("publish", {"removed": True}, 107),
    ],
)
async def test_what_is_not_built_is_refused_and_not_taken_for_something_else(houses, method, params, error):
    house = await houses(client={"insecure": True})
    peer, other = await house.client(), await house.client()
    await other.result("subscribe", channel="news")
    other.new()
    data = {"data": 1} if method == "publish" else {}
    assert await peer.error(method, channel="news", **data, **params) == error
    assert peer.session.client.channels == ()
    assert other.data() == []
    assert await peer.error("subscribe", channel="news") == 0  # the connection goes on


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("subscribe", {"type": 0, "tf": None, "phase": 0, "cursor": "", "asc": False, "new": {"a": 1}}),
        ("subscribe", {"delta": "fossil", "flag": 1, "data": {"a": 1}}),  # the reply shows what is not done
        ("publish", {"data": 1, "type": 0, "key": "", "removed": False, "new": 1}),
        ("unsubscribe", {"new": 1}),
    ],
)
async def test_what_changes_nothing_is_passed_over(houses, method, params):
    peer = await (await houses()).client()
    assert await peer.error(method, channel="news", **params) == 0


async def test_zeros_that_libraries_read_are_sent(houses):
    """centrifugal/protocol, client.pb.go: the JSON tags without `omitempty`."""
    options = {
        **OPEN,
        "allow_subscribe_for_anonymous": True,
        "allow_presence_for_client": True,
        "allow_presence_for_anonymous": True,
        "allow_history_for_client": True,
        "allow_history_for_anonymous": True,
        "presence": True,
        "history_size": 10,
        "history_ttl": "60s",
        "join_leave": True,
        "force_push_join_leave": True,
    }
    house = await houses(
        client={"allow_anonymous_connect_without_token": True}, channel={"without_namespace": options}
    )
    peer, reader = house.peer(), await house.client()
    await peer.result("connect")
    assert await peer.result("presence_stats", channel="news") == {"num_clients": 0, "num_users": 0}
    assert await peer.result("presence", channel="news") == {"presence": {}}
    history = await peer.result("history", channel="news", limit=5)
    assert history == {"publications": [], "offset": 0, "epoch": history["epoch"]}
    await reader.result("subscribe", channel="news")
    reader.new()
    subscription = await peer.result("subscribe", channel="news")
    assert subscription == {}  # all of its zeros are left out
    mine = peer.session.client.id
    assert (await peer.result("presence", channel="news"))["presence"][mine] == {"client": mine, "user": ""}
    assert [push["join"]["info"] for push in reader.pushes()] == [{"client": mine, "user": ""}]


async def test_ids_may_come_in_any_order(houses):
    peer = await (await houses()).client()
    peer.new()
    peer.say(*({"id": number, "ping": {}} for number in (9, 3, 4_000_000_000, 3)))
    await turn()
    assert [line["id"] for line in peer.new()] == [9, 3, 4_000_000_000, 3]


async def test_replies_of_one_message_go_out_as_one(houses):
    peer = await (await houses()).client()
    writes = []
    peer.transport.write = writes.append
    peer.say(*({"id": number, "subscribe": {"channel": f"c{number}"}} for number in range(2, 6)))
    assert len(writes) == 1
    assert [json.loads(line)["id"] for line in writes[0].split("\n")] == [2, 3, 4, 5]


async def test_too_many_commands_in_a_message_end_it(houses):
    peer = await (await houses()).client()
    peer.say(*["{}"] * 5000)
    assert peer.ended == 3501


async def test_commands_behind_one_that_waits_are_done_in_order_and_reading_is_paused(houses):
    house = await houses()
    peer = await house.client()
    peer.new()
    house.broker.lets.clear()
    peer.say({"id": 2, "subscribe": {"channel": "news"}})
    for number in range(3, 3 + 2000):
        peer.say({"id": number, "ping": {}})
        assert peer.is_read == (number < 18)
    await turn()
    assert peer.new() == []
    house.broker.lets.set()
    await turn()
    assert [line["id"] for line in peer.new()] == list(range(2, 2003))
    assert peer.is_read


async def test_who_goes_while_commands_wait_is_gone(houses):
    house = await houses()
    peer = await house.client()
    house.broker.lets.clear()
    peer.say({"id": 2, "subscribe": {"channel": "news"}}, {"id": 3, "subscribe": {"channel": "more"}})
    peer.new()
    peer.end(Ending(3001, ""))
    house.broker.lets.set()
    await turn()
    assert peer.new() == []
    assert house.node.hub.streams == {}


async def test_who_is_over_its_rate_waits_and_is_not_read(houses):
    house = await houses(client={"command_rate_limit": 10})
    peer = await house.client()
    peer.new()
    for number in range(2, 40):
        peer.say({"id": number, "ping": {}})
    done = len(peer.new())
    assert 9 <= done <= 11
    assert not peer.is_read
    assert len(house.sleeping) == 1
    assert house.slept[0] <= 0.2
    while house.sleeping:
        house.seconds += house.slept[-1]
        await house.wake()
    assert len(peer.new()) == 38 - done
    assert peer.is_read
    assert house.seconds - 1000 == pytest.approx((38 - done) / 10, abs=0.2)


async def test_who_publishes_too_fast_waits_and_others_do_not(houses):
    house = await houses(channel={"without_namespace": {**OPEN, "publish_rate_limit": 5}})
    peer, other = await house.client(), await house.client()
    for number in range(2, 12):
        peer.say({"id": number, "publish": {"channel": "news", "data": number}})
    assert len(house.sleeping) == 1
    assert await other.error("publish", channel="news", data=1) == 0
    while house.sleeping:
        house.seconds += house.slept[-1]
        await house.wake()
    assert peer.new()[-1]["id"] == 11


async def test_each_rate_is_held_by_itself(houses):
    spaces = [
        {"name": "fast", **OPEN, "publish_rate_limit": 100},
        {"name": "slow", **OPEN, "publish_rate_limit": 2},
    ]
    house = await houses(client={"command_rate_limit": 1000}, channel={"namespaces": spaces})
    peer = await house.client()
    for number in range(2, 12):
        peer.say({"id": number, "publish": {"channel": "fast:a", "data": number}})
    assert house.sleeping == []
    for number in range(12, 22):
        peer.say({"id": number, "publish": {"channel": "slow:a", "data": number}})
    while house.sleeping:
        house.seconds += house.slept[-1]
        await house.wake()
    assert peer.new()[-1]["id"] == 21
    assert house.seconds - 1000 == pytest.approx(4, abs=0.2)


# ── a reader that is too slow ───────────────────────────────────────────────────────


def policy(name, size=2000):
    return {
        "client": {"queue_max_size": size},
        "channel": {"without_namespace": {**OPEN, "slow_consumer": name}},
    }


@pytest.mark.parametrize("name", ["close", "drop_oldest", "latest"])
async def test_one_that_does_not_read_is_handled_by_the_channels_policy_and_delays_nobody(houses, name):
    house = await houses(**policy(name))
    slow, quick, publisher = await house.client(), await house.client(), await house.client()
    for peer in (slow, quick):
        await peer.result("subscribe", channel="news")
        peer.new()
    slow.pause_writing()
    for number in range(100):
        await publisher.result("publish", channel="news", data=number)
        assert quick.data() == [number]
    assert slow.new() == []
    if name == "close":
        assert slow.ended == 3008
        return
    assert slow.ended is None
    reply = slow.ask("ping")
    slow.resume_writing()
    await reply
    found = slow.data()
    if name == "latest":
        assert found == [99]
    else:
        assert found == list(range(found[0], 100))
        assert 5 < len(found) < 40
    await publisher.result("publish", channel="news", data="on")
    assert slow.data() == ["on"]


async def test_replies_are_never_dropped_and_come_in_order(houses):
    house = await houses(**policy("drop_oldest"))
    slow, publisher = await house.client(), await house.client()
    await slow.result("subscribe", channel="news")
    slow.new()
    slow.pause_writing()
    slow.say({"id": 50, "ping": {}})
    for number in range(100):
        await publisher.result("publish", channel="news", data=number)
    slow.say({"id": 51, "ping": {}})
    slow.resume_writing()
    lines = slow.new()
    assert lines[0] == {"id": 50, "ping": {}}
    assert lines[-1] == {"id": 51, "ping": {}}
    numbers = [line["push"]["pub"]["data"] for line in lines[1:-1]]
    assert numbers == list(range(100 - len(numbers), 100))


# ── plain ───────────────────────────────────────────────────────────────────────────


async def plain(house, given):
    peer = Peer(house.node, encoding.PLAIN_TEXT)
    peer.session.open(given)
    await turn()
    return peer


@pytest.mark.parametrize(
    ("options", "given", "ended"),
    [
        (OPEN, token(), None),
        (OPEN, "junk", 4001),
        (OPEN, token(channel="other"), 4001),
        ({}, token(channel="news"), None),
        ({}, token(channel="news", client="another"), 4001),
        (OPEN, token(exp=NOW - 1), 4001),
        ({}, token(), 3507),
        ({"allow_subscribe_for_client": True}, token(""), 3507),
    ],
)
async def test_a_plain_client_is_let_in_or_told_by_the_code(houses, options, given, ended):
    house = await houses(channel={"without_namespace": options})
    assert (await plain(house, given)).ended == ended
    late = await plain(house, "")
    late.session.receive(given.encode())
    await turn()
    assert late.ended == ended


async def test_plain_text_goes_in_and_out(houses):
    house = await houses()
    first, second, other = await plain(house, token()), await plain(house, token("43")), await house.client()
    await other.result("subscribe", channel="news")
    other.new()
    for text in ("hello", '{"a": 1}', '"quoted"', ""):
        first.session.receive(text.encode())
        await turn()
    assert second.transport.lines == first.transport.lines == ["hello", '{"a": 1}', '"quoted"', ""]
    assert other.data() == ["hello", {"a": 1}, '"quoted"', ""]


async def test_a_plain_client_without_the_right_to_publish_is_told_by_the_code(houses):
    house = await houses(channel={"without_namespace": {"allow_subscribe_for_client": True}})
    peer = await plain(house, token())
    peer.session.receive(b"hello")
    await turn()
    assert peer.ended == 3507


async def test_thousands_of_plain_messages_behind_one_that_waits_are_done_in_order(houses):
    house = await houses()
    peer = await plain(house, "")
    house.broker.lets.clear()
    peer.session.receive(token().encode())
    for number in range(3000):
        peer.session.receive(b"%d" % number)
    assert not peer.is_read
    house.broker.lets.set()
    for _ in range(100):
        await turn()
    assert peer.is_read
    assert "".join(peer.transport.lines) == "".join(map(str, range(3000)))


async def test_a_token_for_its_channel_lets_a_plain_client_in(houses):
    own = "another secret of the tests, as long as the first"
    house = await houses(
        client={"subscription_token": {"enabled": True, "hmac_secret_key": own}},
        channel={"without_namespace": {"history_size": 5, "history_ttl": "60s"}},
    )
    good = jwt.encode({"sub": "42", "channel": "news"}, own, "HS256")
    reader = await plain(house, good)
    assert reader.ended is None
    assert (await plain(house, jwt.encode({"sub": "42"}, own, "HS256"))).ended == 4001
    for claims in ({"channel": "else"}, {"channel": "news", "client": "another"}):
        assert (await plain(house, jwt.encode({"sub": "42", **claims}, own, "HS256"))).ended == 4001
    assert (await plain(house, token(channel="news"))).ended == 4001  # by the keys that are for connecting
    await house.broker.publish("news", one("for 42"), keep())
    await turn()
    assert reader.transport.lines == ["for 42"]


async def test_a_plain_client_whose_token_expires_is_closed_at_once(houses):
    house = await houses()
    reader, other = await plain(house, token(exp=NOW + 5)), await house.client(exp=NOW + 5)
    await house.pass_time(6)
    assert reader.ended == 3005
    assert other.ended is None  # it may refresh


async def test_why_a_token_was_refused_is_told_now_and_then(houses):
    house = await houses()
    bad = jwt.encode({"sub": "42"}, "somebody else's secret, as long as ours", "HS256")
    for _ in range(3):
        await house.peer().ask("connect", token=bad)
    assert house.lines == ["a token was refused: Signature verification failed"]
    await house.pass_time(10)
    await house.peer().ask("connect", token=bad)
    assert house.lines[1:] == [
        "a token was refused: Signature verification failed, and 2 more since the last word of this"
    ]
    assert bad not in "".join(house.lines)
