"""The parts of a gRPC server that decide or count, without processes."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading

import grpc
import pytest

from yelpaze.grpc.address import Address, Held
from yelpaze.grpc.control import BUCKETS, ProcessReport, ServerTask
from yelpaze.grpc.counting import Tally, counted
from yelpaze.grpc.multi_process import worn
from yelpaze.grpc.options import Options
from yelpaze.grpc.server_group import own_address
from yelpaze.grpc.server_process import ServerProcess
from yelpaze.grpc.threads import Threads
from yelpaze.grpc.totals import summed, totals
from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.model.notice import NoticeHandler

# ── when a process is worn ──────────────────────────────────────────────────────


async def process(*, place=0, calls=None, since=0.0):
    task = ServerTask(
        id="id",
        place=place,
        program=b"",
        preparation={},
        options=Options(),
        credentials=None,
        listen=None,
        own=None,
    )
    found = ServerProcess(task, lambda _: None)
    found.since = since
    if calls is not None:
        found.report = report({"a/B": calls})
    return found


def report(started, handled=None, seconds=None, running=0, waiting=0):
    return ProcessReport(
        started=started, handled=handled or {}, seconds=seconds or {}, running=running, waiting=waiting
    )


async def test_a_process_is_worn_by_calls_or_age():
    assert worn(await process(calls=100), Options(), 1e9) is None
    assert worn(await process(), Options(max_calls=5), 0) is None
    assert worn(await process(calls=4), Options(max_calls=5), 0) is None
    assert worn(await process(calls=5), Options(max_calls=5), 0) == "calls"
    assert worn(await process(since=50), Options(max_age=100), 149) is None
    assert worn(await process(since=50), Options(max_age=100), 150) == "age"


async def test_ages_are_spread_over_the_places():
    options = Options(max_age=100, processes=10)
    assert worn(await process(place=9), options, 90.9) is None
    assert worn(await process(place=9), options, 91.1) == "age"
    assert worn(await process(place=0), options, 99.9) is None


# ── where a process listens ─────────────────────────────────────────────────────


def test_own_addresses():
    assert own_address(Address(path="/run/a"), 3, None, set()).path == "/run/a.3"
    assert own_address(Address("127.0.0.1", 50051), 3, None, set()) == Address("127.0.0.1", 0)


def test_own_ports_are_neither_taken_nor_in_use():
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(StoppedError, match="private_ports needs two for each process"):
            own_address(Address("127.0.0.1", 1), 1, (port, port), set())
    with pytest.raises(StoppedError, match=f"no port from {port} to {port} is free"):
        own_address(Address("127.0.0.1", 1), 1, (port, port), {port})


# ── sums ────────────────────────────────────────────────────────────────────────


def test_totals_have_those_that_are_gone_and_what_runs_now():
    gone = summed([report({"a/B": 2}, {("a/B", "OK"): 2}, {"a/B": [1, 1, 0.5]}, running=7)])
    now = [
        report({"a/B": 1, "a/C": 4}, {("a/B", "UNKNOWN"): 1}, {"a/B": [0, 1, 0.25]}, running=1, waiting=2),
        report({"a/C": 1}, {("a/C", "OK"): 1}, {"a/C": [1, 0, 0.0]}, running=2),
    ]
    found = totals(gone, now, processes=2, restarts={"age": 1})
    assert found.started == {"a/B": 3, "a/C": 5}
    assert found.handled == {("a/B", "OK"): 2, ("a/B", "UNKNOWN"): 1, ("a/C", "OK"): 1}
    assert found.seconds == {"a/B": [1, 2, 0.75], "a/C": [1, 0, 0.0]}
    assert (found.running, found.waiting, found.processes, found.restarts) == (3, 2, 2, {"age": 1})


# ── counting ────────────────────────────────────────────────────────────────────


class AbortError(Exception):
    pass


class Context:
    """gRPC's, for a handler in a thread."""

    def __init__(self, code=None):
        self._code = code
        self.trailing = ()

    def set_trailing_metadata(self, metadata):
        self.trailing = metadata

    def trailing_metadata(self):
        return self.trailing

    def code(self):
        return self._code

    def abort(self, code, details):
        self._code = code
        raise AbortError


class AsyncContext(Context):
    async def abort(self, code, details):
        super().abort(code, details)


async def coroutine(request, context):
    return await asyncio.sleep(0, request())


async def async_generator(request, context):
    yield request()


def function(request, context):
    return request()


def generator(request, context):
    yield request()


KINDS = {
    "coroutine": (coroutine, grpc.unary_unary_rpc_method_handler, "unary_unary"),
    "async generator": (async_generator, grpc.unary_stream_rpc_method_handler, "unary_stream"),
    "function": (function, grpc.unary_unary_rpc_method_handler, "unary_unary"),
    "generator": (generator, grpc.unary_stream_rpc_method_handler, "unary_stream"),
}


async def called(kind, tally, context, request=lambda: b""):
    behavior, make, name = KINDS[kind]
    call = getattr(counted("a/B", make(behavior), tally), name)
    if kind == "coroutine":
        return [await call(request, context)]
    if kind == "async generator":
        return [item async for item in call(request, context)]
    return [call(request, context)] if kind == "function" else list(call(request, context))


def context_of(kind, code=None):
    return (AsyncContext if kind in ("coroutine", "async generator") else Context)(code)


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_are_counted_by_how_they_end(kind):
    changes = []
    tally = Tally(lambda: changes.append(tally.running), None, None)
    times = iter([0.0, 0.003, 10.0, 10.3, 20.0, 40.0, 50.0, 50.0, 60.0, 60.0])
    tally.clock = lambda: next(times)

    def fail(error):
        def request():
            raise error

        return request

    assert await called(kind, tally, context_of(kind)) == [b""]
    await called(kind, tally, context_of(kind, grpc.StatusCode.NOT_FOUND))
    await called(kind, tally, context_of(kind, grpc.StatusCode.INVALID_ARGUMENT.value[0]))
    with pytest.raises(LookupError):
        await called(kind, tally, context_of(kind), fail(LookupError()))
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await called(kind, tally, context_of(kind), fail(SystemExit(3)))
    found = tally.report()
    assert found.started == {"a/B": 5}
    statuses = {"OK": 1, "NOT_FOUND": 1, "INVALID_ARGUMENT": 1, "UNKNOWN": 2}
    assert found.handled == {("a/B", status): count for status, count in statuses.items()}
    buckets = [0] * (len(BUCKETS) + 1)
    buckets[0], buckets[BUCKETS.index(0.5)], buckets[-1] = 3, 1, 1
    assert found.seconds["a/B"][:-1] == buckets
    assert found.seconds["a/B"][-1] == pytest.approx(20.303)
    assert (found.running, changes) == (0, [1, 0] * 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_too_many_is_refused_and_takes_no_time(kind):
    tally = Tally(lambda: None, None, 2, "run-1")
    tally.running = 2
    context, ran = context_of(kind), []
    with pytest.raises(AbortError):
        await called(kind, tally, context, lambda: ran.append(1))
    assert context.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert context.trailing == (("yelpaze-refused-by", "run-1"),)
    found = tally.report()
    assert (found.started, found.handled) == ({"a/B": 1}, {("a/B", "RESOURCE_EXHAUSTED"): 1})
    assert (found.seconds, found.running, ran) == ({}, 2, [])


@pytest.mark.parametrize("kind", ["async generator", "generator"])
async def test_a_stream_that_its_client_left_is_cancelled(kind):
    tally = Tally(lambda: None, None, None)
    behavior, make, name = KINDS[kind]
    stream = getattr(counted("a/B", make(behavior), tally), name)(lambda: b"", context_of(kind))
    if kind == "generator":
        next(stream)
        stream.close()
    else:
        await anext(stream)
        await stream.aclose()
    assert tally.report().handled == {("a/B", "CANCELLED"): 1}


class UnreadableError(Exception):
    def __str__(self):
        raise SystemExit("in __str__")


RAISED = [
    (ValueError("as it is"), None),
    (AbortError(), None),
    (ExceptionGroup("several", [ValueError()]), None),
    (SystemExit(3), "SystemExit: 3"),
    (SystemExit(), "SystemExit"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (GeneratorExit(), "GeneratorExit"),
    (asyncio.CancelledError("mine"), "CancelledError: mine"),
    (BaseExceptionGroup("several", [SystemExit(3)]), "BaseExceptionGroup: several (1 sub-exception)"),
    (UnreadableError(), "UnreadableError: its text cannot be read"),
    (ValueError("\udcff"), "ValueError: \\udcff"),  # gRPC sends UTF-8
]


@pytest.mark.parametrize(("error", "text"), RAISED)
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_a_servicer_raises_can_be_answered(kind, error, text):
    def request():
        raise error

    tally = Tally(lambda: None, None, None)
    with pytest.raises(Exception) as caught:
        await called(kind, tally, context_of(kind), request)
    if text is None:
        assert caught.value is error
    else:
        assert (type(caught.value), str(caught.value)) == (RuntimeError, text)
        assert caught.value.__cause__ is error
    assert tally.report().handled == {("a/B", "UNKNOWN"): 1}
    assert tally.running == 0


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration(1)])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_an_iteration_is_no_answer(kind, error):
    def request():
        raise error

    with pytest.raises(RuntimeError):
        await called(kind, Tally(lambda: None, None, None), context_of(kind), request)


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
async def test_a_call_that_grpc_cancels_stays_cancelled(kind):
    tally, begun = Tally(lambda: None, None, None), asyncio.Event()

    async def waits(request, context):
        begun.set()
        await asyncio.Event().wait()

    async def waits_between(request, context):
        begun.set()
        await asyncio.Event().wait()
        yield request

    _, make, name = KINDS[kind]
    behavior = waits if kind == "coroutine" else waits_between
    call = getattr(counted("a/B", make(behavior), tally), name)(b"", context_of(kind))
    task = asyncio.ensure_future(call if kind == "coroutine" else anext(call))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tally.report().handled == {("a/B", "CANCELLED"): 1}


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError(), GeneratorExit()])
def test_no_thread_is_lost(error, caplog):
    """By nothing that gRPC itself lets through either, such as what a serializer raises."""
    done = threading.Event()
    threads = Threads(1, None)

    def fail():
        raise error

    threads.submit(fail)
    threads.submit(done.set)
    assert done.wait(30)
    threads.shutdown()
    assert [record.exc_info[1] for record in caplog.records] == [error]


def test_a_long_traceback_is_cut_in_its_middle():
    notices = []
    handler = NoticeHandler(notices.append)
    record = logging.LogRecord("grpc._server", logging.ERROR, "", 0, "begin%send", ("x" * 99_999,), None)
    handler.handle(record)
    (notice,) = notices
    assert (notice.kind, notice.level) == ("log.grpc._server", "error")
    assert (notice.text[:5], notice.text[-3:], len(notice.text) < 20_000) == ("begin", "end", True)


@pytest.mark.parametrize("own", [None, (("mine", "1"),)])
@pytest.mark.parametrize("code", [None, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_fails_says_that_it_ran(kind, code, own):
    context = context_of(kind)

    def request():
        assert context.trailing == (("yelpaze-ran", "1"),)
        context._code = code
        if own is not None:
            context.set_trailing_metadata(own)
        return b""

    await called(kind, Tally(lambda: None, None, None), context, request)
    assert context.trailing == (own or (() if code is None else (("yelpaze-ran", "1"),)))


def test_methods_that_were_not_called_are_not_reported():
    tally = Tally(lambda: None, None, None)
    tally.of("a/B")
    assert tally.report() == report({})


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_path_with_something_else_is_left_alone(tmp_path, kind):
    path = tmp_path / "it"
    path.mkdir() if kind == "folder" else path.write_text("data that nobody else has")
    with pytest.raises(InputError, match="something else at that path"):
        Held(Address(path=str(path)))
    assert path.is_dir() if kind == "folder" else path.read_text() == "data that nobody else has"


def test_a_socket_that_was_left_behind_is_removed(tmp_path):
    path = tmp_path / "it.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    Held(Address(path=str(path))).close()
    assert not path.exists()


async def test_serve_says_where_it_cannot_run():
    from support.servicers import register
    from yelpaze.rpc import serve

    with pytest.raises(MisuseError, match="an event loop is running here"):
        serve(register)
    with pytest.raises(MisuseError, match="main thread"):
        await asyncio.to_thread(serve, register)


@pytest.mark.parametrize("how", [["-c"], ["-"]])
def test_a_program_without_a_file_is_told_so(how):
    text = (
        "from yelpaze.rpc import serve\ndef register(server): pass\nserve(register, listen='127.0.0.1:0')\n"
    )
    command = [sys.executable, *how, *([text] if how == ["-c"] else [])]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert "register can't be found by other processes: a program from" in done.stderr


def test_a_runtime_folder_of_somebody_else_is_not_used(monkeypatch, tmp_path):
    from yelpaze.compute.local import _folder

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/nope")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert _folder().parent == tmp_path
