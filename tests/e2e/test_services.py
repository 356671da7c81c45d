"""Everything long-lived starts, greets, logs, answers health, drains and ends alike."""

import asyncio
import json
import re
import resource
import signal
import socket
from datetime import datetime

import pytest

from support.services import SERVICES, request
from support.waiting import until, until_true

every_service = pytest.mark.parametrize("name", SERVICES)
HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.fixture
def start(tmp_path):
    """A factory of services: `start(name, *flags)`."""
    started = []

    def begin(name, *flags, **options):
        found = SERVICES[name].start(tmp_path, *flags, **options)
        started.append(found)
        return found

    yield begin
    for one in started:
        one.stop()


def started_with_metrics(start, name, *flags):
    """A service that is ready, the URL of its metrics' server, and its own."""
    service = start(name, "--metrics", "127.0.0.1:0", "--log-format", "json", *flags)
    url = service.event("metrics")["url"].removesuffix("/metrics")
    return service, url, service.event("ready")["url"]


def gauge(url, name):
    """The sum of a metric."""
    text = request(f"{url}/metrics")[1].decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


@every_service
def test_the_first_line_says_where_and_how_much(start, name):
    service = start(name, soft_limit=300)
    line = service.says(f"{name} at ")
    if HARD_LIMIT != resource.RLIM_INFINITY:  # the soft limit is raised
        assert re.search(
            rf"1 process with {HARD_LIMIT:,} descriptors: room for about [\d,]+ connections", line
        )
    assert service.lines[0] == line
    service.process.send_signal(signal.SIGTERM)
    assert service.ends() == 0
    assert service.lines[1:][-2:] == ["yelpaze: stopping", "yelpaze: stopped"]


@every_service
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_json_line_an_event(start, name, number):
    service, _, _ = started_with_metrics(start, name)
    service.process.send_signal(number)
    assert service.ends() == 0
    events = service.events()
    warnings = [event for event in events if event["level"] != "info"]
    assert [event["event"] for event in events if event not in warnings] == [
        "metrics",
        "ready",
        "stopping",
        "stopped",
    ]
    for event in events:
        assert event["service"] == name
        assert event["message"]
        datetime.fromisoformat(event["timestamp"])


@every_service
def test_health_readiness_and_metrics(start, name):
    _, url, own = started_with_metrics(start, name)
    for base in [url, own] if SERVICES[name].has_http else [url]:
        for path in ("/healthz", "/readyz"):
            assert request(f"{base}{path}")[0] == 200
            assert request(f"{base}{path}", "HEAD") == (200, b"")
    status, text = request(f"{url}/metrics")
    assert status == 200
    assert b"process_open_fds" in text
    assert request(f"{url}/metrics", "HEAD") == (200, b"")
    assert b"\nyelpaze_" in text
    assert request(f"{url}/nowhere")[0] == 404


@every_service
async def test_work_under_way_has_its_time_unless_asked_twice(start, name):
    service, url, own = started_with_metrics(start, name, "--grace", "600")
    kind = SERVICES[name]
    async with kind.busy(own):
        await until_true(lambda: gauge(url, kind.gauge) == 1)
        service.process.send_signal(signal.SIGTERM)
        line = await asyncio.to_thread(service.event, "stopping")
        assert "600 s; once more ends at once" in line["message"]
        assert await asyncio.to_thread(request, f"{url}/readyz") == (503, b'{"status":"unavailable"}')
        assert (await asyncio.to_thread(request, f"{url}/healthz"))[0] == 200
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.ends) == 0
    assert service.events()[-1]["message"] == "stopped at once"


@every_service
async def test_work_under_way_is_cut_after_the_grace(start, name):
    service, url, own = started_with_metrics(start, name, "--grace", "0.3")
    kind = SERVICES[name]
    async with kind.busy(own):
        await until_true(lambda: gauge(url, kind.gauge) == 1)
        service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.ends) == 0
    assert service.events()[-1]["message"] == "stopped"


@every_service
def test_sighup_reloads_or_ends(start, name):
    service = start(name)
    service.says(f"{name} at ")
    service.process.send_signal(signal.SIGHUP)
    if SERVICES[name].reloads:
        service.says(SERVICES[name].reloads)
        service.process.send_signal(signal.SIGTERM)
    assert service.ends() == 0


@pytest.mark.parametrize("name", [name for name in SERVICES if not SERVICES[name].reloads])
def test_nohup_holds(start, name):
    service = start(name, ignores_hangup=True)
    service.says(f"{name} at ")
    service.process.send_signal(signal.SIGHUP)
    service.process.send_signal(signal.SIGTERM)
    assert service.ends() == 0
    with pytest.raises(AssertionError):
        service.says("stopped at once")  # which two requests would be


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "server"])
def test_an_error_that_ends_it_is_a_line_of_the_log(start, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        service = start(name, "--log-format", "json", listen=address)
        assert service.ends() == 2
    (event,) = service.events()
    assert (event["event"], event["level"], event["service"]) == ("failed", "error", name)
    assert address in event["message"]


@every_service
def test_a_signal_during_the_start_ends_it(start, name):
    service = start(name, "--metrics", "127.0.0.1:0")
    service.says("metrics at ")  # it hears signals from before that on
    service.process.send_signal(signal.SIGTERM)
    assert service.ends() == 0
    assert not any("Traceback" in line for line in service.lines)


@every_service
@pytest.mark.parametrize("flag", ["--listen", "--metrics"])
def test_an_address_in_use_is_one_line(start, name, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = {"listen": address} if flag == "--listen" else {}
        service = start(name, *(["--metrics", address] if flag == "--metrics" else []), **options)
        code = service.ends()
    last = service.lines[-1]
    assert address in last
    if name == "server":  # a program of the user's: it is raised
        assert last.startswith("yelpaze.model.errors.InputError: ")
    else:
        assert code == 2
        assert len(service.lines) == 1
        assert last.startswith("yelpaze: ")


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "server"])
def test_quiet_logs_nothing_but_warnings(start, name):
    service = start(name, "--quiet", "--metrics", "127.0.0.1:0", "--log-format", "json")
    until(lambda: service.process.poll() is not None or _listens(service.process.pid))
    service.process.send_signal(signal.SIGTERM)
    assert service.ends() == 0
    assert {event["level"] for event in service.events()} <= {"warning"}


def _listens(pid):
    """Whether it has sockets of its own and hears signals (by its status, as nothing is logged)."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return caught & (1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "server"])
@pytest.mark.parametrize(
    "flags",
    [
        ["--metrics", "nowhere"],
        ["--metrics", "127.0.0.1:99999"],
        ["--listen", "nowhere"],
        ["--grace", "-1"],
        ["--log-format", "xml"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_one_message(start, name, flags):
    service = start(name, *flags)
    assert service.ends() == 2
    text = "\n".join(service.lines)
    assert flags[1] in text
    assert "Traceback" not in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
