"""`yelpaze.blocking.Engine`: the engine for programs without an event loop."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import yelpaze
from support.raw import open_sockets
from yelpaze import FanOutError, MisuseError, get, post
from yelpaze.blocking import Engine


def answer_of(call):
    if call.path == "/bad":
        return 404, {}
    return {"path": call.path, "body": call.body.decode()}


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "yelpaze engine"]


def test_one_engine_for_all_threads(service):
    with Engine() as engine, ThreadPoolExecutor(8) as pool:
        urls = [f"{service.url}/{n}" for n in range(50)]
        outcomes = list(pool.map(lambda url: engine.send(post(url, body=b"x")), urls))
        assert [outcome.json()["path"] for outcome in outcomes] == [f"/{n}" for n in range(50)]
        assert len(threads()) == 1
        statistics = engine.statistics()
        assert statistics.requests == 50
    assert threads() == []
    assert engine.statistics().requests == 50


def test_gather_and_files(service, tmp_path):
    with Engine() as engine:
        page = engine.gather(
            {"b": get(f"{service.url}/b"), "a": get(f"{service.url}/bad")}, trace_id="1" * 32
        )
        assert [(name, outcome.ok) for name, outcome in page.items()] == [("b", True), ("a", False)]
        with pytest.raises(FanOutError) as failed:
            engine.gather({"a": get(f"{service.url}/bad")}, mode="fail_fast")
        assert failed.value.name == "a"
        assert engine.send(get(service.url), to=tmp_path / "x", deadline=30).ok
        assert (tmp_path / "x").read_bytes()
        with pytest.raises(OSError, match="No such file"):
            engine.send(get(service.url), to=tmp_path / "none" / "x")


@pytest.mark.parametrize("ordered", [False, True])
def test_a_stream_takes_its_requests_in_the_calling_thread(service, ordered):
    here, places = threading.get_ident(), set()

    def requests():
        for n in range(100):
            places.add(threading.get_ident())
            yield get(f"{service.url}/{n}", tag=n)

    with Engine() as engine:
        tags = [outcome.tag for outcome in engine.stream(requests(), concurrency=7, ordered=ordered)]
    assert sorted(tags) == list(range(100))
    assert tags == sorted(tags) or not ordered
    assert places == {here}


def test_a_stream_takes_no_more_than_its_window(service):
    taken = 0

    def requests():
        nonlocal taken
        while True:
            taken += 1
            yield get(service.url)

    with Engine() as engine:
        outcomes = engine.stream(requests(), concurrency=5)
        for _ in range(20):
            assert next(outcomes).ok
        assert taken <= 20 + 4 * 5
        outcomes.close()
        assert engine.statistics().in_flight == 0
        assert list(engine.stream([])) == []


def test_what_an_input_raises_ends_its_stream(service):
    def requests():
        yield get(service.url)
        raise LookupError("no more")

    with Engine() as engine:
        with pytest.raises(LookupError, match="no more"):
            list(engine.stream(requests()))
        with pytest.raises(MisuseError, match="not str"):
            list(engine.stream(["http://a.test/"]))
        assert engine.send(get(service.url)).ok


def test_it_opens_at_the_first_call_and_closes_with_the_object(service):
    before = open_sockets()
    engine = Engine()
    assert threads() == []
    assert engine.send(get(service.url)).ok
    assert len(threads()) == 1
    del engine
    gc.collect()
    assert threads() == []
    assert open_sockets() <= before + 1  # the service's end of the connection may last a little


def test_misuse():
    with pytest.raises(MisuseError, match="concurrency"):
        Engine(concurrency=0)
    engine = Engine()
    engine.close()
    engine.close()
    for call in (
        lambda: engine.send(get("http://a.test/")),
        engine.__enter__,
        lambda: list(engine.stream([])),
    ):
        with pytest.raises(MisuseError, match="closed"):
            call()


def test_not_in_async_code(service):
    async def wrong(engine):
        with pytest.raises(MisuseError, match=r"use yelpaze\.Engine"):
            engine.send(get(service.url))
        with pytest.raises(MisuseError, match=r"use yelpaze\.Engine"):
            list(engine.stream([get(service.url)]))

    with Engine() as engine:
        asyncio.run(wrong(engine))
        assert engine.send(get(service.url)).ok


def test_a_listener_that_calls_again_does_not_wait_for_itself(service):
    said = []

    def on_outcome(outcome):
        try:
            engine.send(get(service.url))
        except MisuseError as error:
            said.append(str(error))

    with Engine(on_outcome=on_outcome) as engine:
        assert engine.send(get(service.url)).ok
    assert "use yelpaze.Engine" in said[0]


def test_closing_ends_the_calls_of_other_threads(service):
    service.hold()
    with Engine() as engine, ThreadPoolExecutor(1) as pool:
        call = pool.submit(engine.send, get(service.url))
        service.wait_for_calls(1)
        engine.close()
        assert call.result().error.kind == "cancelled"
    service.release()


def test_ctrl_c_cancels_the_call_of_the_main_thread(service):
    service.hold()
    main = threading.get_ident()

    def interrupt():
        service.wait_for_calls(1)
        signal.pthread_kill(main, signal.SIGINT)

    with Engine() as engine:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            engine.send(get(service.url))
        thread.join()
        service.release()
        assert engine.send(get(service.url)).ok
        assert engine.statistics().in_flight == 0


def test_a_fork_is_told_to_open_its_own(service):
    program = f"""
import os, yelpaze
from yelpaze import get
early, late = yelpaze.blocking.Engine(), yelpaze.blocking.Engine()
assert early.send(get({service.url!r})).ok
child = os.fork()
if not child:
    try:
        early.send(get({service.url!r}))
    except yelpaze.MisuseError as error:
        assert "forked" in str(error), error
        assert late.send(get({service.url!r})).ok
        early.close()
        late.close()
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert early.send(get({service.url!r})).ok
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(service.calls) == 3


def test_the_names():
    assert yelpaze.blocking.Engine is Engine
    assert yelpaze.blocking.run is yelpaze.run
