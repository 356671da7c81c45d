"""The server API: by itself, over Redis to another node, and as schemathesis takes it from its own description."""

import base64
import http.client
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from support.live import KEY, SECONDS, Centrifugo, Events, Gateway, WebSocket, token
from support.needed import needs
from support.waiting import until

NAMES = count(1)
CHANNELS = {
    "without_namespace": {
        "presence": True,
        "history_size": 10,
        "history_ttl": "60s",
        "force_recovery": True,
        "allow_subscribe_for_client": True,
    },
    "namespaces": [{"name": "bare", "allow_subscribe_for_client": True}],
}


class Nodes(NamedTuple):
    """Where the API is called, and where clients are: maybe the same."""

    api: Gateway
    clients: Gateway

    def client(self, user, *channels):
        client = Centrifugo(self.clients.port, connect={"token": token(user)})
        for channel in channels:
            client.ask("subscribe", channel=channel)
        return client


@pytest.fixture(scope="module", params=["memory", "redis"])
def nodes(request, gateways):
    if request.param == "memory":
        gateway = gateways({"channel": CHANNELS})
        return Nodes(gateway, gateway)
    url = request.getfixturevalue("redis").url
    return Nodes(*(gateways({"channel": CHANNELS}, "--broker", url) for _ in range(2)))


@pytest.fixture
def channel():
    return f"channel{next(NAMES)}"


@pytest.fixture
def user():
    return f"user{next(NAMES)}"


def code_of(answer):
    return answer["error"]["code"]


# ── publish, broadcast ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", [{"a": [1, None, "ü"]}, "text", 0, None, [], {}, "", False])
def test_publish_reaches_who_listens(nodes, channel, user, data):
    with nodes.client(user, channel) as client:
        result = nodes.api.publish(channel, data)
        push = client.push()
    assert push == {"channel": channel, "pub": {"data": data, "offset": 1}}
    assert result["offset"] == 1
    assert result["epoch"]


def test_what_has_no_history_has_no_offset(nodes, channel, user):
    channel = f"bare:{channel}"
    with nodes.client(user, channel) as client:
        assert nodes.api.publish(channel, {"a": 1}) == {}
        assert client.push() == {"channel": channel, "pub": {"data": {"a": 1}}}


def test_b64data_is_published_as_the_json_that_it_is(nodes, channel, user):
    with nodes.client(user, channel) as client:
        nodes.api.api("publish", channel=channel, b64data=base64.b64encode(b'{\n "a": 1}').decode())
        assert client.data() == {"a": 1}


@pytest.mark.parametrize("b64data", ["no base64!", base64.b64encode(b"no JSON").decode()])
def test_b64data_that_is_no_json_is_refused(nodes, channel, b64data):
    assert code_of(nodes.api.call("publish", channel=channel, b64data=b64data)) == 107


def test_without_data_nothing_is_published(nodes, channel):
    assert code_of(nodes.api.call("publish", channel=channel)) == 107
    assert code_of(nodes.api.call("broadcast", channels=[channel])) == 107


def test_line_breaks_within_data_do_not_part_messages(nodes, channel, user):
    body = b'{"channel": "%b", "data": {\r\n"a":\n[1,\n"x\\ny"]}}' % channel.encode()
    with (
        nodes.client(user, channel) as client,
        WebSocket(nodes.clients.port, f"/ws/{channel}?token={token(user)}") as plain,
    ):
        nodes.clients.until_listening(channel, 2)
        status, _, _ = nodes.api.request("POST", "/api/publish", body, {"X-API-Key": KEY})
        assert status == 200
        assert client.data() == {"a": [1, "x\ny"]}
        assert json.loads(plain.hear()) == {"a": [1, "x\ny"]}


def test_skip_history_delivers_and_keeps_nothing(nodes, channel, user):
    with nodes.client(user, channel) as client:
        assert nodes.api.publish(channel, 1, skip_history=True) == {}
        assert client.push()["pub"] == {"data": 1}
    assert nodes.api.api("history", channel=channel, limit=-1)["publications"] == []


@pytest.mark.parametrize("channel", ["", "x" * 256, "a\nb", "a\x00b"])
def test_no_name_of_a_channel(nodes, channel):
    assert code_of(nodes.api.call("publish", channel=channel, data=1)) == 107


def test_unknown_namespace(nodes):
    assert code_of(nodes.api.call("publish", channel="none:x", data=1)) == 102


def test_an_idempotency_key_publishes_once(nodes, channel, user):
    with nodes.client(user, channel) as client:
        first = nodes.api.publish(channel, 1, idempotency_key="k")
        assert nodes.api.publish(channel, 2, idempotency_key="k") == first
        assert nodes.clients.publish(channel, 3, idempotency_key="k") == first
        assert nodes.api.publish(channel, 4, idempotency_key="l")["offset"] == first["offset"] + 1
        assert [client.data(), client.data()] == [1, 4]
    assert nodes.api.publish(f"{channel}-other", 5, idempotency_key="k")["offset"] == 1


def test_an_idempotency_key_holds_without_history_too(nodes, channel, user):
    channel = f"bare:{channel}"
    with nodes.client(user, channel) as client:
        for data in (1, 2):
            assert nodes.api.publish(channel, data, idempotency_key="k") == {}
        nodes.api.publish(channel, 3)
        assert [client.data(), client.data()] == [1, 3]


def test_broadcast_tells_of_each_channel(nodes, channel, user):
    names = [f"{channel}-{number}" for number in range(3)]
    with nodes.client(user, *names) as client:
        result = nodes.api.api("broadcast", channels=[*names, "none:x"], data={"a": 1})
        got = [client.push() for _ in names]
    assert sorted(push["channel"] for push in got) == names
    assert [one.get("result", {}).get("offset") for one in result["responses"]] == [1, 1, 1, None]
    assert code_of(result["responses"][3]) == 102


def test_broadcast_with_a_key_publishes_once_in_each(nodes, channel, user):
    names = [f"{channel}-{number}" for number in range(2)]
    for data in (1, 2):
        nodes.api.api("broadcast", channels=names, data=data, idempotency_key="k")
    for name in names:
        found = nodes.api.api("history", channel=name, limit=-1)["publications"]
        assert [one["data"] for one in found] == [1]


def test_broadcast_to_nobody(nodes):
    assert code_of(nodes.api.call("broadcast", channels=[], data=1)) == 107


# ── clients ─────────────────────────────────────────────────────────────────────


def test_subscribe_puts_a_user_into_a_channel(nodes, channel, user):
    nodes.api.publish(channel, 1)
    with nodes.client(user) as client, nodes.client(f"{user}-other", channel) as other:
        nodes.api.api("subscribe", user=user, channel=channel, info={"colour": "red"})
        push = client.push()
        assert push["channel"] == channel
        assert push["subscribe"]["offset"] == 1
        assert push["subscribe"]["recoverable"] is True
        nodes.api.publish(channel, 2)
        assert client.data() == other.data() == 2
        there = nodes.api.api("presence", channel=channel)["presence"]
        assert there[client.connected["client"]]["chan_info"] == {"colour": "red"}
        assert "chan_info" not in there[other.connected["client"]]


def test_subscribe_with_a_position_gives_what_was_missed(nodes, channel, user):
    epoch = nodes.api.publish(channel, 1)["epoch"]
    nodes.api.publish(channel, 2)
    with nodes.client(user) as client:
        nodes.api.api("subscribe", user=user, channel=channel, recover_since={"offset": 1, "epoch": epoch})
        told = client.push()["subscribe"]
        assert told["recovered"] is True
        assert told["publications"] == [{"data": 2, "offset": 2}]


def test_one_of_a_users_clients_is_meant(nodes, channel, user):
    with nodes.client(user) as one, nodes.client(user) as other:
        nodes.api.api("subscribe", user=user, client=one.connected["client"], channel=channel)
        assert one.push()["channel"] == channel
        nodes.api.api("subscribe", user=user, channel=f"{channel}-all")
        assert one.push()["channel"] == other.push()["channel"] == f"{channel}-all"


def test_a_plain_client_has_its_channel_and_no_other(nodes, channel, user):
    with (
        WebSocket(nodes.clients.port, f"/ws/{channel}?token={token(user)}") as plain,
        nodes.client(user) as client,
    ):
        nodes.clients.until_listening(channel)
        nodes.api.api("subscribe", user=user, channel=f"{channel}-other")
        assert client.push()["channel"] == f"{channel}-other"
        nodes.api.publish(f"{channel}-other", 1)
        assert client.data() == 1
        nodes.api.api("unsubscribe", user=user, channel=f"{channel}-other")
        assert client.push()["unsubscribe"]["code"] == 2000
        nodes.api.publish(channel, 2)
        assert plain.hear() == "2"


def test_unsubscribe_tells_the_client(nodes, channel, user):
    with nodes.client(user, channel) as client:
        nodes.api.api("unsubscribe", user=user, channel=channel)
        assert client.push() == {
            "channel": channel,
            "unsubscribe": {"code": 2000, "reason": "server unsubscribe"},
        }
        nodes.api.publish(channel, 1)
        client.ask("subscribe", channel=channel)
        nodes.api.publish(channel, 2)
        assert client.data() == 2


def test_unsubscribe_closes_a_plain_client(nodes, channel, user):
    with WebSocket(nodes.clients.port, f"/ws/{channel}?token={token(user)}") as plain:
        nodes.clients.until_listening(channel)
        nodes.api.api("unsubscribe", user=user, channel=channel)
        assert plain.closed() == (3503, "force disconnect")


def test_disconnect_closes_with_a_code(nodes, user):
    with nodes.client(user) as client, nodes.client(f"{user}-other") as other:
        nodes.api.api("disconnect", user=user)
        assert client.closed() == (3503, "force disconnect")
        nodes.api.api("disconnect", user=f"{user}-other", disconnect={"code": 4100, "reason": "bye"})
        assert other.closed() == (4100, "bye")


def test_disconnect_spares_the_listed_ones(nodes, user):
    with nodes.client(user) as one, nodes.client(user) as other:
        nodes.api.api("disconnect", user=user, code=4000, reason="x", whitelist=[one.connected["client"]])
        assert other.closed() == (4000, "x")
        one.ask("unsubscribe", channel="none")


def test_what_was_published_before_an_end_comes_before_it(nodes, channel, user):
    def batch(*commands):
        replies = nodes.api.call("batch", commands=list(commands))["replies"]
        assert not [reply for reply in replies if "error" in reply]

    last = {"publish": {"channel": channel, "data": "last words"}}
    out = {"unsubscribe": {"channel": channel, "user": user}}
    away = {"disconnect": {"user": user}}
    with (
        nodes.client(user, channel) as client,
        WebSocket(nodes.clients.port, f"/ws/{channel}?token={token(user)}") as plain,
        Events(nodes.clients.port, channel, token=token(user)) as events,
    ):
        nodes.clients.until_listening(channel, 3)
        batch(last, out)
        assert client.push()["pub"]["data"] == "last words"
        assert client.push()["unsubscribe"]["code"] == 2000
        assert plain.hear() == events.next().data == "last words"
        assert plain.closed()[0] == 3503
        client.ask("subscribe", channel=channel)
        batch(last, away)
        assert client.push()["pub"]["data"] == "last words"
        assert client.closed()[0] == 3503


@pytest.mark.parametrize("code", [1000, 2999, 5000, -1])
def test_no_code_to_disconnect_with(nodes, user, code):
    assert code_of(nodes.api.call("disconnect", user=user, code=code)) == 107


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "disconnect"])
def test_whom_has_to_be_said(nodes, channel, method):
    assert code_of(nodes.api.call(method, channel=channel)) == 107


def test_all_users_are_everybody(gateways, channel):
    gateway = gateways({"channel": CHANNELS})
    nodes = Nodes(gateway, gateway)
    with nodes.client("a") as one, nodes.client("b") as other:
        gateway.api("subscribe", all_users=True, channel=channel)
        assert one.push()["channel"] == other.push()["channel"] == channel
        gateway.api("disconnect", all_users=True)
        assert one.closed()[0] == other.closed()[0] == 3503


# ── what is there ───────────────────────────────────────────────────────────────


def test_presence_and_its_stats(nodes, channel, user):
    def stats():
        found = nodes.api.api("presence_stats", channel=channel)
        return found["num_clients"], found["num_users"]

    assert nodes.api.api("presence", channel=channel) == {"presence": {}}
    assert stats() == (0, 0)
    clients = [
        Centrifugo(nodes.clients.port, connect={"token": token(name, info={"name": name})})
        for name in (user, user, f"{user}-other")
    ]
    for client in clients:
        client.ask("subscribe", channel=channel)
    assert stats() == (3, 2)
    there = nodes.api.api("presence", channel=channel)["presence"]
    one = clients[2].connected["client"]
    assert there.keys() == {client.connected["client"] for client in clients}
    assert there[one] == {"client": one, "user": f"{user}-other", "conn_info": {"name": f"{user}-other"}}
    clients[0].ask("unsubscribe", channel=channel)
    clients[2].close()
    until(lambda: stats() == (1, 1))
    clients[0].close()
    clients[1].close()
    until(lambda: stats() == (0, 0))


def test_history_stretches(nodes, channel):
    epoch = ""
    for number in range(1, 13):
        epoch = nodes.api.publish(channel, number)["epoch"]

    def read(**rest):
        found = nodes.api.api("history", channel=channel, **rest)
        assert (found["offset"], found["epoch"]) == (12, epoch)
        return [(one["offset"], one["data"]) for one in found["publications"]]

    def both(*numbers):
        return [(number, number) for number in numbers]

    assert read() == []
    assert read(limit=-1) == both(*range(3, 13))
    assert read(limit=2) == both(3, 4)
    assert read(limit=2, reverse=True) == both(12, 11)
    assert read(limit=2, since={"offset": 5, "epoch": epoch}) == both(6, 7)
    assert read(limit=2, since={"offset": 5, "epoch": epoch}, reverse=True) == both(4, 3)
    assert read(limit=-1, since={"offset": 12, "epoch": epoch}) == []


def test_history_of_nothing(nodes, channel):
    found = nodes.api.api("history", channel=channel, limit=-1)
    assert found == {"publications": [], "offset": 0, "epoch": found["epoch"]}
    assert nodes.api.publish(channel, 1)["epoch"] == found["epoch"]


def test_history_remove_forgets_all_but_the_offset(nodes, channel):
    for number in (1, 2):
        nodes.api.publish(channel, number)
    assert nodes.api.api("history_remove", channel=channel) == {}
    assert nodes.api.api("history", channel=channel, limit=-1)["publications"] == []
    assert nodes.api.publish(channel, 3)["offset"] == 3


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history", "history_remove"])
def test_what_a_namespace_has_not(nodes, method):
    assert code_of(nodes.api.call(method, channel="bare:x")) == 108
    assert code_of(nodes.api.call(method, channel="none:x")) == 102


def test_channels_that_somebody_listens_to(nodes, channel, user):
    names = [f"bare:{channel}-a", f"{channel}-a", f"{channel}-b"]
    with nodes.client(user, *names), nodes.client(user, names[1]):

        def found(pattern):
            channels = nodes.api.api("channels", pattern=pattern)["channels"]
            return {name: one["num_clients"] for name, one in channels.items()}

        assert found(f"{channel}-*") == {names[1]: 2, names[2]: 1}
        assert found(f"*{channel}-a") == {names[0]: 1, names[1]: 2}
        assert found(f"{channel}-?") == {names[1]: 2, names[2]: 1}
        assert found(f"{channel}-{{b,c}}") == {names[2]: 1}
        assert found(f"{channel}") == {}
        assert set(names) <= nodes.api.api("channels")["channels"].keys()


def test_info_tells_of_all_nodes(nodes, user):
    def found():
        return nodes.api.api("info")["nodes"]

    with nodes.client(user):  # nodes tell each other every few seconds
        until(lambda: len(found()) == len(set(nodes)) and any(one["num_clients"] for one in found()))
        everyone = found()
    assert len({one["uid"] for one in everyone}) == len(everyone)


# ── several at once ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("parallel", [False, True])
def test_batch_does_one_after_the_other(nodes, channel, parallel):
    commands = [
        {"publish": {"channel": channel, "data": 1}},
        {"publish": {"channel": channel, "data": 2}},
        {"publish": {"channel": "none:x", "data": 3}},
        {"history": {"channel": channel, "limit": -1}},
        {"nothing": {}},
        {"publish": {"channel": 7}},
        {},
        {"presence_stats": {"channel": channel}},
    ]
    replies = nodes.api.call("batch", commands=commands, parallel=parallel)["replies"]
    assert [one.get("publish", {}).get("offset") for one in replies[:2]] == [1, 2]
    assert code_of(replies[2]) == 102
    assert [one["data"] for one in replies[3]["history"]["publications"]] == [1, 2]
    assert [code_of(one) for one in replies[4:7]] == [104, 107, 104]
    assert replies[7] == {"presence_stats": {"num_clients": 0, "num_users": 0}}


def test_batch_of_nothing_and_of_too_many(nodes):
    assert nodes.api.call("batch", commands=[]) == {"replies": []}
    many = json.dumps({"commands": [{"info": {}}] * 1001}).encode()
    status, _, _ = nodes.api.request("POST", "/api/batch", many, {"X-API-Key": KEY})
    assert status == 413


# ── the door ────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def gateway(gateways):
    return gateways({"channel": CHANNELS, "http_api": {"message_size_limit": 1000}})


def post(gateway, body, path="/api/info", headers=None):
    status, got, text = gateway.request(
        "POST", path, body, {"X-API-Key": KEY} if headers is None else headers
    )
    assert got["content-type"] == "application/json"
    return status, json.loads(text)


@pytest.mark.parametrize("headers", [{"X-API-Key": KEY}, {"Authorization": f"apikey {KEY}"}])
def test_the_key(gateway, headers):
    assert post(gateway, b"{}", headers=headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": "\xfc"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}"},
    ],
)
@pytest.mark.parametrize("method", ["info", "publish", "batch", "none", "openapi.json"])
def test_no_key_or_a_wrong_one(gateway, method, headers):
    status, answer = post(gateway, b"{}", f"/api/{method}", headers)
    assert status == code_of(answer) == 401
    assert KEY not in str(answer)


def test_a_body_is_not_taken_in_before_the_key(gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=SECONDS)
    connection.putrequest("POST", "/api/publish")
    connection.putheader("Content-Length", "900")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b'{"channel": "\xff"}',
        b'{"channel": 1, "data": 1}',
        b'{"channel": null, "data": 1}',
        b'{"channel": "x", "data": 1, "skip_history": "yes"}',
        b'{"channel": "x", "data": }',
        b'{"data": 1}',
        b"[" * 900,
    ],
)
def test_wrong_bodies(gateway, body):
    status, answer = post(gateway, body, "/api/publish")
    assert status == code_of(answer) == 400


def test_a_body_that_is_too_large(gateway):
    body = json.dumps({"channel": "x", "data": "x" * 1000}).encode()
    assert post(gateway, body, "/api/publish")[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=SECONDS)
    connection.request("POST", "/api/publish", iter([body]), {"X-API-Key": KEY}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_no_such_method(gateway):
    assert post(gateway, b"{}", "/api/none")[0] == 404
    assert post(gateway, b"{}", "/api/")[0] == 404
    assert post(gateway, b"{}", "/api/publish/x")[0] == 404


def test_only_post(gateway):
    for verb in ("GET", "PUT", "DELETE"):
        status, headers, _ = gateway.request(verb, "/api/info", None, {"X-API-Key": KEY})
        assert (status, headers["allow"]) == (405, "POST")


def test_one_connection_takes_many_requests(gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=SECONDS)
    for body, status in ((b"{}", 200), (b"[]", 400), (b"{}", 200), (b"", 200)):
        connection.request("POST", "/api/info", body, {"X-API-Key": KEY})
        first = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is first
    connection.close()


def test_the_api_can_be_switched_off_or_opened(gateways):
    off = gateways({"http_api": {"disabled": True}})
    assert post(off, b"{}")[0] == 404
    opened = gateways({"http_api": {"key": "", "insecure": True}})
    assert post(opened, b"{}", headers={})[0] == 200
    unset = gateways({"http_api": {"key": ""}})
    assert post(unset, b"{}", headers={"X-API-Key": ""})[0] == 401


# ── by its own description ──────────────────────────────────────────────────────


# JSON Schema's integers may end in ".0", ours may not.
HOOKS = """
import schemathesis

def whole(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value

@schemathesis.hook
def map_body(context, body):
    return whole(body)
"""


def by_description(gateway, folder, examples):
    needs("schemathesis")
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text('hooks = "hooks"\n')
    options = {
        "header": f"X-API-Key: {KEY}",
        "checks": "all",
        "max-examples": str(examples),
        "generation-deterministic": None,
        "no-color": None,
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value) if part is not None]
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{gateway.url}/api/openapi.json", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 selected / 12 total" in done.stdout


@pytest.mark.slow
def test_the_api_does_what_its_description_says(gateways, tmp_path):
    by_description(gateways({"channel": CHANNELS}), tmp_path, 10)


@pytest.mark.slow
def test_the_api_does_what_its_description_says_at_length(gateways, redis, tmp_path):
    by_description(gateways({"channel": CHANNELS}, "--broker", redis.url), tmp_path, 300)
