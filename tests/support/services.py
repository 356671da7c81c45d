"""Every long-lived service, started as its users start it. A new one joins by a line in `SERVICES`."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support.ports import free_port
from support.service import YELPAZE
from support.waiting import SECONDS

TESTS = Path(__file__).parents[1]
_MODULE = """
import time

def spin(path: str) -> str:
    while True:
        time.sleep(0.01)
"""
_SERVER = """
import signal
import sys
from support.servicers import register
from yelpaze.rpc import serve

def value(flag):
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else None

if __name__ == "__main__":
    before = signal.getsignal(signal.SIGINT)
    serve(
        register,
        listen=value("--listen"),
        processes=1,
        drain=0,
        grace=float(value("--grace") or 30),
        metrics=value("--metrics"),
        log_format=value("--log-format") or "text",
    )
    assert signal.getsignal(signal.SIGINT) is before
"""


TOKEN = "yt_test"  # of the API of hooks


class Started:
    """A service that runs; `lines` are what it has logged."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        soft_limit: int | None = None,
        ignores_hangup: bool = False,
    ) -> None:
        if ignores_hangup:
            command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
        if soft_limit is not None:
            command = ["sh", "-c", f'ulimit -Sn {soft_limit}; exec "$@"', "sh", *command]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("YELPAZE_")}
        environment["YELPAZE_HOOKS__ADMIN_TOKEN"] = TOKEN
        environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        self.process.wait()
        with self._changed:
            self._changed.notify_all()

    def events(self) -> list[dict[str, Any]]:
        """The lines of `--log-format json`."""
        return [json.loads(line) for line in self.lines]

    def says(self, text: str) -> str:
        """Wait for a line with that text in it."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self.process.poll() is not None, SECONDS)
        line = found()
        assert line is not None, "\n".join([f"it never said {text!r}:", *self.lines])
        return line

    def event(self, kind: str) -> dict[str, Any]:
        """Wait for an event of that kind."""
        return json.loads(self.says(f'"event": "{kind}"'))

    def ends(self) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.ends()
        self.process.stderr.close()


Busy = Callable[[str], AbstractAsyncContextManager[Any]]


class Kind(NamedTuple):
    """How a service is started, and given work that does not end.

    `gauge`: the metric that counts such work. `has_http`: whether its own port speaks HTTP. `reloads`: what
    it says after SIGHUP, if that does not end it.
    """

    command: list[str]
    files: dict[str, str]
    busy: Busy
    gauge: str
    has_http: bool = False
    reloads: str = ""

    def start(self, folder: Path, *flags: str, listen: str = "127.0.0.1:0", **options: Any) -> Started:
        for name, text in self.files.items():
            (folder / name).write_text(text)
        return Started([*self.command, "--listen", listen, *flags], folder, **options)


def request(url: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@asynccontextmanager
async def _stalled_request(url: str) -> AsyncIterator[None]:
    with _connected(url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[None]:
    with _connected(url) as sock:
        sock.sendall(b"GET /sse/news HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


def _connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), SECONDS)


@asynccontextmanager
async def _long_function(url: str) -> AsyncIterator[None]:
    from yelpaze.rpc import Functions

    async with Functions(url, module="functions") as functions:
        call = asyncio.ensure_future(functions.call("spin", "", timeout=600))
        yield
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


@asynccontextmanager
async def _long_call(url: str) -> AsyncIterator[None]:
    import grpc

    async with grpc.aio.insecure_channel(url) as channel:
        call = asyncio.ensure_future(channel.unary_unary("/test.Echo/Until")(b"/nowhere", timeout=600))
        yield
        await asyncio.gather(call, return_exceptions=True)


_SITE = ("127.0.0.93", free_port("127.0.0.93"))  # nobody listens there until a test does
_MONITOR = f"""
allow: [127.0.0.0/8]
endpoints:
  - name: site
    url: http://{_SITE[0]}:{_SITE[1]}/
    interval: 1s
    client: {{timeout: 10m}}
    conditions: ["[STATUS] == 200"]
"""


@asynccontextmanager
async def _held_check(url: str) -> AsyncIterator[None]:
    """A check whose site does not answer."""
    with socket.create_server(_SITE):
        yield


@asynccontextmanager
async def _held_delivery(url: str) -> AsyncIterator[None]:
    """A message whose receiver does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        port = receiver.getsockname()[1]
        await asyncio.to_thread(_ask_hooks, url, "/app", {"name": "x", "uid": "x"})
        endpoint = {"url": f"http://127.0.0.1:{port}/", "timeout": 60}
        await asyncio.to_thread(_ask_hooks, url, "/app/x/endpoint", endpoint)
        await asyncio.to_thread(_ask_hooks, url, "/app/x/msg", {"eventType": "x", "payload": {}})
        yield


def _ask_hooks(url: str, path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"{url}/api/v1{path}", json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=SECONDS).close()


SERVICES = {
    "live": Kind([*YELPAZE, "live", "--insecure"], {}, _reader, "yelpaze_live_connections", has_http=True),
    "hooks": Kind(
        [*YELPAZE, "hooks", "serve", "--allow", "127.0.0.0/8"],
        {},
        _held_delivery,
        "yelpaze_hooks_under_way",
        has_http=True,
    ),
    "monitor": Kind(
        [*YELPAZE, "monitor", "run", "monitor.yaml"],
        {"monitor.yaml": _MONITOR},
        _held_check,
        "yelpaze_monitor_probe_running",
        has_http=True,
        reloads="the configuration is unchanged: 1 check",
    ),
    "worker": Kind(
        [*YELPAZE, "worker", "functions.py", "--processes", "1"],
        {"functions.py": _MODULE},
        _long_function,
        "yelpaze_server_running",
        reloads="all processes have been replaced",
    ),
    "demo": Kind(
        [*YELPAZE, "demo", "serve", "--latency", "600000"],
        {},
        _stalled_request,
        "yelpaze_demo_under_way",
        has_http=True,
    ),
    "server": Kind(
        [sys.executable, "server.py"],
        {"server.py": _SERVER},
        _long_call,
        "yelpaze_server_running",
        reloads="all processes have been replaced",
    ),
}
