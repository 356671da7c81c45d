"""`yelpaze worker` and its clients: real processes, faults, versions, wrong use."""

import asyncio
import datetime as dt
import os
import re
import shutil
import signal
import socket
import tempfile
import types
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc
import msgspec
import pytest
import trustme

import yelpaze
from support import journey
from support.raw import Peer
from support.waiting import until
from support.workers import HERE, worker
from yelpaze import InputError, MisuseError, StoppedError
from yelpaze.compute import worker_pb2 as pb
from yelpaze.compute.service import PROTOCOL, SERVICE
from yelpaze.flow.loading import find
from yelpaze.rpc import Functions, RemoteError, Security, Workers

JOURNEY = HERE / "journey.py"
SQUARES = """
    import os, time

    flow = Flow("squares")

    @flow.compute(timeout=3)
    def square(row):
        n = row["n"]
        if n == 13:
            os._exit(9)
        if n == 17:
            time.sleep(60)
        if n == 19:
            raise LookupError("nineteen")
        return {"n": n * n}

    def pid() -> int:
        return os.getpid()
"""


@pytest.fixture(scope="module")
def served():
    """A worker of support/journey.py, two processes."""
    with worker(JOURNEY, "--processes", "2") as found:
        yield found


@pytest.fixture
def runtime():
    """A folder for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="run") as folder:
        yield Path(folder)


@pytest.fixture
async def functions(served):
    async with Functions(served.address, module="journey") as found:
        yield found


# ── flows ───────────────────────────────────────────────────────────────────────


async def shop(peer: Peer) -> None:
    """`/n` answers {"n": n}; /404 and /500 that status."""
    while data := await peer.request():
        path = data.split(b" ")[1].decode()
        if path in ("/404", "/500"):
            await peer.answer(b"{}", status=f"{path[1:]} X", headers="Content-Type: text/x\r\n")
        else:
            await peer.answer(b'{"n": %s}' % path[1:].encode(), headers="Content-Type: text/x\r\n")


async def test_a_flow_gives_the_same_inline_in_processes_and_at_workers(raw, served):
    server = await raw(shop)
    rows = [{"url": server.url, "n": n, "at": "2026-11-21"} for n in range(10)]
    got = {}
    for workers in (0, 2, served.address):
        results = await journey.everything.run(rows, workers=workers)
        assert not [result.failure for result in results if result.failure]
        got[workers] = [msgspec.json.encode(result.value) for result in results]
    inline, local, remote = got.values()
    assert len(set(inline)) == 10
    assert local == inline
    assert remote == inline


def test_run_with_workers_and_its_poison_rows(place):
    flow, rows = place.flow(SQUARES), place.rows(300)
    with worker(flow, "--processes", "2", cwd=place.path) as found:
        done = place("run", flow, rows, "--workers", found.address, code=1)
    assert place.numbers() == [n for n in range(1, 301) if n not in (13, 17, 19)]
    assert {row: letter["error"]["kind"] for row, letter in place.letters.items()} == {
        13: "crashed",
        17: "timeout.compute",
        19: "exception",
    }
    assert "status 9" in place.letters[13]["error"]["message"]
    assert "flow.py" in place.letters[19]["error"]["traceback"]
    assert "succeeded 297" in done.stderr


def test_values_that_would_change_on_the_way_fail_their_row(place):
    flow = place.flow(
        """
        flow = Flow("changing")

        @flow.compute
        def first(row):
            return {"odd": (1, 2), "set": {3}, "fine": [1, 2]}[row]

        @flow.compute
        def second(first):
            return str(first)
        """
    )
    with worker(flow, cwd=place.path) as found:
        results = yelpaze.run(find(str(flow)), ["odd", "set", "fine", "fine"], workers=found.address)
    kinds = [result.failure and result.failure.kind for result in results]
    assert kinds == ["result", "result", None, None]
    assert "annotate it" in results[0].failure.message
    assert results[2].value == "[1, 2]"


def test_times_do_not_change_their_zone_on_the_way(place):
    flow = place.flow(
        """
        from datetime import UTC, datetime, time, timedelta, timezone
        from zoneinfo import ZoneInfo

        flow = Flow("times")
        ZONES = {
            "utc": UTC, "none": None, "berlin": ZoneInfo("Europe/Berlin"), "east": timezone(timedelta(hours=3)),
        }

        @flow.compute
        def at(row) -> datetime:
            return datetime(2026, 10, 24, 12, tzinfo=ZONES[row])

        @flow.compute
        def clock(row, at: datetime) -> time:
            return time(at.hour, tzinfo=None)

        @flow.compute
        def end(at: datetime, clock: time):
            return f"{at!r} {clock!r}"
        """
    )
    rows = ["utc", "none", "berlin", "east"]
    with worker(flow, cwd=place.path) as found:
        inline = yelpaze.run(find(str(flow)), rows)
        remote = yelpaze.run(find(str(flow)), rows, workers=found.address)
    for one, other in zip(inline, remote, strict=True):
        assert other.value == one.value or other.failure.kind == "result"
    assert [result.ok for result in remote] == [True, True, False, False]


def test_another_source_is_refused(place):
    flow, rows = place.flow(SQUARES), place.rows(3)
    with worker(flow, cwd=place.path) as found:
        flow.write_text(flow.read_text() + "\n# edited\n")
        said = place("run", flow, rows, "--workers", found.address, code=2).stderr
    assert "not the same as here (flow.py)" in said
    assert "SIGHUP" in said


def test_a_worker_takes_the_edited_source_at_sighup(place):
    flow, rows = place.flow(SQUARES), place.rows(3)
    with worker(flow, cwd=place.path) as found:
        flow.write_text(flow.read_text().replace('{"n": n * n}', '{"n": -n}'))
        found.process.send_signal(signal.SIGHUP)
        found.until("all processes have been replaced")
        place("run", flow, rows, "--workers", found.address, code=0)
    assert [line["result"]["n"] for line in sorted(place.lines(), key=lambda line: line["row"])] == [
        -1,
        -2,
        -3,
    ]


def test_a_source_that_cannot_be_loaded_replaces_nothing(place):
    flow, rows = place.flow(SQUARES), place.rows(3)
    with worker(flow, cwd=place.path) as found:
        text = flow.read_text()
        flow.write_text("1 / 0")
        found.process.send_signal(signal.SIGHUP)
        assert "ZeroDivisionError" in found.until("could not be replaced and goes on")
        flow.write_text(text)
        place("run", flow, rows, "--workers", found.address, code=0)


def test_calls_under_way_end_before_a_worker_does(place):
    flow = place.flow(
        """
        import time
        from pathlib import Path

        def begin(path: str) -> str:
            Path(path).touch()
            while not Path(path).with_name("over").exists():
                time.sleep(0.01)
            return "ended"
        """
    )
    path = place.path / "begun"
    with worker(flow, cwd=place.path) as found:

        async def call() -> str:
            async with Functions(found.address, module="flow") as functions:
                calling = asyncio.ensure_future(functions.call("begin", str(path)))
                await asyncio.to_thread(until, path.exists)
                found.process.terminate()
                await asyncio.to_thread(until, lambda: not _takes_connections(found.address))
                assert not calling.done()
                path.with_name("over").touch()
                return await calling

        assert asyncio.run(call()) == "ended"
        assert found.process.wait(60) == 0


def _takes_connections(address):
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_process_that_comes_later_must_have_the_same_source(place):
    """Not half of it old and half new: the whole is replaced, once its source can be loaded."""
    flow, rows = place.flow(SQUARES), place.rows(3)
    with worker(flow, "--processes", "1", cwd=place.path) as found:
        text = flow.read_text()
        flow.write_text("1 / 0")
        os.kill(asyncio.run(_calls(found.address, "flow", ["pid"]))[0], signal.SIGKILL)
        found.until("the worker processes cannot start: ")
        found.until("could not be replaced and goes on")
        assert _health(found.address) == 2  # NOT_SERVING
        flow.write_text(text)
        said = place("run", flow, rows, "--workers", found.address, code=2).stderr
        assert "cannot be imported: ZeroDivisionError" in said
        found.until("is replaced: broken")  # ten seconds later
        until(lambda: _health(found.address) == 1)
        place("run", flow, rows, "--workers", found.address, code=0)


async def _calls(address, module, names):
    async with Functions(address, module=module) as functions:
        return [await functions.call(name) for name in names]


def _health(address):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=True).status


def test_another_flow_is_refused(place, served):
    flow, rows = place.flow(SQUARES), place.rows(3)
    said = place("run", flow, rows, "--workers", served.address, code=2).stderr
    assert "serves flow:everything, journey, not flow:squares" in said


def test_workers_that_are_killed_lose_no_row(place):
    """Fronts and CPU processes die at random while a run goes on."""
    flow = place.flow(
        """
        import os, time

        flow = Flow("busy")

        @flow.compute
        def work(row):
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            return row

        def pid() -> int:
            return os.getpid()

        def front() -> int:
            return os.getppid()
        """
    )
    rows = place.rows(3000)
    with ExitStack() as stack:
        found = [stack.enter_context(worker(flow, "--processes", "1", cwd=place.path)) for _ in range(2)]
        addresses = ",".join(one.address for one in found)
        run = place.start("run", flow, rows, "--workers", addresses, "--json", "-q")
        for turn in range(8):
            one = found[turn % 2]
            name = "front" if turn % 4 < 2 else "pid"
            os.kill(asyncio.run(_calls(one.address, "flow", [name]))[0], signal.SIGKILL)
        assert run.wait(100) == 0, run.stderr.read()
    assert place.numbers() == list(range(1, 3001))


def test_a_run_goes_on_at_workers_that_join(place):
    """All workers go; the run waits and says so; another one comes at the address."""
    flow = place.flow(
        """
        import time
        flow = Flow("slow")

        @flow.compute
        def work(row):
            time.sleep(0.05)
            return row
        """
    )
    rows = place.rows(60)
    with ExitStack() as stack:
        first = stack.enter_context(worker(flow, "--processes", "1", cwd=place.path))
        run = place.start("run", flow, rows, "--workers", first.address, "-q")
        output = place.path / "in.results.jsonl"
        until(lambda: output.exists() and output.stat().st_size)
        first.process.kill()
        first.process.wait()
        until(lambda: not _takes_connections(first.address))  # its front ends a little later
        stack.enter_context(
            worker(flow, "--processes", "2", listen=first.address.removeprefix("grpc://"), cwd=place.path)
        )
        assert run.wait(100) == 0, run.stderr.read()
    assert place.numbers() == list(range(1, 61))


async def test_a_hedged_call_is_made_at_another_worker(place):
    flow = place.flow(
        """
        import os, time

        flow = Flow("hedged")

        @flow.compute(timeout=30)
        def work(row):
            try:
                os.close(os.open(row["once"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return "second"
            time.sleep(30)
        """
    )
    with ExitStack() as stack:
        found = [stack.enter_context(worker(flow, "--processes", "1", "--grace", "0")) for _ in range(2)]
        workers = Workers(targets=tuple(one.address for one in found), hedge=0.2)
        results = await find(str(flow)).run([{"once": str(place.path / "once")}], workers=workers)
        assert [result.value for result in results] == ["second"]


# ── functions ───────────────────────────────────────────────────────────────────


async def test_functions_are_called_with_arguments_as_annotated(functions):
    day = dt.date(2026, 11, 21)
    assert await functions.call("greet", "Ada", at=day) == "Ada datetime.date(2026, 11, 21)"
    assert await functions.call(journey.greet, name="Ada") == "Ada None"
    assert await functions.call("point", 2.5, type=journey.Point) == journey.Point(2.5)
    assert await functions.call("size", b"\0" * 5_000_000) == 5_000_000
    assert [size async for size in functions.map("size", [b"x" * n for n in range(600)])] == list(range(600))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("greet", (1,), RemoteError, "validation: greet: the argument 'name' does not fit"),
        ("greet", (), MisuseError, "missing a required argument: 'name'"),
        ("greet", ("a", "b"), MisuseError, "too many positional arguments"),
        ("greet", (object(),), MisuseError, "can't be sent"),
        ("nothing", (), MisuseError, "no function 'journey/nothing'"),
        ("one", (), MisuseError, "no function"),
        ("crash", (), RemoteError, "crashed: .*status 9"),
        ("hang", (), RemoteError, "timeout.compute"),
        ("unsendable", (), RemoteError, "result: the value, a object"),
        ("failing_function", (), RemoteError, "exception: LookupError: no such thing"),
        ("large", (70 << 20,), RemoteError, "result: the value has 73,400,325 bytes: .*--max-message"),
        ("size", (b"x" * (70 << 20),), RemoteError, "result: the arguments have .*--max-message"),
        (lambda: 1, (), MisuseError, "at the top level of the module"),
    ],
)
async def test_calls_that_cannot_be_made(functions, name, arguments, error, words):
    with pytest.raises(error, match=words):
        await functions.call(name, *arguments, timeout=1 if name == "hang" else 60)
    assert await functions.call("point", 1) == {"x": 1.0, "tags": []}


async def test_functions_are_called_while_they_are_open(served):
    functions = Functions(served.address, module="journey")
    with pytest.raises(MisuseError, match="not open"):
        await functions.call("pid")
    async with functions:
        under_way = asyncio.ensure_future(functions.call("hang"))
        await functions.call("pid")
    with pytest.raises(StoppedError, match="before the call had ended"):
        await under_way
    with pytest.raises(MisuseError, match="not open"):
        await functions.call("pid")


async def test_values_that_cannot_be_decoded_fail_their_call_alone(functions):
    class Never(msgspec.Struct):
        x: float

        def __post_init__(self):
            raise LookupError("never")

    calls = [functions.call("point", n, type=Never if n == 3 else journey.Point) for n in range(9)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, value in enumerate(found) if isinstance(value, RemoteError)] == [3]
    with pytest.raises(MisuseError, match="can't be decoded to that"):
        await functions.call("point", 1, type=list[int] | list[str])


async def test_leaving_at_any_moment_ends(served):
    for turns in range(12):
        async with asyncio.timeout(60):
            async with Functions(served.address, module="journey") as functions:
                calls = [asyncio.ensure_future(functions.call("pid")) for _ in range(5)]
                for _ in range(turns):
                    await asyncio.sleep(0)
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(value, int | StoppedError | MisuseError) for value in found), found


async def test_messages_that_are_too_large_together_are_sent_apart(place):
    flow = place.flow(
        """
        def size(data: bytes) -> int:
            return len(data)

        def fail(count: int) -> None:
            raise LookupError("x" * count)
        """
    )
    with worker(flow, "--processes", "1", "--max-message", "64K") as found:
        async with Functions(found.address, module="flow") as functions:
            for _ in range(3):  # from the second on, batches are large
                sizes = [size async for size in functions.map("size", [b"x" * 1000] * 300)]
                assert sizes == [1000] * 300
            calls = [functions.call("fail", 8000) for _ in range(64)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in errors} == {RemoteError}


async def test_what_nobody_waits_for_is_killed(place):
    flow = place.flow(
        """
        import os, time

        def wait(path: str) -> None:
            open(path, "w").close()
            time.sleep(600)

        def pid() -> int:
            return os.getpid()
        """
    )
    path = place.path / "begun"
    with worker(flow, "--processes", "1", "--grace", "0") as found:
        async with Functions(found.address, module="flow") as functions:
            calls = [asyncio.ensure_future(functions.call("wait", str(path), timeout=900)) for _ in range(5)]
            await asyncio.to_thread(until, path.exists)
        await asyncio.gather(*calls, return_exceptions=True)
        async with asyncio.timeout(60), Functions(found.address, module="flow") as functions:
            assert await functions.call("pid")


async def test_a_module_that_is_not_the_same_here(place):
    folder = place.path / "there"
    folder.mkdir()
    (folder / "journey.py").write_text(JOURNEY.read_text() + "# edited")
    with worker(folder / "journey.py") as found:
        other = types.ModuleType("journey")
        other.__file__ = str(JOURNEY)
        with pytest.raises(InputError, match=r"not the same as here \(journey.py\)"):
            async with Functions(found.address, module=other):
                pass
        other.__file__ = str(folder / "journey.py")
        async with Functions(found.address, module=other) as functions:
            assert await functions.call("point", 1) == {"x": 1.0, "tags": []}


def test_metrics_count_functions(place):
    with worker(place.flow(SQUARES), "--metrics", "127.0.0.1:0") as found:
        url = re.search(r"http://\S+", "".join(found.said))[0]
        asyncio.run(_calls(found.address, "flow", ["pid", "pid"]))
        line = 'grpc_server_handled_total{grpc_code="OK",grpc_method="pid",grpc_service="flow"} 2.0'
        until(lambda: line in urllib.request.urlopen(url).read().decode())
        assert "yelpaze_server_processes 1.0" in urllib.request.urlopen(url).read().decode()  # one front


async def test_a_module_by_its_name(place):
    (place.path / "pricing.py").write_text(
        "from json import dumps\ndef price(n: int) -> int:\n    return 2 * n\n"
    )
    with worker("pricing", cwd=place.path) as found:
        async with Functions([found.address], module="pricing") as functions:
            assert await functions.call("price", 21) == 42
            with pytest.raises(MisuseError, match=r"there are pricing/price$"):
                await functions.call("dumps", 1)
            with pytest.raises(MisuseError, match="did you mean 'pricing/price'"):
                await functions.call("prise", 1)


async def test_nine_processes_behind_two_fronts_work_at_once(place):
    flow = place.flow(
        """
        import os, time
        from pathlib import Path

        def meet(folder: str, count: int) -> int:
            (Path(folder) / str(os.getpid())).touch()
            while len(os.listdir(folder)) < count:
                time.sleep(0.005)
            return os.getppid()
        """
    )
    folder = place.path / "met"
    folder.mkdir()
    with worker(flow, "--processes", "9") as found:
        async with Functions(found.address, module="flow") as functions:
            calls = [functions.call("meet", str(folder), 9, timeout=60) for _ in range(9)]
            assert len(set(await asyncio.gather(*calls))) == 2


# ── the protocol ────────────────────────────────────────────────────────────────


async def test_the_published_protocol(served):
    async with grpc.aio.insecure_channel(served.address.removeprefix("grpc://")) as channel:
        describe = channel.unary_unary(
            f"/{SERVICE}/Describe", pb.DescribeRequest.SerializeToString, pb.Description.FromString
        )
        description = await describe(pb.DescribeRequest())
        assert description.protocol == PROTOCOL
        assert description.version == yelpaze.__version__
        assert [unit.name for unit in description.units] == ["flow:everything", "journey"]
        call = channel.unary_stream(
            f"/{SERVICE}/Call", pb.CallRequest.SerializeToString, pb.CallReply.FromString
        )
        pack = msgspec.msgpack.encode
        request = pb.CallRequest(
            calls=[
                pb.Call(function="journey/hang", arguments=pack(([], {})), timeout=0.2),
                pb.Call(function="journey/greet", arguments=pack((["x"], {}))),
                pb.Call(function="journey/greet", arguments=b"\xc1"),
                pb.Call(function="flow:everything/seed", arguments=pack((False, []))),
                pb.Call(function="flow:everything/seed", arguments=pack((False, [("answer", {})]))),
                pb.Call(function="flow:everything/seed", arguments=pack((False, [("what", 1)]))),
                pb.Call(function="flow:everything/seed", arguments=pack((True, [b'{"url": "u", "n": 1}']))),
            ],
            fingerprint=description.fingerprint,
        )
        results = {}
        async for reply in call(request):
            results |= {result.index: result for result in reply.results}
        kinds = [results[index].fault.kind for index in range(7)]
        assert kinds == ["timeout.compute", "", "misuse", "misuse", "misuse", "misuse", ""]
        assert results[1].value == pack("x None")
        assert msgspec.json.decode(results[6].value) == {"x": 0.5, "tags": ["a", "None"]}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            _ = [reply async for reply in call(pb.CallRequest(calls=request.calls, fingerprint="other"))]
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_calls_of_a_client_that_is_gone_are_dropped(place):
    flow = place.flow(
        """
        import time
        def note(path: str, text: str, seconds: float) -> None:
            with open(path, "a") as file:
                file.write(text)
            time.sleep(seconds)
        """
    )
    path = place.path / "noted"
    with worker(flow, "--processes", "1") as found:
        async with grpc.aio.insecure_channel(found.address.removeprefix("grpc://")) as channel:
            call = channel.unary_stream(
                f"/{SERVICE}/Call", pb.CallRequest.SerializeToString, pb.CallReply.FromString
            )
            pack = msgspec.msgpack.encode
            many = [
                pb.Call(function="flow/note", arguments=pack(([str(path), "a", 0.02 * (n > 0)], {})))
                for n in range(900)  # the others would take 18 s
            ]
            under_way = call(pb.CallRequest(calls=many))
            _ = await anext(aiter(under_way))  # the first has ended
            under_way.cancel()
            last = pb.Call(function="flow/note", arguments=pack(([str(path), "z", 0], {})))
            _ = [reply async for reply in call(pb.CallRequest(calls=[last]))]
    text = path.read_text()
    assert text.endswith("z")
    assert len(text) < 900


async def test_a_worker_of_another_version(raw):
    async def describe(request, context):
        return pb.Description(protocol=PROTOCOL + 1, version="9.9")

    server = grpc.aio.server()
    methods = {
        "Describe": grpc.unary_unary_rpc_method_handler(
            describe, pb.DescribeRequest.FromString, pb.Description.SerializeToString
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(InputError, match=r"Yelpaze 9\.9 and speaks protocol 2.*same version"):
            await _calls(f"127.0.0.1:{port}", "x", [])
    finally:
        await server.stop(None)


async def test_a_server_that_is_no_worker():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(InputError, match="is no worker: start one with `yelpaze worker`"):
            await _calls(f"127.0.0.1:{port}", "x", [])
    finally:
        await server.stop(None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_a_worker_can_be_stopped(place, number):
    flow, rows = place.flow(SQUARES), place.rows(3)
    run = place.start("run", flow, rows, "--workers", "grpc://127.0.0.1:1")
    assert "waiting for a worker at grpc://127.0.0.1:1" in run.stderr.readline()
    run.send_signal(number)
    assert run.wait(60) == 130


async def test_nobody_there(monkeypatch):
    monkeypatch.setattr("yelpaze.compute.remote._START_SECONDS", 0.2)
    with pytest.raises(StoppedError, match="no worker answers"):
        await _calls("127.0.0.1:1", "x", [])


# ── TLS ─────────────────────────────────────────────────────────────────────────


async def test_workers_with_certificates_on_both_sides(place):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(place.path / "ca.pem")
    for name in ("localhost", "client"):
        ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(place.path / f"{name}.pem")
    ca_file, server, client = (str(place.path / f"{name}.pem") for name in ("ca", "localhost", "client"))
    flow, rows = place.flow(SQUARES), place.rows(5)
    flags = ["--tls-cert", server, "--tls-key", server, "--tls-client-ca", ca_file]
    with worker(flow, *flags, listen="localhost:0", cwd=place.path) as found:
        assert found.address.startswith("grpcs://")
        trust = ["--worker-ca", ca_file, "--worker-cert", client, "--worker-key", client]
        place("run", flow, rows, "--workers", found.address, *trust, code=0)
        security = Security(ca_file=ca_file, client_cert=(client, client))
        async with Functions(
            Workers(targets=(found.address,), security=security), module="flow"
        ) as functions:
            assert isinstance(await functions.call("pid"), int)


# ── the local worker ────────────────────────────────────────────────────────────


def test_runs_share_a_local_worker_which_ends_with_the_last(place, runtime):
    flow = place.flow(
        """
        import os, time
        flow = Flow("shared")

        @flow.compute
        def work(row):
            time.sleep(0.01)
            return os.getppid()
        """
    )
    place.env["XDG_RUNTIME_DIR"] = str(runtime)
    one, two = place.rows(100, "a.jsonl"), place.rows(100, "b.jsonl")
    runs = [place.start("run", flow, rows, "--workers", "local", "-q") for rows in (one, two)]
    assert [run.wait(100) for run in runs] == [0, 0], [run.stderr.read() for run in runs]
    fronts = {line["result"] for name in ("a", "b") for line in place.lines(f"{name}.results.jsonl")}
    assert len(fronts) == 1
    until(lambda: not _is_alive(next(iter(fronts))))
    until(lambda: not list(runtime.glob("yelpaze/*.sock")))
    place("run", flow, one, "--workers", "local", "-q", "--restart", code=0)
    front = place.lines("a.results.jsonl")[0]["result"]
    assert front not in fronts
    shutil.rmtree(runtime / "yelpaze")  # nobody can find it any more
    until(lambda: not _is_alive(front))


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_programs_share_a_local_worker_of_a_module(place, runtime, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    module = types.ModuleType("pricing")
    module.__file__ = str(place.path / "pricing.py")
    (place.path / "pricing.py").write_text("import os\ndef front() -> int:\n    return os.getppid()\n")
    async with Functions("local", module=module) as one, Functions("local", module=module) as other:
        fronts = {await one.call("front"), await other.call("front")}
    assert len(fronts) == 1
    await asyncio.to_thread(until, lambda: not _is_alive(next(iter(fronts))))


def test_a_local_worker_that_cannot_start_says_why(place, runtime):
    place.env["XDG_RUNTIME_DIR"] = str(runtime)
    flow = place.flow(
        """
        import sys
        flow = Flow("unwilling")

        @flow.compute
        def work(row):
            return row

        if "worker" in sys.argv:
            raise LookupError("not as a worker")
        """
    )
    said = place("run", flow, place.rows(1), "--workers", "local", code=3).stderr
    assert "the local worker can't be started: " in said
    assert "LookupError: not as a worker" in said
    (runtime / "yelpaze").chmod(0o777)
    said = place("run", flow, place.rows(1), "--workers", "local", code=3).stderr
    assert "chmod 700" in said


# ── wrong use ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "flags", "code", "words"),
    [
        ("nothing.py", [], 2, "nothing.py: there is no such file"),
        ("no.such.module", [], 2, "no.such.module: cannot be imported: ModuleNotFoundError"),
        ("what is this", [], 2, "give a file, `path.py`"),
        ("empty.py", [], 2, "there is nothing to serve"),
        ("broken.py", [], 2, "broken.py:2: cannot be imported: ZeroDivisionError"),
        ("syntax.py", [], 2, "syntax.py:1: syntax error"),
        ("good.py:other", [], 2, "there is no flow 'other'"),
        ("good.py", ["--listen", "nowhere"], 2, "'nowhere' is no address"),
        ("good.py", ["--listen", "127.0.0.1:99999"], 2, "is no address"),
        ("good.py", ["--listen", "no.such.host.invalid:1"], 2, "no.such.host.invalid:1: "),
        ("good.py", ["--listen", f"unix:/{'x' * 200}"], 2, "a socket's path has at most"),
        ("good.py", ["--processes", "0"], 2, "--processes"),
        ("good.py", ["--max-message", "huge"], 2, "no size such as 64M"),
        ("good.py", ["--max-message", "10"], 2, "at least 64K"),
        ("good.py", ["--max-message", "5G"], 2, "at most 2,147,483,647"),
        ("good.py", ["--private-ports", "50100-50100"], 2, "too few for 1 processes"),
        ("in.jsonl", [], 2, "in.jsonl: is no Python file"),
        ("good.py", ["--tls-cert", "x.pem"], 2, "--tls-cert and --tls-key need each other"),
        ("good.py", ["--tls-cert", "x.pem", "--tls-key", "x.pem"], 2, "x.pem: cannot be read"),
        ("good.py", ["--tls-client-ca", "x.pem"], 2, "--tls-client-ca needs --tls-cert and --tls-key"),
        ("good.py", ["--private-ports", "9"], 2, "no range of ports"),
        ("good.py", ["--metrics", "x:y"], 2, "x:y"),
    ],
)
def test_workers_that_cannot_be_started(place, spec, flags, code, words):
    place.flow(SQUARES, "good.py")
    place.rows(1)
    (place.path / "empty.py").write_text("X = 1\n")
    (place.path / "broken.py").write_text("\nX = 1 / 0\n")
    (place.path / "syntax.py").write_text("def\n")
    said = place("worker", spec, "--listen", "127.0.0.1:0", *flags, code=code).stderr
    assert words in said
    assert len(said.splitlines()) <= 5


def test_a_port_in_use(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = place("worker", place.flow(SQUARES), "--listen", address, code=2).stderr
    assert f"{address}: another server is listening there: give another address" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workers", "grpc://"], "no address"),
        (["--workers", "http://x:1"], "no server"),
        (["--workers", ","], "at least one worker"),
        (["--workers", "-1"], "no address"),
        (["--workers", "2", "--worker-hedge", "1"], "need --workers grpc://"),
        (["--workers", "grpcs://x:1", "--worker-cert", "x"], "need each other"),
        (["--workers", "grpc://x:1", "--worker-ca", "x"], "are for TLS: --workers grpcs://"),
        (["--workers", "locale"], "or a number of processes, or local"),
        (["--workers", "\u00b2"], "no address"),
        (["--workers", "grpcs://127.0.0.1:1", "--worker-ca", "no.pem"], "no.pem: cannot be read"),
    ],
)
def test_wrong_workers(place, flags, words):
    said = place("run", place.flow(SQUARES), place.rows(1), *flags, code=2).stderr
    assert words in said


def test_workers_from_python_are_checked():
    flow = find(str(JOURNEY))
    for workers in (-1, True, "", [], "http://x"):
        with pytest.raises((MisuseError, InputError)):
            yelpaze.run(flow, [], workers=workers)
    with pytest.raises(MisuseError, match="hedge"):
        Workers(targets=("x:1",), hedge=0)
    with pytest.raises(MisuseError, match="takes addresses"):
        Functions(2, module="x")


def test_it_warns_when_anyone_may_call(place):
    with worker(place.flow(SQUARES), listen=":0") as found:
        assert "warning: whoever reaches this address" in found.until("warning")
