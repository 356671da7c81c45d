"""gRPC servers in many processes, and the client that finds the least busy one."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest

from support import servicers
from support.waiting import until_true
from yelpaze.grpc.address import Address
from yelpaze.grpc.multi_process import MultiProcessServer
from yelpaze.grpc.options import Options
from yelpaze.grpc.peers import Target
from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.observe.serving import ServerCollector
from yelpaze.rpc import Channel, Security

KINDS = {"async": (servicers.register, None), "threads": (servicers.register_threads, 2)}


@asynccontextmanager
async def served(kind="async", listen="127.0.0.1:0", **options):
    register, threads = KINDS[kind] if isinstance(kind, str) else (kind, None)
    notes = []
    options.setdefault("drain", 0.1)
    server = MultiProcessServer(
        register,
        listen,
        Options(**{"threads": threads, "processes": 2} | options),
        report=lambda notice: notes.append(str(notice)),
    )
    async with server:
        server.lines = notes
        yield server


def unary(channel, name, **options):
    method = channel.unary_unary(f"/{servicers.SERVICE}/{name}")
    return lambda request=b"", timeout=40: method(request, timeout=timeout, **options)


async def many(channel, count=60):
    """How many calls each process answered."""
    who = unary(channel, "Who")
    return Counter(await asyncio.gather(*(who() for _ in range(count))))


@asynccontextmanager
async def caller(server, **options):
    """A channel that knows all processes."""
    async with Channel(server.address, **options) as channel:
        await until_true(
            lambda: len(channel.peers.ready()) == len(server.ports) and not channel.peers.ready()[0].is_shared
        )
        yield channel


@pytest.mark.parametrize("kind", KINDS)
async def test_all_processes_answer_and_are_counted_together(kind):
    async with served(kind, processes=3) as server, caller(server) as channel:
        found = await many(channel)
        assert len(found) == 3
        assert min(found.values()) >= 10
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel, "Fail")()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until_true(lambda: sum(server.totals().handled.values()) == 61)
        totals = server.totals()
        assert totals.handled == {("test.Echo/Who", "OK"): 60, ("test.Echo/Fail", "INVALID_ARGUMENT"): 1}
        registry = CollectorRegistry()
        registry.register(ServerCollector(server))
        text = generate_latest(registry).decode()
    assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="Who",grpc_service="test.Echo"} 60.0' in text
    assert 'grpc_code="InvalidArgument"' in text
    assert 'grpc_server_handling_seconds_count{grpc_method="Who",grpc_service="test.Echo"} 60.0' in text
    assert "yelpaze_server_processes 3.0" in text


async def test_calls_made_at_once_after_opening_go_to_all_processes(monkeypatch):
    monkeypatch.setattr("yelpaze.grpc.peers._MOMENT", 30)  # the wait ends when all have answered
    async with served() as server, Channel(server.address) as channel:
        assert len(await many(channel)) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_watchers_of_health_do_not_hold_up_the_end(kind):
    async with (
        asyncio.timeout(30),
        served(kind, grace=60) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await server.drain()


async def test_calls_wait_while_no_process_is_there():
    async with served(processes=1) as server, Channel(server.address, idempotent=True) as channel:
        who = unary(channel, "Who")
        before = await who()
        os.kill(int(before), signal.SIGKILL)
        assert await who() != before


@pytest.mark.parametrize("kind", KINDS)
async def test_streams(kind):
    async with served(kind) as server, caller(server) as channel:
        count = channel.unary_stream(f"/{servicers.SERVICE}/Count")
        assert [item async for item in count(b"3", timeout=40)] == [b"0", b"1", b"2"]
        add = channel.stream_unary(f"/{servicers.SERVICE}/Add")
        assert await add(iter([b"1", b"2", b"39"]), timeout=40) == b"42"
        echo = channel.stream_stream(f"/{servicers.SERVICE}/Echo")
        assert [item async for item in echo(iter([b"a", b"b"]), timeout=40)] == [b"a", b"b"]
        assert all(peer.under_way == 0 for peer in channel.peers.ready())


@pytest.mark.parametrize("kind", KINDS)
async def test_the_least_busy_process_gets_the_call(kind, tmp_path):
    over = tmp_path / "over"
    async with served(kind) as server, caller(server) as channel:
        hold, who = unary(channel, "Until"), unary(channel, "Who")
        long = asyncio.create_task(hold(bytes(over)))
        await until_true(lambda: any(peer.under_way for peer in channel.peers.ready()))
        others = {await who() for _ in range(10)}
        assert len(others) == 1
        assert not long.done()
        over.touch()
        assert await long not in others


async def test_another_clients_calls_count_too(tmp_path):
    over = tmp_path / "over"
    async with served() as server, caller(server) as one, caller(server) as other:
        long = [asyncio.create_task(unary(one, "Until")(bytes(over))) for _ in range(3)]
        await until_true(lambda: sum(peer.load for peer in other.peers.ready()) == 3)
        loads = sorted(peer.load for peer in other.peers.ready())
        assert loads == [1, 2]
        over.touch()
        await asyncio.gather(*long)
        await until_true(lambda: not any(peer.load for peer in other.peers.ready()))


@pytest.mark.parametrize("kind", KINDS)
async def test_processes_killed_under_load_cost_no_idempotent_call(kind):
    async with served(kind, processes=3) as server, caller(server, idempotent=True) as channel:
        who, is_over, answered = unary(channel, "Who"), False, Counter()

        async def call():
            while not is_over:
                answered[await who()] += 1

        callers = [asyncio.create_task(call()) for _ in range(6)]
        for turn in range(3):
            answered.clear()
            await until_true(lambda: len(answered) >= 3 or any(task.done() for task in callers))
            os.kill(int(next(iter(answered))), signal.SIGKILL)
            await until_true(lambda turn=turn: server.totals().restarts.get("crashed", 0) > turn)
            await until_true(lambda: len(server.ports) == 3)
        is_over = True
        await asyncio.gather(*callers)
        assert server.totals().restarts == {"crashed": 3}
        assert all("killed by SIGKILL" in line for line in server.lines)


@pytest.mark.parametrize("kind", KINDS)
async def test_rolling_replaces_all_and_refuses_none(kind):
    async with served(kind, drain=1) as server, caller(server) as channel:
        who, is_over, answered = unary(channel, "Who"), False, Counter()

        async def call():
            while not is_over:
                answered[await who()] += 1

        callers = [asyncio.create_task(call()) for _ in range(4)]
        await until_true(lambda: len(answered) == 2)
        before = set(answered)
        await server.roll()
        await until_true(lambda: len(server._supervisor.processes) == 2)
        answered.clear()
        await until_true(lambda: len(answered) == 2 or any(task.done() for task in callers))
        is_over = True
        await asyncio.gather(*callers)
        assert not before & set(answered)


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_under_way_end_when_it_stops(kind, tmp_path):
    ended = tmp_path / "ended"
    async with served(kind) as server:
        channel = grpc.aio.insecure_channel(server.address)
        method = channel.unary_unary(f"/{servicers.SERVICE}/Until")
        call = asyncio.ensure_future(method(bytes(ended), timeout=40))
        await until_true(lambda: server.totals().running == 1)
        stopping = asyncio.create_task(server.drain())
        await until_true(lambda: not server.is_ready or stopping.done())
        assert not call.done()
        ended.touch()
        await stopping
        assert (await call).isdigit()
        await channel.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_watchers_do_not_hold_up_the_end(kind):
    async with served(kind, grace=60) as server:
        channel = grpc.aio.insecure_channel(server.address)
        watch = channel.unary_stream("/yelpaze.grpc.v1.Processes/Watch")(b"")
        assert await watch.read()
        async with asyncio.timeout(40):
            await server.drain()
        await channel.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_call_too_many_is_refused_and_goes_elsewhere(kind, tmp_path):
    over = tmp_path / "over"
    most = {"max_concurrent": 2, "threads": 1} if kind == "threads" else {"max_concurrent": 2}
    async with served(kind, **most) as server, caller(server) as channel:
        first = server.ports[0]
        direct = grpc.aio.insecure_channel(first)
        hold, who = (direct.unary_unary(f"/{servicers.SERVICE}/{name}") for name in ("Until", "Who"))
        tasks = [asyncio.ensure_future(hold(bytes(over), timeout=60)) for _ in range(2)]
        busy = next(peer for peer in channel.peers.ready() if peer.address.text == first)
        await until_true(lambda: busy.load == 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await who(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        health = health_pb2_grpc.HealthStub(direct).Check  # does not count
        assert (await health(health_pb2.HealthCheckRequest(), timeout=30)).status == 1
        busy._reported = -5  # as if it had not reported
        assert (await unary(channel, "Who")()).isdigit()
        assert not any(task.done() for task in tasks)
        over.touch()
        await asyncio.gather(*tasks)
        await direct.close()


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("request_", ["RESOURCE_EXHAUSTED", "forward RESOURCE_EXHAUSTED", "Large"])
async def test_a_call_that_ran_is_not_sent_again(request_, idempotent, tmp_path):
    """Whatever a servicer says, or gRPC where an answer is too large: only the process itself can refuse a call."""
    notes, options = tmp_path / "notes", [("grpc.max_receive_message_length", 1000)]
    name, request = ("Large", "") if request_ == "Large" else ("Abort", f"{request_} ")
    async with (
        served(servicers.register_noting) as server,
        caller(server, idempotent=idempotent, options=options) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel, name)(f"{request}{notes}".encode())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert notes.read_text() == "begin\n"


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("threads", [None, 2])
async def test_a_servicers_own_status_is_not_a_lost_process(threads, idempotent, tmp_path):
    """Whoever is asked again would say the same, or do it twice."""
    in_thread = "InThread" if threads else ""
    async with (
        served(servicers.register_noting, threads=threads) as server,
        caller(server, idempotent=idempotent) as channel,
    ):
        for code in ("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "ABORTED"):
            for how in ("Abort", "SetCode"):
                notes = tmp_path / f"{how}{code}"
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await unary(channel, f"{how}{in_thread}")(f"{code} {notes}".encode())
                assert caught.value.code() is grpc.StatusCode[code]
                assert (notes.read_text(), code, how) == ("begin\n", code, how)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_succeeds_has_no_mark(kind):
    async with served(kind) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{servicers.SERVICE}/Who")(b"", timeout=40)
        assert (await call).isdigit()
        assert not list(await call.trailing_metadata())
        stream = channel.unary_stream(f"/{servicers.SERVICE}/Count")(b"3", timeout=40)
        assert len([answer async for answer in stream]) == 3
        assert not list(await stream.trailing_metadata())


RAISING = {
    "async": (servicers.register_raising, None),
    "threads": (servicers.register_raising_sync, 2),
    "sync in async": (servicers.register_raising_sync, None),
}


@pytest.mark.parametrize("kind", RAISING)
async def test_what_servicers_raise_ends_their_call_and_is_logged(kind):
    register, threads = RAISING[kind]
    async with (
        served(register, processes=1, threads=threads) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        later = channel.unary_stream(f"/{servicers.SERVICE}/RaiseLater")
        pid = await unary(channel, "Who")()
        for name in servicers.RAISED:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, "Raise")(name.encode())
            assert (caught.value.code(), name) == (grpc.StatusCode.UNKNOWN, name)
            stream = later(name.encode(), timeout=40)
            assert await stream.read() == b"1"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert (caught.value.code(), name) == (grpc.StatusCode.UNKNOWN, name)
        assert await unary(channel, "Who")() == pid
    logged = [line for line in server.lines if line.startswith("error: ") and "Traceback" in line]
    assert len(logged) == 2 * len(servicers.RAISED)
    assert all("order 17 has no lines" in line and "in fail" in line for line in logged)


async def left_work(server, go, notes):
    """Begin work, and leave it without its client."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{servicers.SERVICE}/Work")(f"{go} {notes}".encode(), timeout=60)
        await until_true(notes.exists)
        call.cancel()


@pytest.mark.parametrize("how", ["stop", "roll"])
@pytest.mark.parametrize("threads", [2, None])
async def test_work_without_its_client_ends_within_grace(threads, how, tmp_path):
    """In threads: gRPC's async server runs functions that are not async in some, too."""
    go, notes = tmp_path / "go", tmp_path / "notes"
    async with served(servicers.register_noting, processes=1, threads=threads, grace=60) as server:
        await left_work(server, go, notes)
        (old,) = server._supervisor.serving()
        ending = asyncio.create_task(server.drain() if how == "stop" else server.roll())
        await until_true(lambda: old.state == "draining")
        go.touch()
        await ending
        assert notes.read_text() == "begin\nend\n"


async def test_work_without_its_client_is_cut_after_grace(tmp_path):
    notes = tmp_path / "notes"
    async with served(servicers.register_noting, processes=1, threads=1, grace=0.5) as server:
        await left_work(server, tmp_path / "never", notes)
        async with asyncio.timeout(40):
            await server.drain()
        assert notes.read_text() == "begin\n"


async def test_a_connections_age_cuts_no_call():
    """Calls and streams last as long as several ages, over a connection each and over one that is shared."""

    async def ticks(channel):
        stream = channel.unary_stream(f"/{servicers.SERVICE}/Ticks")(b"25", timeout=60)
        return len([answer async for answer in stream])

    options = [("grpc.use_local_subchannel_pool", 1)]
    age = {"processes": 1, "max_connection_age": 0.5, "grace": 0.5}
    async with served(servicers.register_ticking, **age) as server, caller(server) as shared:
        first, second = (grpc.aio.insecure_channel(server.address, options=options) for _ in range(2))
        async with first, second:
            found = await asyncio.gather(
                ticks(first),
                unary(second, "Sleep")(b"2.5"),
                ticks(shared),
                *(unary(shared, "Sleep")(b"2.5") for _ in range(3)),
            )
        assert (found[0], found[2]) == (25, 25)
        assert len({pid for pid in found if isinstance(pid, bytes)}) == 1


async def test_an_abort_ends_all_processes_at_once():
    async with served(grace=600) as server, caller(server) as channel:
        pids = {int(pid) for pid in await many(channel)}
        await server.close()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_worn_processes_are_replaced_after_their_replacement_is_there():
    async with served(processes=1, max_calls=5) as server, caller(server) as channel:
        who = unary(channel, "Who")
        before = await who()
        for _ in range(5):
            await who()
        await until_true(lambda: server.totals().restarts == {"calls": 1})
        await until_true(lambda: len(server._supervisor.processes) == 1 and len(server.ports) == 1)
        await until_true(lambda: [peer.address.text for peer in channel.peers.ready()] == server.ports)
        assert await who() != before
    async with served(processes=1, max_memory=1) as server:
        await until_true(lambda: server.totals().restarts.get("memory", 0) >= 1)
    async with served(processes=1, max_age=0.5) as server:
        await until_true(lambda: server.totals().restarts.get("age", 0) >= 1)


async def test_a_hedged_call_is_answered_by_the_other_process():
    async with served() as server, caller(server, idempotent=True, hedge=0.1) as channel:
        pids = await many(channel)
        ready = channel.peers.ready()
        pid, _ = pids.most_common()[0]
        os.kill(int(pid), signal.SIGSTOP)
        try:
            found = {await unary(channel, "Who")(timeout=30) for _ in range(4)}
        finally:
            os.kill(int(pid), signal.SIGCONT)
        assert len(ready) == 2
        assert pid not in found


async def test_what_register_gives_lasts_as_long_as_the_process_serves(tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("TEST_NOTES", str(notes))
    async with served(servicers.with_life, processes=1):
        assert notes.read_text() == "begin\n"
    assert notes.read_text() == "begin\nend\n"


async def test_processes_that_cannot_start_say_why():
    with pytest.raises(StoppedError, match="LookupError: no database at hand"):
        async with served(servicers.broken):
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_unix_socket(kind, tmp_path):
    path = f"unix:{tmp_path}/echo.sock"
    async with served(kind, listen=path) as server, caller(server, idempotent=True) as channel:
        assert len(await many(channel)) == 2
        before = set(await many(channel))
        await server.roll()
        await until_true(
            lambda: sorted(peer.address.text for peer in channel.peers.ready()) == sorted(server.ports)
        )
        assert not before & set(await many(channel))
        with pytest.raises(InputError, match="another server is listening"):
            async with served(listen=path):
                pass
    assert not list(tmp_path.iterdir())


def written(cert, folder):
    """The certificate's files."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    cert.private_key_pem.write_to_path(str(key))
    return str(chain), str(key)


def certificate_at(address):
    """What is served there, in DER."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), 30) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True)


async def test_a_roll_serves_the_certificate_that_is_in_the_files_now(ca, tmp_path):
    tls = written(ca.issue_cert("localhost", "127.0.0.1"), tmp_path)
    async with served(tls=tls, processes=1) as server:
        first = await asyncio.to_thread(certificate_at, server.address)
        written(ca.issue_cert("localhost", "127.0.0.1"), tmp_path)
        await server.roll()
        second = await asyncio.to_thread(certificate_at, server.address)
        assert second != first
        Path(tls[1]).write_text("half a file")  # as while it is being renewed
        await server.roll()
        assert await asyncio.to_thread(certificate_at, server.address) == second
        assert any("the certificate that was read before is used" in line for line in server.lines)


async def test_tls_and_mtls(ca, ca_file, tmp_path):
    def pair(name, *identities):
        certificate = ca.issue_cert(*identities)
        chain, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.write_bytes(certificate.private_key_pem.bytes())
        return str(chain), str(key)

    tls, client = pair("server", "localhost"), pair("client", "client")
    async with served(tls=tls, client_ca=ca_file, listen="127.0.0.1:0") as server:
        target = f"grpcs://localhost:{server.address.rpartition(':')[2]}"
        async with Channel(target, security=Security(ca_file=ca_file, client_cert=client)) as channel:
            assert (await unary(channel, "Who")()).isdigit()
            await until_true(lambda: len(channel.peers.ready()) == 2)
            assert len(await many(channel)) == 2
        async with Channel(target, security=Security(ca_file=ca_file)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, "Who")(timeout=1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(InputError, match=r"client.key: is not the key of the certificate in .*server.pem"):
        await served(tls=(tls[0], client[1])).__aenter__()
    with pytest.raises(InputError, match=r"missing.pem: cannot be read"):
        await served(tls=(str(tmp_path / "missing.pem"), tls[1])).__aenter__()
    with pytest.raises(InputError, match="is not PEM"):
        (tmp_path / "text").write_text("no certificate")
        await served(tls=(str(tmp_path / "text"), tls[1])).__aenter__()


async def test_servers_that_tell_nothing_are_called_all_the_same():
    server = grpc.aio.server()
    servicers.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Channel(f"127.0.0.1:{port}") as channel:
        assert await unary(channel, "Who")() == str(os.getpid()).encode()
    await server.stop(0)


async def test_no_server_is_unavailable_with_the_reason():
    async with Channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel, "Who")(timeout=2)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in caught.value.details()


async def test_private_ports_are_taken_from_their_range():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    async with served(private_ports=(first, first + 20)) as server:
        assert all(first <= int(port.rpartition(":")[2]) <= first + 20 for port in server.ports)


@pytest.mark.parametrize("kind", KINDS)
async def test_buf_curl_finds_the_services_by_reflection(kind):
    threads = 1 if kind == "threads" else None  # its reflection stream must not hold the only thread
    async with served(kind, threads=threads, processes=1) as server:
        buf = Path(sys.executable).with_name("buf")
        command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", "{}"]
        url = f"http://{server.address}/grpc.health.v1.Health/Check"
        done = await asyncio.to_thread(
            subprocess.run, [*command, url], capture_output=True, text=True, timeout=60
        )
        assert '"SERVING"' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("50051", "give host:port"),
        ("localhost:http", "give host:port"),
        ("127.0.0.1:99999", "give host:port"),
        ("http://127.0.0.1:50051", "give host:port"),
        ("unix:", "give the socket's path"),
        ("unix:/no/such/folder/s.sock", "there is no folder /no/such/folder"),
        ("203.0.113.1:50051", "this machine has no such address"),
        ("no-such-host.invalid:50051", "there is no such host"),
    ],
)
async def test_addresses_that_cannot_be_used(listen, message):
    with pytest.raises(InputError, match=message):
        await served(listen=listen).__aenter__()


async def test_a_port_in_use_by_another_server_even_one_that_shares_it():
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="another server is listening there"):
            await served(listen=f"127.0.0.1:{other.getsockname()[1]}").__aenter__()


@pytest.mark.parametrize(
    "options",
    [
        {"processes": 0},
        {"grace": -1},
        {"max_age": 0},
        {"threads": 0},
        {"client_ca": "ca.pem"},
        {"max_message": "1"},
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(MisuseError, match=next(iter(options))):
        Options(**options)


def test_a_register_that_others_cannot_find():
    with pytest.raises(MisuseError, match="define it at the top level of a module"):
        MultiProcessServer(lambda server: None, "127.0.0.1:0", Options())


@pytest.mark.parametrize("text", ["http://a:1", "grpc://", "grpc://a", ":1", "grpcs://a:b"])
def test_targets_that_are_none(text):
    with pytest.raises(InputError):
        Target.parse(text)


def test_addresses_as_grpc_takes_them():
    assert Address.parse("[::1]:50051").text == "[::1]:50051"
    assert Address.parse(":50051").text == "0.0.0.0:50051"
    assert Target.parse("unix:///run/a.sock").address.text == "unix:/run/a.sock"


def test_serve_from_a_script_stops_and_rolls_by_signals(tmp_path):
    (tmp_path / "server.py").write_text(
        "import sys\n"
        "from support.servicers import register\n"
        "from yelpaze.rpc import serve\n\n"
        'if __name__ == "__main__":\n'
        '    serve(register, listen="127.0.0.1:0", processes=1, drain=0, metrics="127.0.0.1:0")\n'
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "server.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr.readline().startswith("yelpaze: metrics at http://127.0.0.1:")
        assert "server at 127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == "yelpaze: all processes have been replaced\n"
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "yelpaze: stopping\nyelpaze: stopped\n")


def test_a_script_without_the_guard_is_told_so(tmp_path):
    (tmp_path / "server.py").write_text(
        "from support.servicers import register\n"
        "from yelpaze.rpc import serve\n\n"
        'serve(register, listen="127.0.0.1:0", processes=1)\n'
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "server.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert 'put what starts it under `if __name__ == "__main__":`' in done.stderr


@pytest.mark.parametrize("kind", KINDS)
async def test_interceptors_are_made_in_each_process(kind):
    interceptors = servicers.guards if kind == "threads" else servicers.async_guards
    async with served(kind, interceptors=interceptors) as server, caller(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(channel, "Who")()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        who = unary(channel, "Who", metadata=(("token", "good"),))
        assert len({await who() for _ in range(20)}) == 2


async def bytes_for_an_answer(port):
    """What the server sends for an answer of 100,000 equal bytes."""
    received = 0

    async def pass_on(reader, writer):
        nonlocal received
        upstream, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def answers():
            nonlocal received
            while data := await upstream.read(65536):
                received += len(data)
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(answers())
        while data := await reader.read(65536):
            to_server.write(data)
        to_server.close()
        await answering

    proxy = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with proxy, grpc.aio.insecure_channel(f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as channel:
        echo = channel.stream_stream(f"/{servicers.SERVICE}/Echo")

        async def requests():
            yield b"x" * 100_000

        answers = [answer async for answer in echo(requests(), timeout=40)]
        assert [len(answer) for answer in answers] == [100_000]
    return received


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
async def test_answers_are_compressed_where_that_is_asked_for(compression):
    async with served(processes=1, compression=compression) as server:
        port = int(server.address.rpartition(":")[2])
        size = await bytes_for_an_answer(port)
    assert (size < 20_000) is (compression is not None)


def test_interceptors_and_compression_that_cannot_be_used():
    with pytest.raises(MisuseError, match="compression takes"):
        Options(compression="br")
    with pytest.raises(MisuseError, match="interceptors takes a function"):
        Options(interceptors=[servicers.Guard()])
    with pytest.raises(MisuseError, match="at the top level of a module"):
        MultiProcessServer(
            servicers.register, "127.0.0.1:0", Options(interceptors=lambda: [servicers.Guard()])
        )
