"""Servers in many processes, called by what others wrote: Node's gRPC, ghz, buf, and Envoy and nginx in between."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from test_grpc_servers import served

from support import servicers
from support.examples import proxied, proxies, running, spelling
from support.needed import absent
from support.waiting import until_true

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
GHZ = next(ROOT.glob(".cache/ghz-*/ghz"), None)
KINDS = ["async", "threads"]
PROXIES = {"envoy.yaml": proxies.envoy, "nginx.conf": proxies.nginx}


# ── Node: @grpc/grpc-js ─────────────────────────────────────────────────────────


@pytest.fixture
def node():
    if shutil.which("node") is None or not MODULES.is_dir():
        absent("@grpc/grpc-js (scripts/servers.sh)")


def node_command(address, what):
    return ["node", str(ROOT / "tests" / "node" / "client.js"), address, what]


def node_options():
    return {"env": {**os.environ, "NODE_PATH": str(MODULES)}, "text": True}


async def asked(address, what):
    done = await asyncio.to_thread(
        subprocess.run, node_command(address, what), capture_output=True, timeout=90, **node_options()
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("kind", KINDS)
async def test_node_makes_every_kind_of_call(kind):
    async with served(kind) as server:
        found = await asyncio.gather(
            *(
                asked(server.address, what)
                for what in ("unary", "stream", "deadline", "fail", "health", "big")
            )
        )
        who, numbers, deadline, fail, health, big = found
        assert who.isdigit()
        assert numbers == [str(number) for number in range(1000)]
        assert deadline == "DEADLINE_EXCEEDED"
        assert fail == ["INVALID_ARGUMENT", "no such thing"]
        assert health == "SERVING"
        assert big == 10 << 20


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("kind", KINDS)
async def test_node_makes_many_calls_at_once(kind):
    async with served(kind) as server:
        assert await asked(server.address, "many") == 2000
        await until_true(lambda: server.totals().handled.get(("test.Echo/Who", "OK")) == 2000)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("threads", [None, 2])
def test_node_survives_rolling_restarts(threads, tmp_path):
    address = f"127.0.0.1:{proxies.free_ports(1)}"
    register = "register" if threads is None else "register_threads"
    (tmp_path / "server.py").write_text(
        f"from support.servicers import {register}\n"
        "from yelpaze.rpc import serve\n\n"
        'if __name__ == "__main__":\n'
        f"    serve({register}, listen={address!r}, processes=2, threads={threads})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "server.py"]
    options = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True}
    with running(command, address, **options) as server:
        client = subprocess.Popen(
            node_command(address, "load"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, **node_options()
        )
        try:
            assert "server at" in server.stderr.readline()
            assert client.stdout.readline() == "calling\n"
            for _ in range(2):
                server.send_signal(signal.SIGHUP)
                assert server.stderr.readline() == "yelpaze: all processes have been replaced\n"
            output, _ = client.communicate(timeout=100)
        finally:
            client.kill()
            client.wait()
    server.stderr.close()
    counts = json.loads(output)
    assert counts.pop("OK") > 100
    assert counts == {}


# ── ghz and buf ─────────────────────────────────────────────────────────────────


def test_ghz_calls_in_bulk_without_an_error():
    if GHZ is None:
        absent("ghz (scripts/servers.sh)")
    with spelling() as (port, _):
        # By reflection, which it asks for the method's name: grpc/grpc#34743, bojand/ghz#419.
        command = [GHZ, "--insecure", "--call", "spelling.v1.Spelling.Correct", "-d", '{"word": "weather"}']
        command += ["-n", "20000", "-c", "50", "--connections", "8", "-O", "json", f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["count"], report["statusCodeDistribution"]) == (20_000, {"OK": 20_000})
    assert not report["errorDistribution"]


def test_buf_calls_a_users_service_by_reflection():
    buf = Path(sys.executable).with_name("buf")
    with spelling() as (port, _):
        command = [
            buf,
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "-d",
            '{"text": "recieve truly"}',
        ]
        url = f"http://127.0.0.1:{port}/spelling.v1.Spelling/CorrectText"
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")
    assert (first["word"], first["suggestions"][0]) == ("recieve", "receive")
    assert second["suggestions"] == ["truly"]


# ── Envoy and nginx, as examples/load_balancing configures them ─────────────────

# For calls that a proxy does not make again. nginx never does once it has sent them on.
AGAIN = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


@asynccontextmanager
async def behind(name, folder, kind="async", *, retry=None):
    """A server, and a channel of grpcio's to the proxy before it."""
    if PROXIES[name]() is None:
        absent(name.partition(".")[0])
    first = proxies.free_ports(proxies.SPARE_PORTS)
    ports = (first, first + proxies.SPARE_PORTS - 1)
    config = {"methodConfig": [{"name": [{}], "retryPolicy": retry}]} if retry else {}
    options = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
    async with (
        served(kind, private_ports=ports, drain=1) as server,
        proxied(name, first, folder) as address,
        grpc.aio.insecure_channel(address, options=options) as channel,
    ):
        yield server, address, channel


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROXIES)
async def test_calls_streams_and_large_messages_pass(name, kind, tmp_path):
    async with behind(name, tmp_path, kind) as (_, _, channel):
        who = channel.unary_unary(f"/{servicers.SERVICE}/Who")
        assert len({await who(b"", timeout=60) for _ in range(40)}) == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{servicers.SERVICE}/Fail")(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{servicers.SERVICE}/Sleep")(b"2", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        count = channel.unary_stream(f"/{servicers.SERVICE}/Count")
        assert [item async for item in count(b"1000", timeout=60)] == [b"%d" % n for n in range(1000)]
        large = os.urandom(10 << 20)
        echo = channel.stream_stream(f"/{servicers.SERVICE}/Echo")
        assert [item async for item in echo(iter([large, b"small"]), timeout=60)] == [large, b"small"]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", PROXIES)
async def test_node_behind_a_proxy(name, tmp_path):
    async with behind(name, tmp_path) as (_, address, _):
        found = await asyncio.gather(*(asked(address, what) for what in ("many", "stream", "big", "health")))
        assert found == [2000, [str(number) for number in range(1000)], 10 << 20, "SERVING"]


@asynccontextmanager
async def under_load(channel):
    """16 callers without a pause. Gives what each process answered since it was last cleared, and the errors."""
    who, answered, errors, is_over = (
        channel.unary_unary(f"/{servicers.SERVICE}/Who"),
        Counter(),
        Counter(),
        False,
    )

    async def call():
        while not is_over:
            try:
                answered[await who(b"", timeout=60)] += 1
            except grpc.aio.AioRpcError as error:
                errors[error.code().name, error.details()] += 1

    callers = [asyncio.create_task(call()) for _ in range(16)]
    try:
        yield answered, errors
    finally:
        is_over = True
        await asyncio.gather(*callers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "retry"), [("envoy.yaml", None), ("nginx.conf", AGAIN)])
async def test_a_process_killed_under_load_costs_no_call(name, retry, kind, tmp_path):
    async with (
        behind(name, tmp_path, kind, retry=retry) as (server, _, channel),
        under_load(channel) as (answered, errors),
    ):
        for _ in range(3):
            answered.clear()
            await until_true(lambda: len(answered) == 2)
            before = set(answered)
            os.kill(int(next(iter(before))), signal.SIGKILL)
            await until_true(lambda before=before: set(answered) - before)
    if name == "nginx.conf":  # an answer that it has begun to pass on cannot be made again: rare, one a kill
        cut = [count for (code, text), count in errors.items() if code == "INTERNAL" and "RST_STREAM" in text]
        assert sum(errors.values()) == sum(cut) <= 3
    else:
        assert errors == {}
    assert server.totals().restarts["crashed"] == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "retry"), [("envoy.yaml", None), ("nginx.conf", AGAIN)])
async def test_a_rolling_restart_costs_no_call(name, retry, kind, tmp_path):
    async with (
        behind(name, tmp_path, kind, retry=retry) as (server, _, channel),
        under_load(channel) as (answered, errors),
    ):
        await until_true(lambda: len(answered) == 2)
        before = set(answered)
        await server.roll()
        answered.clear()
        await until_true(lambda: len(answered) == 2)
        assert not before & set(answered)
    assert errors == {}
