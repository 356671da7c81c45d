"""The runner with parts that only note what is done to them; the log; health of a stuck loop."""

import asyncio
import http.client
import io
import json
import logging
import os
import signal
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, Counter

from yelpaze.model.errors import InputError, MisuseError, StoppedError
from yelpaze.model.notice import Level, Notice
from yelpaze.process.descriptors import capacity
from yelpaze.service import endpoint
from yelpaze.service.endpoint import liveness_of, new_registry, served_metrics
from yelpaze.service.log import forward_logging, service_report
from yelpaze.service.runner import Service


@pytest.fixture(autouse=True)
def own_signals():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Noting:
    """A part; `steps` are shared by all of a test."""

    def __init__(self, name, steps, *, fails_at="", ends=False):
        self.name, self.steps = name, steps
        self.fails_at, self.ends = fails_at, ends
        self.is_ready = True

    def note(self, step):
        self.steps.append(f"{step} {self.name}")
        if self.fails_at == step:
            raise StoppedError(f"{self.name} cannot {step}")

    async def start(self):
        self.note("start")
        return [Notice("ready", f"{self.name} is ready")]

    async def run(self):
        self.note("run")
        if not self.ends:
            await asyncio.Event().wait()

    def under_way(self):
        return f"{self.name}'s work" if self.name == "b" else ""

    async def drain(self):
        self.note("drain")

    async def close(self):
        self.note("close")


async def run(*parts, notices=None):
    notices = [] if notices is None else notices
    await Service(parts, notices.append).run()
    return [notice.text for notice in notices]


async def test_parts_start_and_drain_in_order_and_close_in_reverse():
    steps = []
    said = await run(Noting("a", steps), Noting("b", steps, ends=True), Noting("c", steps))
    assert said == [
        "a is ready",
        "b is ready",
        "c is ready",
        "stopping: b's work; once more ends at once",
        "stopped",
    ]
    order = ["start a", "start b", "start c", "run a", "run b", "run c", "drain a", "drain b", "drain c"]
    assert steps == [*order, "close c", "close b", "close a"]


@pytest.mark.parametrize("step", ["start", "run", "drain"])
async def test_a_part_that_fails_takes_none_with_it_unclosed(step):
    steps, notices = [], []
    with pytest.raises(StoppedError, match=f"b cannot {step}"):
        await run(
            Noting("a", steps), Noting("b", steps, fails_at=step, ends=step == "drain"), notices=notices
        )
    assert steps[-2:] == ["close b", "close a"]
    assert ("ready" in [notice.kind for notice in notices]) == (step != "start")


async def test_the_first_signal_drains_and_the_second_ends_at_once():
    steps, notices = [], []

    class Slow(Noting):
        async def run(self):
            os.kill(os.getpid(), signal.SIGTERM)
            await super().run()

        async def drain(self):
            self.note("drain")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    said = await run(Slow("b", steps), notices=notices)
    assert said[-1] == "stopped at once"
    assert steps == ["start b", "run b", "drain b", "close b"]


async def test_a_signal_during_the_start_ends_it():
    steps = []

    class Starting(Noting):
        async def start(self):
            self.note("start")
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    assert await run(Noting("a", steps), Starting("b", steps), Noting("c", steps)) == []
    assert steps == ["start a", "start b", "close c", "close b", "close a"]


async def test_a_service_is_ready_when_all_its_parts_are():
    steps, seen = [], []

    class Watching(Noting):
        async def run(self):
            seen.append(service.is_ready)
            self.is_ready = False
            seen.append(service.is_ready)

    service = Service([Noting("a", steps), Watching("b", steps)], lambda _: None)
    assert not service.is_ready
    await service.run()
    assert seen == [True, False]
    assert not service.is_ready


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_loop_that_is_stuck_is_not_healthy(monkeypatch):
    monkeypatch.setattr(endpoint, "_ALIVE_SECONDS", 0.01)
    urls = []
    loop = asyncio.new_event_loop()  # nothing runs it
    with served_metrics(
        [], "127.0.0.1:0", is_alive=liveness_of(loop), is_ready=lambda: False, started=urls.append
    ):
        base = urls[0].removesuffix("/metrics")
        assert status_of(f"{base}/healthz") == 503
        assert status_of(f"{base}/readyz") == 503
        assert status_of(f"{base}/metrics") == 200
    loop.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nowhere"])
def test_head_is_answered_as_get_without_a_body(path):
    urls = []
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry)
    with served_metrics([registry], "127.0.0.1:0", is_ready=lambda: False, started=urls.append):
        address = urlsplit(urls[0])
        found = []
        for method in ("GET", "HEAD"):
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name != "Date"}
            found.append((answer.status, headers))
            assert bool(body) is (method == "GET")
            connection.close()
    assert found[0] == found[1]


def test_several_registries_are_one_page():
    theirs = CollectorRegistry()
    Counter("theirs", "Made by user code.", registry=theirs).inc(7)
    urls = []
    registries = [new_registry(), theirs, new_registry()]
    with (
        served_metrics(registries, "[::1]:0", started=urls.append),
        urllib.request.urlopen(urls[0], timeout=30) as answer,
    ):
        text = answer.read().decode()
    assert "theirs_total 7.0" in text
    assert text.count("# TYPE process_cpu_seconds_total") == 1


@pytest.mark.parametrize("address", ["", "x", "host:", ":-1", "127.0.0.1:65536", "1.2.3.4:80x"])
def test_addresses_that_make_no_sense(address):
    with pytest.raises(MisuseError, match="--metrics takes"), served_metrics([], address):
        pass


@pytest.mark.parametrize(("address", "host"), [("0", "127.0.0.1"), (":0", "0.0.0.0"), ("[::1]:0", "[::1]")])
def test_a_port_alone_is_for_this_machine(address, host):
    urls = []
    with served_metrics([], address, started=urls.append):
        pass
    assert urls[0].startswith(f"http://{host}:")


def test_an_address_that_is_not_here():
    with pytest.raises(InputError, match="cannot listen there"), served_metrics([], "192.0.2.1:1"):
        pass


def test_capacity_is_what_descriptors_allow(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1100, 4096))
    assert capacity() == "1 process with 1,100 descriptors: room for about 1,000 connections"
    assert capacity(3) == "3 processes with 1,100 descriptors each: room for about 3,000 connections"
    monkeypatch.setattr("resource.getrlimit", lambda _: (50, 50))
    assert capacity().endswith("room for about 0 connections")
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert capacity(2) == "2 processes without a limit of descriptors"


# ── the log ─────────────────────────────────────────────────────────────────────────

AWAY = Notice("broker.away", "Redis is away", Level.WARNING, {"url": "redis://x"})


def test_a_notice_is_a_line_for_people_or_machines():
    text, lines = io.StringIO(), io.StringIO()
    for form, file in (("text", text), ("json", lines)):
        report = service_report("live", form=form, file=file)
        report(Notice("ready", "live at http://x"))
        report(AWAY)
    assert text.getvalue() == "yelpaze: live at http://x\nyelpaze: warning: Redis is away\n"
    ready, away = map(json.loads, lines.getvalue().splitlines())
    assert away.pop("timestamp")
    assert away == {
        "event": "broker.away",
        "message": "Redis is away",
        "level": "warning",
        "service": "live",
        "url": "redis://x",
    }
    assert ready["level"] == "info"


def test_quiet_leaves_warnings():
    file = io.StringIO()
    report = service_report("live", quiet=True, file=file)
    report(Notice("ready", "live at http://x"))
    report(AWAY)
    assert file.getvalue() == "yelpaze: warning: Redis is away\n"


def test_what_libraries_log_goes_the_same_way():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    notices = []
    try:
        forward_logging(notices.append)
        logging.getLogger("asyncio").error("it %s", "broke")
        logging.getLogger("asyncio").info("it works")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert notices == [Notice("log.asyncio", "it broke", Level.ERROR)]
