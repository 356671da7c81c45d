"""A node: limits, the way out, and what nodes tell each other."""

import asyncio
import fnmatch
import itertools
import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelpaze.live.brokers.memory import MemoryBroker
from yelpaze.live.core import eager
from yelpaze.live.core.cluster import ControlMessage, NodeInfo, _glob
from yelpaze.live.core.node import Node
from yelpaze.live.core.statistics import NodeTotals, added
from yelpaze.live.core.stream import Membership
from yelpaze.live.sessions.client import CONNECTED, NEW, Client
from yelpaze.live.settings import LIVE


class Peer:
    """A connection that is told to go."""

    kind = 3
    backlog = None

    def __init__(self, node, user=None, number=0):
        self.node = node
        self.ended = []
        self.client = Someone(node, self, user, number)
        node.clients.opened(self, "plain", f"10.0.0.{number}")
        if user is not None:
            node.clients.add(self.client)

    def end(self, ending):
        self.ended.append(ending.code)

    def abort(self):
        self.ended.append("aborted")

    def leave(self, code=1000):
        self.node.clients.closed(self, "plain", "", code)
        self.node.clients.remove(self.client)


class Someone(Client):
    def __init__(self, node, peer, user, number):
        super().__init__(node, peer, session=None)
        self.user = user or ""
        self._id = number.to_bytes(16)
        self.state = NEW if user is None else CONNECTED


def name(number):
    """What the client of that number is called."""
    return f"00000000-0000-0000-0000-{number:012x}"


class House:
    def __init__(self, **sections):
        self.now = 1000.0
        self.lines = []
        epochs = itertools.count()
        self.node = Node(
            LIVE.of(sections),
            MemoryBroker(lambda: self.now, lambda: f"e{next(epochs)}"),
            name="here",
            clock=lambda: self.now,
            now=lambda: self.now,
            random=lambda: 0.5,
            report=lambda notice: self.lines.append(str(notice)),
        )


@pytest.fixture
async def houses():
    made = []

    async def start(**sections):
        made.append(House(**sections))
        await made[-1].node.broker.start(made[-1].node)
        return made[-1]

    yield start
    for house in made:
        await house.node.broker.close()


# ── the way out ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("count", "seconds", "batches"),
    [(0, 30, 0), (1, 30, 1), (100, 0, 1), (5000, 30, 10), (5000, 0.5, 5), (7, 0.01, 1)],
)
async def test_clients_are_sent_away_in_batches_oldest_first(houses, monkeypatch, count, seconds, batches):
    house = await houses()
    peers = [Peer(house.node, "u", number) for number in range(count)]
    sizes, pauses = [], []

    async def sleep(seconds):
        pauses.append(seconds)
        sizes.append(sum(bool(peer.ended) for peer in peers))

    monkeypatch.setattr("yelpaze.live.core.node.asyncio.sleep", sleep)
    await house.node.drain(seconds)
    monkeypatch.undo()
    assert house.node.clients.is_draining
    assert all(peer.ended == [3001] for peer in peers)
    assert len(sizes) == batches
    assert sum(pauses) <= max(seconds, 0.1) + 0.01
    if batches:
        assert max(b - a for a, b in itertools.pairwise([0, *sizes])) == -(-count // batches)
        late = [bool(peer.ended) for peer in peers]
        assert late == sorted(late, reverse=True)


async def test_who_does_not_go_is_cut_off(houses, monkeypatch):
    monkeypatch.setattr("yelpaze.live.core.node._GOODBYE", 0.1)
    house = await houses()
    peer = Peer(house.node, "u")
    await house.node.close()
    assert peer.ended == [3001, "aborted"]


# ── limits ──────────────────────────────────────────────────────────────────────────


async def test_no_limits_by_default(houses):
    node = (await houses()).node
    for number in range(500):
        Peer(node, "u", 1)
        assert node.clients.accepts("10.0.0.1")
        assert node.clients.admits("u")
        assert not node.clients.is_too_fast(), number
    assert node.clients._addresses == {}


async def test_connections_of_all_and_of_an_address(houses):
    node = (await houses(client={"connection_limit": 3, "ip_connection_limit": 2})).node
    first = Peer(node, None, 1)
    Peer(node, None, 1)
    assert not node.clients.accepts("10.0.0.1")
    assert node.clients.accepts("10.0.0.2")
    Peer(node, None, 2)
    assert not node.clients.accepts("10.0.0.3")
    node.clients.closed(first, "plain", "10.0.0.1", 1000)
    assert node.clients.accepts("10.0.0.1")
    node.clients.closed(first, "plain", "10.0.0.1", 1000)  # twice counts once
    assert node.clients._addresses == {"10.0.0.1": 1, "10.0.0.2": 1}
    assert node.statistics.closed == {1000: 1}


async def test_connections_of_a_user(houses):
    node = (await houses(client={"user_connection_limit": 2})).node
    peers = []
    for number in range(2):
        assert node.clients.admits("u")
        peers.append(Peer(node, "u", number))
    assert not node.clients.admits("u")
    assert node.clients.admits("v")
    assert node.clients.admits("")
    assert node.clients.of_user("u") == [peer.client for peer in peers]
    for peer in peers:
        peer.leave()
    assert node.clients.of_user("u") == []
    assert node.clients.users == {}
    assert node.clients.connected == 0


async def test_new_connections_a_second(houses):
    house = await houses(client={"connection_rate_limit": 10})
    taken = sum(not house.node.clients.is_too_fast() for _ in range(100))
    assert 9 <= taken <= 11
    house.now += 0.5
    assert 4 <= sum(not house.node.clients.is_too_fast() for _ in range(100)) <= 6


# ── between nodes ───────────────────────────────────────────────────────────────────


def other(uid, **rest):
    return NodeInfo(
        uid=uid,
        name=uid,
        version="1",
        num_clients=1,
        num_users=1,
        num_channels=1,
        num_subs=1,
        uptime=1,
        **rest,
    )


async def test_nodes_are_there_while_they_are_heard_of(houses):
    house = await houses()
    cluster = house.node.cluster
    for uid in ("a", "b"):
        await cluster.send(ControlMessage(node=other(uid)))
    await cluster.send(ControlMessage(node=cluster.info()))  # it hears itself
    assert [node.name for node in cluster.nodes()] == ["here", "a", "b"]
    house.now += 6
    await cluster.send(ControlMessage(node=other("b")))
    house.now += 6
    assert [node.name for node in cluster.nodes()] == ["here", "b"]
    await cluster.send(ControlMessage(gone="b"))
    assert [node.name for node in cluster.nodes()] == ["here"]


class Member:
    kind = 3
    backlog = None

    def insufficient(self, channel):
        raise AssertionError


async def joined(house, *names):
    for name in names:
        options = house.node.rules.options(name)
        await house.node.hub.join(Member(), name, options, 60, Membership())


async def test_channels_are_asked_of_all_nodes_and_added_up(houses):
    house = await houses(channel={"namespaces": [{"name": "chat"}]})
    cluster = house.node.cluster
    await joined(house, "a", "chat:1", "chat:1", "chat:12")
    assert await cluster.channels("") == {"a": 1, "chat:1": 2, "chat:12": 1}
    await cluster.send(ControlMessage(node=other("b")))
    asked = []
    tell = house.node.broker.publish_control

    async def told(message):
        await tell(message)
        asked.append(message)

    house.node.broker.publish_control = told
    waiting = asyncio.ensure_future(cluster.channels("chat:*"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    (name,) = cluster._surveys
    await tell(msgspec.json.encode(ControlMessage(answer_to=name, from_node="b", channels={"chat:1": 5})))
    assert await waiting == {"chat:1": 7, "chat:12": 1}
    assert cluster._surveys == {}


async def test_a_node_that_does_not_answer_is_not_waited_for_without_end(houses, monkeypatch):
    monkeypatch.setattr("yelpaze.live.core.cluster._SURVEY", 0.01)
    house = await houses()
    await house.node.cluster.send(ControlMessage(node=other("b")))
    await joined(house, "a")
    assert await house.node.cluster.channels("") == {"a": 1}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a", "a.b", "ab", "b"]),
        ("a", ["a"]),
        ("a*", ["a", "a.b", "ab"]),
        ("?", ["a", "b"]),
        ("a.?", ["a.b"]),
        ("{a,b}", ["a", "b"]),
        ("a{.b,b}", ["a.b", "ab"]),
        ("[ab]", []),
        ("*.*", ["a.b"]),
        ("*{a,b}*", ["a", "a.b", "ab", "b"]),
        ("**b", ["a.b", "ab", "b"]),
        ("a**", ["a", "a.b", "ab"]),
        ("*b*a*", []),
        ("(", []),
        ("{", []),
    ],
)
async def test_patterns_of_channels(houses, pattern, found):
    house = await houses()
    await joined(house, "a", "b", "ab", "a.b")
    assert sorted(await house.node.cluster.channels(pattern)) == found


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_is_what_a_shell_makes_of_it(pattern, name):
    assert bool(re.fullmatch(_glob(pattern), name)) == fnmatch.fnmatchcase(name, pattern)


def test_many_stars_cost_no_more():
    begun = time.perf_counter()
    assert not re.fullmatch(_glob("*a" * 100 + "b"), "a" * 255)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ({"user": "u"}, [0, 1]),
        ({"user": "u", "client": name(1)}, [1]),
        ({"user": "v", "client": name(1)}, []),
        ({"client": name(2)}, [2]),
        ({"client": "nobody"}, []),
        ({"everyone": True}, [0, 1, 2, 3]),
        ({"everyone": True, "whitelist": (name(0), name(3))}, [1, 2]),
        ({"user": "u", "whitelist": (name(0), "nobody")}, [1]),
        ({"user": "nobody"}, []),
        ({}, []),
    ],
)
async def test_who_is_meant(houses, command, meant):
    node = (await houses()).node
    peers = [Peer(node, user, number) for number, user in enumerate(("u", "u", "v", "", None))]
    await node.cluster.send(ControlMessage(do="disconnect", **command))
    assert [number for number, peer in enumerate(peers) if peer.ended] == meant


def test_counts_of_processes_are_added_up():
    first = NodeTotals(connections={"plain": 1}, users=2, closed={3008: 1}, published=5)
    second = NodeTotals(connections={"plain": 2, "sse": 1}, users=1, delivered=7)
    assert added([first, second]) == NodeTotals(
        connections={"plain": 3, "sse": 1}, users=3, closed={3008: 1}, published=5, delivered=7
    )
    assert added([]) == NodeTotals()


# ── coroutines without a task ───────────────────────────────────────────────────────


async def test_an_eager_coroutine_runs_at_once_and_goes_on_when_its_future_is_done():
    seen = []
    waiting = asyncio.get_running_loop().create_future()

    async def work():
        seen.append("begun")
        seen.append(await waiting)
        await asyncio.sleep(0)
        return "done"

    eager.start(work(), seen.append, seen.append)
    assert seen == ["begun"]
    waiting.set_result("heard")
    for _ in range(4):
        await asyncio.sleep(0)
    assert seen == ["begun", "heard", "done"]


async def test_an_eager_coroutine_that_fails_says_so_once():
    failures = []
    waiting = asyncio.get_running_loop().create_future()

    async def work():
        await waiting

    eager.start(work(), failures.append, failures.append)
    waiting.set_exception(ValueError("no"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [str(error) for error in failures] == ["no"]


async def test_what_fails_in_the_background_is_told_and_nothing_stops(houses):
    house = await houses()

    async def work():
        raise ZeroDivisionError("ours")

    house.node.background(work())
    (line,) = house.lines
    assert "ZeroDivisionError: ours" in line


async def test_a_defect_in_one_connection_stops_no_other_from_being_woken(houses):
    house = await houses()
    woken = []

    class Sleeper:
        bucket = None

        def wake(self):
            woken.append(self)
            if len(woken) == 1:
                raise ZeroDivisionError("ours")

    for _ in range(10):
        house.node.wheel.put(Sleeper(), 1)
    house.node._tick()
    assert len(woken) == 1
    house.node._tick()
    assert len(set(woken)) == 10
    assert len(house.node.wheel) == 0
    (line,) = house.lines
    assert "ZeroDivisionError: ours" in line
