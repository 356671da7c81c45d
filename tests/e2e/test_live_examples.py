"""The live examples do what their pages promise; in a browser: test_live_browser.py."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from support.live import SECONDS, Centrifugo, Events, WebSocket, request
from support.needed import needs
from support.nginx import free_port, wait_for_port

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOM = "chat:room"


@pytest.fixture(autouse=True)
def _extras():
    needs("uvloop", "httptools", "jwt", "yaml")


@contextmanager
def example(name, *arguments):
    """A running example: where its parts are, and where its page is."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name / "run.py"), "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        parts, page = process.stdout.readline(), process.stdout.readline()
        assert page.startswith("open http://127.0.0.1:"), (parts, page)
        yield parts.partition(" at ")[2].split(), page.split()[1]
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(SECONDS) == 0


def port_of(address):
    return int(address.rpartition(":")[2])


def entered(page, name):
    """A client of the chat, on its node."""
    entry = json.loads(request(port_of(page), "GET", f"/entry?name={name}")[2])
    port = port_of(entry["nodes"][("Ada", "Grace").index(name)])
    client = Centrifugo(port, connect={"token": entry["token"]})
    return client, client.ask("subscribe", channel=ROOM, join_leave=True)


def test_a_chat_goes_from_node_to_node_also_after_redis_was_killed():
    needs("redis")
    with ExitStack() as stack:
        nodes, page = stack.enter_context(example("chat_two_nodes"))
        status, headers, body = request(port_of(page), "GET", "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"chat:room" in body
        ada, grace = (stack.enter_context(entered(page, name)[0]) for name in ("Ada", "Grace"))
        ada.ask("publish", channel=ROOM, data={"text": "one"})
        assert grace.data() == {"text": "one"}
        grace.ask("publish", channel=ROOM, data={"text": "two"})
        assert [ada.data(), ada.data()] == [{"text": "one"}, {"text": "two"}]
        assert request(port_of(page), "POST", "/redis/kill")[0] == 200
        assert ada.refused("publish", channel=ROOM, data={"text": "lost?"}) == 100  # the page tries again
        while "error" in ada.reply(ada.send_command("publish", channel=ROOM, data={"text": "three"})):
            pass
        assert grace.data() == {"text": "two"}
        assert grace.data() == {"text": "three"}
        history = grace.ask("history", channel=ROOM, limit=50)["publications"]
        assert [one["data"]["text"] for one in history] == ["one", "two", "three"]
        here = grace.ask("presence", channel=ROOM)["presence"]
        assert {info["user"] for info in here.values()} == {"Ada", "Grace"}
    for address in nodes[::2]:
        with (
            pytest.raises(OSError),
            socket.create_connection(("127.0.0.1", port_of(address)), timeout=SECONDS),
        ):
            pass


def test_a_ticker_by_both_ways_and_the_newest_prices_for_who_is_slow():
    with ExitStack() as stack:
        (gateway,), page = stack.enter_context(example("ticker", "--every", "0.0005"))
        port = port_of(gateway)
        assert gateway.encode() in request(port_of(page), "GET", "/")[2]
        slow, socket_ = (stack.enter_context(WebSocket(port, "/ws/ticker:prices")) for _ in range(2))
        slow._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        events = stack.enter_context(Events(port, "ticker:prices"))
        seen = json.loads(events.next().data)
        while (other := json.loads(socket_.hear()))["tick"] < seen["tick"]:
            pass
        while seen["tick"] < other["tick"]:
            seen = json.loads(events.next().data)
        assert seen == other
        first = json.loads(slow.hear())["tick"]
        while other["tick"] < first + 1600:  # more than all buffers hold
            other = json.loads(socket_.hear())
        ticks = [json.loads(slow.hear())["tick"]]
        while ticks[-1] < other["tick"]:
            ticks.append(json.loads(slow.hear())["tick"])
        assert len(ticks) < 1500, "those in between are left out"
        assert ticks == sorted(set(ticks))


# ── inside FastAPI ──────────────────────────────────────────────────────────────


@contextmanager
def mounted(*arguments, **environment):
    """examples/fastapi_mount by uvicorn: its process and port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / "fastapi_mount"), "app:app",
         "--port", str(port), "--log-level", "warning", *arguments],
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield process, port
    finally:
        process.terminate()
        process.wait(SECONDS)


def place(port, table, dish):
    body = json.dumps({"table": table, "dish": dish}).encode()
    status, _, answer = request(port, "POST", "/orders", body, {"Content-Type": "application/json"})
    assert status == 201, answer
    return json.loads(answer)["number"]


@contextmanager
def listening(port):
    """An event stream that has begun."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as reader:
        reader.request("GET", "/live/sse/shop:orders")
        stream = reader.getresponse()
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield stream


def next_of(stream):
    line = next(line for line in stream if line.startswith(b"data: "))
    return json.loads(line.removeprefix(b"data: "))


def test_orders_reach_every_page_and_open_pages_do_not_hold_up_the_end():
    with mounted() as (process, port):
        assert b"EventSource" in request(port, "GET", "/")[2]
        with WebSocket(port, "/live/ws/shop:orders") as plain, listening(port) as stream:
            assert place(port, 7, "Lentil soup") == 1
            assert json.loads(plain.hear())["dish"] == next_of(stream)["dish"] == "Lentil soup"
            assert [one["table"] for one in json.loads(request(port, "GET", "/orders")[2])] == [7]
            process.send_signal(signal.SIGTERM)
            assert plain.closed()[0] in (1012, 3001)  # uvicorn's word, or ours
            stream.read()  # it ends
            process.wait(SECONDS)


def test_orders_from_any_process_reach_the_readers_of_all(redis):
    with ExitStack() as stack:
        _, first = stack.enter_context(mounted("--workers", "2", REDIS=redis.url))
        _, second = stack.enter_context(mounted(REDIS=redis.url))
        readers = [stack.enter_context(listening(port)) for port in (first, first, second, second)]
        for port in (first, second):
            place(port, 1, f"by {port}")
            heard = [next_of(stream) for stream in readers]
            assert heard == [heard[0]] * 4
            assert heard[0]["dish"] == f"by {port}"


def test_an_order_that_cannot_be_told_is_not_placed(redis):
    with mounted(REDIS=redis.url) as (_, port):
        place(port, 1, "tea")
        redis.kill()
        body = json.dumps({"table": 1, "dish": "more tea"}).encode()
        status, headers, _ = request(port, "POST", "/orders", body, {"Content-Type": "application/json"})
        assert (status, headers["retry-after"]) == (503, "1")
        redis.start()
        while request(port, "POST", "/orders", body, {"Content-Type": "application/json"})[0] != 201:
            pass


@pytest.mark.parametrize("name", ["chat_two_nodes", "ticker"])
def test_a_port_that_is_taken_is_told(name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, str(EXAMPLES / name / "run.py"), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert "Address already in use: choose another with --port" in done.stderr


def test_redis_is_named_where_it_is_missing():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "chat_two_nodes" / "run.py")],
        capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert "redis-server is missing" in done.stderr
