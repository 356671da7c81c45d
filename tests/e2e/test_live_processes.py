"""Several gateway processes on one port: as one gateway, also when one of them dies."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import ExitStack

import pytest

from support.live import SECONDS, Centrifugo, Events, Gateway, token
from support.redis_server import Redis
from support.waiting import until

CONFIG = {
    "client": {"ping_interval": "0s"},
    "channel": {"without_namespace": {"allow_subscribe_for_client": True, "presence": True}},
}


@pytest.fixture
def held():
    """Connections that are closed at the end of a test, whatever comes."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def gateway(tmp_path, redis):
    redis.flush()
    gateway = Gateway(tmp_path, CONFIG, "--broker", redis.url, "--processes", "2", "--metrics", "0")
    yield gateway
    gateway.stop()


def children(pid):
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return {int(line) for line in found.stdout.split()}


def metrics(gateway):
    url = gateway.says(r"metrics at (http\S+)")[1]
    text = urllib.request.urlopen(url, timeout=SECONDS).read().decode()
    return {
        name: float(value)
        for name, value in re.findall(r"^(yelpaze_live_\S+) ([0-9.e+]+)$", text, re.MULTILINE)
    }


def subscribed(gateway, user="42"):
    client = Centrifugo(gateway.port, connect={"token": token(user)})
    client.ask("subscribe", channel="news")
    return client


def knows(gateway):
    """The nodes that the process which answers has heard of."""
    return {node["uid"] for node in gateway.api("info")["nodes"]}


def test_all_processes_hear_what_one_is_told(gateway, held):
    readers = [held(subscribed(gateway, str(number))) for number in range(12)]
    assert len({reader.connected["node"] for reader in readers}) == 2  # the kernel spreads connections
    both = {reader.connected["node"] for reader in readers}
    until(lambda: all(knows(gateway) == both for _ in range(12)))  # whichever of them answers
    gateway.publish("news", "hello")
    assert {reader.data() for reader in readers} == {"hello"}
    assert gateway.api("presence_stats", channel="news") == {"num_clients": 12, "num_users": 12}
    assert gateway.api("channels") == {"channels": {"news": {"num_clients": 12}}}
    gateway.api("disconnect", user="5")
    assert readers[5].closed() == (3503, "force disconnect")
    gateway.publish("news", "again")
    assert {reader.data() for reader in (*readers[:5], *readers[6:])} == {"again"}


def test_metrics_are_those_of_all_processes(gateway, held):
    for number in range(6):
        held(subscribed(gateway, str(number)))
    stream = held(Events(gateway.port, "news", token=token("9")))
    gateway.publish("news", 1)
    stream.next()
    wanted = {
        "yelpaze_live_delivered_total": 7,
        "yelpaze_live_published_total": 1,
        "yelpaze_live_users": 7,
        'yelpaze_live_connections{transport="centrifugo"}': 6,
        'yelpaze_live_connections{transport="sse"}': 1,
        'yelpaze_live_commands_total{method="subscribe"}': 6,
    }
    # Each process reports in its own time.
    until(lambda: wanted.items() <= metrics(gateway).items())


def test_a_process_that_dies_is_replaced_and_the_others_go_on(gateway, held):
    readers = [held(subscribed(gateway, str(number))) for number in range(12)]
    first, second = sorted(children(gateway.pid))
    os.kill(first, signal.SIGKILL)
    gateway.says(rf"process {first} was lost: killed by SIGKILL; a new one starts")
    until(lambda: len(children(gateway.pid) - {first}) == 2)
    gateway.publish("news", "still here")
    ended = [reader for reader in readers if not heard(reader, "still here")]
    assert 0 < len(ended) < 12
    assert second in children(gateway.pid)
    back = [held(subscribed(gateway, "back")) for _ in ended]
    gateway.publish("news", "all")
    assert {reader.data() for reader in back} == {"all"}


def heard(reader, data):
    try:
        return reader.data() == data
    except (EOFError, ConnectionError):
        return False


def test_a_process_that_dies_while_redis_is_away_comes_back_with_it(tmp_path):
    (tmp_path / "redis").mkdir()
    server = Redis(tmp_path / "redis")
    gateway = Gateway(tmp_path, CONFIG, "--broker", server.url, "--processes", "2")
    try:
        first, second = sorted(children(gateway.pid))
        server.kill()
        os.kill(first, signal.SIGKILL)
        gateway.says("a new one starts in .* s")
        gateway.says(r"was lost: Redis at .*; a new one starts")
        assert second in children(gateway.pid)
        server.start()
        until(lambda: len(gateway.api("info")["nodes"]) == 2)
    finally:
        gateway.stop()
        server.close()


def test_a_port_whose_connections_have_just_ended_can_be_shared(tmp_path, redis, held):
    """The kernel keeps them for a minute, in TIME_WAIT."""
    one = Gateway(tmp_path, CONFIG, "--broker", redis.url)
    held(subscribed(one))
    one.stop()
    several = Gateway(tmp_path, CONFIG, "--broker", redis.url, "--processes", "2", port=one.port)
    several.stop()
    assert several.port == one.port


@pytest.mark.slow
def test_a_process_that_hangs_does_not_hold_up_the_end(tmp_path, redis):
    gateway = Gateway(tmp_path, CONFIG, "--broker", redis.url, "--processes", "2")
    hung, _ = sorted(children(gateway.pid))
    os.kill(hung, signal.SIGSTOP)
    gateway.stop()
    assert not os.path.exists(f"/proc/{hung}")


def test_the_processes_end_with_their_parent(tmp_path, redis):
    gateway = Gateway(tmp_path, CONFIG, "--broker", redis.url, "--processes", "2")
    there = children(gateway.pid)
    assert len(there) == 2
    gateway.kill()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in there))


def test_the_end_is_told_to_clients_of_all_processes(gateway, held):
    readers = [held(subscribed(gateway, str(number))) for number in range(8)]
    there = children(gateway.pid)
    gateway.signal(signal.SIGTERM)
    assert {reader.closed() for reader in readers} == {(3001, "shutdown")}
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in there))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--processes", "2"), "--processes needs --broker redis://"),
        (("--broker", "kafka://x"), "--broker takes memory or redis://host:port, not 'kafka://…'"),
        (("--broker", "redis://127.0.0.1:1", "--processes", "2"), "Redis at redis://127.0.0.1:1: "),
        (("--broker", "redis://:secret@127.0.0.1:1"), "Redis at redis://127.0.0.1:1: "),
        (("--listen", "nowhere.invalid:80"), "there is no such host"),
        (("--listen", "192.0.2.1:8000"), "this machine has no such address"),
        (("--listen", "unix:/tmp/x"), "this service listens on host:port"),
        (("--config", "missing.yaml"), "missing.yaml"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_started(flags, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "yelpaze.cli.main", "live", "--listen", "127.0.0.1:0", *flags],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
    )
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode in (2, 3)
