"""docs/how-to/live-nginx.md: its configurations carry all transports, and the lines that it names matter."""

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from support.live import KEY, PING, PONG, Centrifugo, Events, WebSocket, request, token
from support.needed import absent
from support.nginx import free_port, wait_for_port

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "live-nginx.md").read_text()
ONE, UPSTREAM = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
SEVERAL = re.sub(r"upstream live \{.*?\n\}\n", UPSTREAM, ONE, flags=re.DOTALL)
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
AROUND = """
daemon off; master_process off; pid nginx.pid; error_log error.log; {user}
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {page}
}}
"""
CHANNELS = {
    "without_namespace": {
        "history_size": 10,
        "history_ttl": "60s",
        "force_recovery": True,
        "allow_subscribe_for_client": True,
        "allow_publish_for_client": True,
    }
}
OFFICES = ("127.0.1.1", "127.0.2.1", "127.0.3.1", "127.0.4.1")  # `ip_hash` takes three of the numbers


@pytest.fixture
def proxied(tmp_path):
    """`with proxied(configuration, ports)`: nginx with a configuration of the page; its port."""
    if shutil.which("nginx") is None:
        absent("nginx")

    @contextmanager
    def start(text, ports, *changes):
        port = free_port()
        named = re.findall(r"server 127\.0\.0\.1:(\d+);", text)
        assert len(named) == len(ports)
        for old, new in [
            *((f"127.0.0.1:{old};", f"127.0.0.1:{new};") for old, new in zip(named, ports, strict=True)),
            ("listen 80;", f"listen 127.0.0.1:{port};"),
            *changes,
        ]:
            assert old in text
            text = text.replace(old, new)
        user = "user root;" if os.getuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(AROUND.format(user=user, page=text))
        process = subprocess.Popen(["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf"])
        try:
            wait_for_port(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(30)

    return start


@pytest.fixture(scope="module")
def gateway(gateways):
    return gateways({"channel": CHANNELS})


@pytest.fixture
def port(proxied, gateway):
    with proxied(ONE, [gateway.port]) as port:
        yield port


def published(port, channel, data, source=""):
    body = json.dumps({"channel": channel, "data": data}).encode()
    status, _, answer = request(port, "POST", "/api/publish", body, {"X-API-Key": KEY}, source=source)
    return status if status != 200 else json.loads(answer)["result"]["offset"]


def test_every_transport_and_the_api_go_through(port, gateway):
    with (
        Centrifugo(port, connect={"token": token("u")}) as client,
        WebSocket(port, f"/ws/all?token={token('u')}") as plain,
        Events(port, "all", token=token("u")) as events,
    ):
        client.ask("subscribe", channel="all")
        gateway.until_listening("all", 3)
        assert events.headers["content-type"].startswith("text/event-stream")
        for number, data in enumerate(({"a": "ü"}, "x" * 30_000), 1):
            assert published(port, "all", data) == number
            assert client.data() == data
            heard = [plain.hear(), events.next().data]
            assert heard == [data, data] or [json.loads(text) for text in heard] == [data, data]
        client.ask("publish", channel="all", data=3)
        plain.say("4")
        assert [events.next().data for _ in range(2)] == ["3", "4"]
        gateway.api("disconnect", user="u", code=4321, reason="through")
        assert client.closed() == plain.closed() == (4321, "through")
        with pytest.raises(EOFError):
            events.next()


def test_a_stream_of_events_goes_on_where_it_was(port):
    published(port, "again", 1)
    with Events(port, "again", token=token("u")) as events:
        published(port, "again", 2)
        assert events.next().data == "2"
    published(port, "again", 3)
    with Events(port, "again", token=token("u"), last=events.last) as events:
        assert events.next().data == "3"


def test_large_bodies_go_to_the_api(port):
    assert published(port, "large", "x" * 2_000_000) == 1


def test_the_api_is_for_those_who_are_named(port):
    assert published(port, "named", 1, source="127.0.0.2") == 403


def test_pages_of_the_same_host_may_connect_and_others_not(port):
    for origin, status in (
        (f"http://127.0.0.1:{port}", 101),
        ("http://127.0.0.1", 403),
        ("http://evil", 403),
    ):
        with WebSocket(port, "/connection/websocket", {"Origin": origin}) as socket:
            assert socket.status == status


def test_without_the_port_in_host_pages_of_the_same_host_may_not(proxied, gateway):
    with proxied(ONE, [gateway.port], ("$http_host", "$host")) as port:
        origin = {"Origin": f"http://127.0.0.1:{port}"}
        with WebSocket(port, "/connection/websocket", origin) as socket:
            assert socket.status == 403


def test_without_the_upgrade_there_is_no_websocket(proxied, gateway):
    line = "    proxy_set_header Upgrade $http_upgrade;\n"
    with proxied(ONE, [gateway.port], (line, "")) as port, WebSocket(port, "/ws/x") as socket:
        assert socket.status == 426


def test_events_are_not_buffered_even_where_nginx_was_not_told_so(proxied, gateway):
    with (
        proxied(ONE, [gateway.port], ("proxy_buffering off;", "")) as port,
        Events(port, "quick", token=token("u")) as events,
    ):
        published(port, "quick", 1)
        assert events.next().data == "1"


@pytest.mark.slow
def test_pings_keep_quiet_connections_open(proxied, gateways):
    """As the page's 60 s with our 25 and 30 s, in less time."""
    quick = {
        "client": {"ping_interval": "1s", "pong_timeout": "500ms"},
        "websocket": {"plain_ping_interval": "1s"},
        "sse": {"ping_interval": "1s"},
    }
    gateway = gateways({"channel": CHANNELS, **quick})
    with (
        proxied(ONE, [gateway.port], ("proxy_read_timeout 60s;", "proxy_read_timeout 4s;")) as port,
        Centrifugo(port, connect={"token": token("u")}) as client,
        WebSocket(port, f"/ws/quiet?token={token('u')}") as plain,
        Events(port, "quiet", token=token("u")) as events,
    ):
        client.ask("subscribe", channel="quiet")
        for _ in range(3):
            assert client.hear() == "{}"  # a ping
            client.say("{}")
            opcode, payload = plain.receive()
            assert opcode == PING
            plain.say(payload, PONG)
        published(port, "quiet", 1)
        assert client.data() == 1
        assert plain.hear() == events.next().data == "1"


def test_nginx_ends_what_is_quiet_for_longer(proxied, gateway):
    with (
        proxied(ONE, [gateway.port], ("proxy_read_timeout 60s;", "proxy_read_timeout 1s;")) as port,
        WebSocket(port, f"/ws/quiet?token={token('u')}") as plain,
    ):
        assert plain.closed() == (1006, "")


def test_limits_for_each_address_hold_for_clients_not_for_nginx(proxied, gateways):
    settings = yaml.safe_load(SETTINGS)
    settings["client"]["ip_connection_limit"] = 1
    gateway = gateways(settings)

    def status(port, source, **headers):
        socket = WebSocket(port, "/connection/websocket", headers, source=source)
        kept.append(socket)
        return socket.status

    kept = []
    with proxied(ONE, [gateway.port]) as port:
        assert [status(port, source) for source in ("127.0.0.7", "127.0.0.8", "127.0.0.7")] == [101, 101, 503]
        assert status(port, "127.0.0.8", **{"X-Forwarded-For": "1.2.3.4"}) == 503
        for socket in kept:
            socket.close()


@pytest.fixture(scope="module")
def nodes(gateways, redis):
    return [gateways({"channel": CHANNELS}, "--broker", redis.url) for _ in range(2)]


@pytest.mark.parametrize("balance", ["ip_hash;", "least_conn;"])
def test_two_nodes_are_one_gateway(balance, proxied, nodes):
    channel = f"two-{balance}"
    with proxied(SEVERAL, [node.port for node in nodes], ("ip_hash;", balance)) as port:
        clients = [
            Centrifugo(port, connect={"token": token(f"u{number}")}, source=OFFICES[number % 4])
            for number in range(8)
        ]
        for client in clients:
            client.ask("subscribe", channel=channel)
        by_office = {}
        for number, client in enumerate(clients):
            by_office.setdefault(number % 4, set()).add(client.connected["node"])
        assert len(set().union(*by_office.values())) == 2
        if balance == "ip_hash;":
            assert {len(there) for there in by_office.values()} == {1}
        with (
            WebSocket(port, f"/ws/{channel}?token={token('p')}", source=OFFICES[0]) as plain,
            Events(port, channel, token=token("e"), source=OFFICES[1]) as events,
        ):
            nodes[0].until_listening(channel, 10)
            assert published(port, channel, "for all") == 1
            assert [client.data() for client in clients] == ["for all"] * 8
            assert plain.hear() == events.next().data == "for all"
        for client in clients:
            client.close()


def test_when_a_node_ends_its_clients_go_on_at_the_other(proxied, nodes):
    with proxied(SEVERAL, [node.port for node in nodes]) as port:
        with (
            Centrifugo(port, connect={"token": token("u")}, source=OFFICES[0]) as client,
            Events(port, "moved", token=token("u"), source=OFFICES[0]) as events,
        ):
            joined = client.ask("subscribe", channel="moved")
            nodes[0].until_listening("moved", 2)
            assert published(port, "moved", 1) == 1
            assert (client.data(), events.next().data) == (1, "1")
            (ending,) = [
                node for node in nodes if node.api("info")["nodes"][0]["uid"] == client.connected["node"]
            ]
            ending.stop()
            assert client.closed() == (3001, "shutdown")
            with pytest.raises(EOFError):
                events.next()
        assert published(port, "moved", 2) == 2
        with (
            Centrifugo(port, connect={"token": token("u")}, source=OFFICES[0]) as client,
            Events(port, "moved", token=token("u"), last=events.last, source=OFFICES[0]) as events,
        ):
            since = {"offset": 1, "epoch": joined["epoch"], "recover": True}
            told = client.ask("subscribe", channel="moved", **since)
            assert told["recovered"] is True
            assert [one["data"] for one in told["publications"]] == [2]
            assert events.next().data == "2"
    ending.start()
