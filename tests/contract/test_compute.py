"""What every compute backend does, and what only processes can."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from support import flows
from yelpaze import MisuseError, StoppedError
from yelpaze.compute.front import FrontOptions, served
from yelpaze.compute.inline import Inline
from yelpaze.compute.processes import Processes
from yelpaze.compute.protocol import EntryPoint
from yelpaze.compute.remote import Remote
from yelpaze.compute.workers import Workers
from yelpaze.flow.codec import FlowCodec
from yelpaze.flow.handler import reference
from yelpaze.grpc.multi_process import MultiProcessServer
from yelpaze.grpc.options import Options as ServingOptions
from yelpaze.process.frames import Decoder, encode

TARGET = EntryPoint("yelpaze.flow.handler:build_handler", (reference(flows.kill.plan),))
TIMEOUT = 30.0


def inline() -> Inline:
    return Inline(TARGET)


def processes(**options) -> Processes:
    return Processes(TARGET, workers=options.pop("workers", 2), **options)


@asynccontextmanager
async def remote():
    """A worker of this process's own, by gRPC."""
    spec = str(Path(flows.__file__))
    options = FrontOptions(exports=EntryPoint("yelpaze.flow.exports:exports_of", (spec,)), workers=2)
    async with MultiProcessServer(
        partial(served, options), "127.0.0.1:0", ServingOptions(grace=0, drain=0)
    ) as server:
        yield Remote(Workers(targets=(server.address,)), FlowCodec(flows.kill.plan))


async def results(backend, rows, hanging=TIMEOUT):
    """Submit all rows at once; their (value, fault) in order. `hanging`: the time limit of rows that hang."""
    loop = asyncio.get_running_loop()
    futures = []
    for row in rows:
        future = loop.create_future()
        timeout = hanging if isinstance(row, str) and row.endswith("hang") else TIMEOUT
        backend.submit(0, ([(row,)], False), lambda *got, f=future: f.set_result(got), timeout=timeout)
        futures.append(future)
    return await asyncio.gather(*futures)


@pytest.fixture(params=["inline", "processes", "remote"])
async def backend(request):
    async with AsyncExitStack() as stack:
        if request.param == "remote":
            made = await stack.enter_async_context(remote())
        else:
            made = inline() if request.param == "inline" else processes()
        await made.start()
        yield made
        await made.close()


async def test_values_come_back(backend):
    got = await results(backend, [str(n) for n in range(500)])
    assert [value.text for value, fault in got] == [f"done {n}" for n in range(500)]


async def test_an_exception_is_a_fault_with_the_users_traceback(backend):
    ((_, fault), (value, none)) = await results(backend, ["raise", "fine"])
    assert fault.kind == "exception"
    assert fault.message == "LookupError: no such thing"
    assert "flows.py" in fault.traceback
    assert "handler.py" not in fault.traceback
    assert value.text == "done fine"
    assert none is None


async def test_sys_exit_in_a_step_fails_only_its_row(backend):
    ((_, fault), (value, _)) = await results(backend, ["sysexit", "fine"])
    assert fault.kind == "exception"
    assert "SystemExit" in fault.message
    assert value.text == "done fine"


async def test_a_value_that_cannot_be_read_back_costs_its_own_row():
    backend = processes(batch=50, workers=1)
    await backend.start()
    try:
        first = backend._supervisor.processes[0].pid
        got = await results(backend, ["a"] * 20 + ["unreadable"] + ["b"] * 20)
        fault = got[20][1]
        assert (fault.kind, fault.message) == (
            "result",
            "the value cannot be read back from the worker: ValueError: it was made elsewhere",
        )
        others = [value.text for value, fault in got if not fault]
        assert others == ["done a"] * 20 + ["done b"] * 20
        assert backend._supervisor.processes[0].pid == first
    finally:
        await backend.close()


async def test_arguments_that_cannot_be_read_in_a_worker_cost_their_own_row():
    backend = processes(batch=50)
    await backend.start()
    try:
        rows = ["a"] * 20 + [flows.OnlyHere()] + ["b"] * 20 + [flows.OnlyHere()] + ["c"] * 300
        got = await results(backend, rows)
        faults = [fault for _, fault in got if fault]
        message = "the arguments cannot be read in a worker: ValueError: it was made elsewhere"
        assert [(fault.kind, fault.message) for fault in faults] == [("exception", message)] * 2
        assert [fault is not None for _, fault in got] == [type(row) is flows.OnlyHere for row in rows]
    finally:
        await backend.close()


@pytest.mark.parametrize(("row", "how"), [("die", "SIGKILL"), ("exit", "status 7")])
async def test_a_crash_costs_one_row(row, how):
    backend = processes(batch=50)
    await backend.start()
    try:
        got = await results(backend, ["a"] * 40 + [row] + ["b"] * 40)
        faults = [fault for _, fault in got if fault]
        assert len(faults) == 1
        assert faults[0].kind == "crashed"
        assert how in faults[0].message
        assert [value.text for value, fault in got if not fault] == ["done a"] * 40 + ["done b"] * 40
    finally:
        await backend.close()


async def test_a_call_that_outruns_its_time_is_killed_and_costs_one_row():
    backend = processes(workers=1, tries=1)
    await backend.start()
    try:
        got = await results(backend, ["a", "hang", "b"], hanging=0.3)
        assert [fault and fault.kind for _, fault in got] == [None, "timeout.compute", None]
    finally:
        await backend.close()


async def test_arguments_and_values_that_cannot_travel_fail_their_row():
    backend = processes(workers=1)
    await backend.start()
    try:
        got = await results(backend, ["a", "unsendable", lambda: None, "b"])
        kinds = [fault and fault.kind for _, fault in got]
        assert kinds == [None, "result", "exception", None]
    finally:
        await backend.close()


async def test_processes_are_recycled_and_nothing_is_lost():
    backend = processes(workers=2, recycle=20, batch=8)
    await backend.start()
    try:
        first = {worker.pid for worker in backend._supervisor.serving()}
        got = await results(backend, [str(n) for n in range(300)])
        assert [value.text for value, _ in got] == [f"done {n}" for n in range(300)]
        now = first
        while first & now:  # they work until their successors are there
            assert [fault for _, fault in await results(backend, ["x"] * 10)] == [None] * 10
            now = {worker.pid for worker in backend._supervisor.serving()}
            assert len(now) >= 2
    finally:
        await backend.close()
    assert backend.peak_rss_mb() > 5


async def test_what_user_code_prints_goes_to_stderr(capfd):
    backend = processes(workers=1)
    await backend.start()
    await results(backend, ["print"])
    await backend.close()
    captured = capfd.readouterr()
    assert captured.out == ""


async def test_a_handler_that_cannot_be_loaded_says_why():
    backend = Processes(EntryPoint("no_such_module:build"), workers=1)
    with pytest.raises(StoppedError, match="no_such_module"):
        await backend.start()
    await backend.close()


def test_options_are_checked():
    for options in ({"workers": 0}, {"batch": 0}, {"recycle": 0}):
        with pytest.raises(MisuseError):
            processes(**options)


def test_frames_survive_any_split():
    stream = b"".join(encode(value) for value in ("a", {"b": 2}, b"c" * 1000))
    for size in (1, 3, 7, 1000):
        decoder = Decoder()
        values = [
            value for at in range(0, len(stream), size) for value in decoder.feed(stream[at : at + size])
        ]
        assert values == ["a", {"b": 2}, b"c" * 1000]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_killing_the_parent_leaves_no_worker(tmp_path, busy):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from support import flows
        from yelpaze.compute.processes import Processes
        from yelpaze.compute.protocol import EntryPoint
        from yelpaze.flow.handler import reference

        async def main():
            pool = Processes(EntryPoint("yelpaze.flow.handler:build_handler", (reference(flows.kill.plan),)), workers=2)
            await pool.start()
            if {busy}:
                for _ in range(2):
                    pool.submit(0, ([("hang",)], False), print, timeout=600)
                await asyncio.sleep(0.2)
            print(*[worker.pid for worker in pool._supervisor.serving()], flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(1500):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.02)
    pytest.fail("a worker outlived its parent")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_a_call_that_forks_is_still_stopped_in_time():
    """A child that the step forked keeps the worker's socket open: its death must be seen all the same."""
    backend = processes(workers=1, tries=1)
    await backend.start()
    try:
        got = await asyncio.wait_for(
            results(backend, ["fork and hang", "fork and die", "a"], hanging=0.5), 60
        )
        assert [fault and fault.kind for _, fault in got] == ["timeout.compute", "crashed", None]
    finally:
        await backend.close()


async def test_a_worker_that_cannot_be_replaced_fails_what_waits(monkeypatch):
    backend = processes(workers=1, tries=1)
    await backend.start()

    def no_more(*arguments, **options):
        raise OSError(11, "try again")

    monkeypatch.setattr(subprocess, "Popen", no_more)
    try:
        got = await asyncio.wait_for(results(backend, ["die", "a", "b"]), 60)
        assert [fault.kind for _, fault in got] == ["crashed"] * 3
        assert "the worker processes cannot start: [Errno 11] try again" in got[2][1].message
    finally:
        await backend.close()


async def test_a_callback_that_raises_costs_no_other_call(backend):
    told: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: told.put_nowait(context["message"])
    )

    def raises(value, fault):
        raise LookupError("mine")

    backend.submit(0, ([("x",)], False), raises, timeout=TIMEOUT)
    ((value, _),) = await results(backend, ["fine"])
    assert value.text == "done fine"
    assert await asyncio.wait_for(told.get(), 60)  # the other worker may be the later one


async def test_what_was_answered_before_a_batch_that_cannot_be_read_is_answered():
    """Answers and the refusal of the next batch may come in one piece."""
    backend = processes(batch=50, workers=1)
    await backend.start()
    await results(backend, ["warm up"])
    backend._seconds_a_call = 0.001  # so that the next batch is given before the first is answered
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    try:
        ready = asyncio.gather(results(backend, ["a"] * 3))
        await asyncio.sleep(0)  # they are given out
        (worker,) = backend._supervisor.processes
        received, worker.received = worker.received, lambda messages: kept.extend(messages)
        kept = []
        late = asyncio.gather(results(backend, [flows.OnlyHere()]))
        while not any(type(message).__name__ == "UnreadableBatch" for message in kept):
            await asyncio.sleep(0)
        worker.received = received
        received(kept)
        (first,), (second,) = await ready, await late
    finally:
        await backend.close()
    assert [value.text for value, _ in first] == ["done a"] * 3
    assert second[0][1].message.startswith("the arguments cannot be read in a worker")
    assert problems == []
