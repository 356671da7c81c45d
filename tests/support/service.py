"""A service that counts what it is asked and can be held, and a folder to run `yelpaze` in."""

import io
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from support.waiting import until
from yelpaze.cli.main import main

YELPAZE = [sys.executable, "-m", "yelpaze.cli.main"]
SECONDS = 60


class Call(NamedTuple):
    """A request, as the service got it; names of headers are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def step(self) -> str:
        """`base` of `/base/7`."""
        return self.path.split("/")[1]

    @property
    def number(self) -> int:
        """7 of `/base/7`."""
        return int(self.path.split("/")[2])


# A body (JSON, or bytes as they are), a status and a body, or these and headers.
Answer = Any


class Service:
    """Answers each request as `answer(call)` says, in a thread each; `hold` keeps answers back."""

    def __init__(self, answer: Callable[[Call], Answer] | None = None) -> None:
        self.answer = answer or (lambda call: {"path": call.path})
        self.calls: list[Call] = []
        self.under_way = self.most_under_way = 0
        self._held: Callable[[Call], bool] = lambda _: False
        self._free = threading.Event()
        self._changed = threading.Condition()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service._serve(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 512

            def handle_error(self, *_: Any) -> None:
                pass  # the client was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        parts = urlsplit(handler.path)
        call = Call(
            handler.command,
            parts.path,
            {name: values[-1] for name, values in parse_qs(parts.query).items()},
            {name.lower(): value for name, value in handler.headers.items()},
            handler.rfile.read(length) if length else b"",
        )
        with self._changed:
            self.calls.append(call)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            free, held = self._free, self._held(call)
            self._changed.notify_all()
        try:
            if held:
                free.wait(SECONDS)
            status, body, headers = _whole(self.answer(call))
            head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers]
            with suppress(ConnectionError):
                handler.wfile.write("\r\n".join([*head, "", ""]).encode() + body)
        finally:
            with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def hold(self, which: Callable[[Call], bool] = lambda _: True) -> None:
        """Keep back the answers to these, until `release`."""
        with self._changed:
            self._held, self._free = which, threading.Event()

    def release(self) -> None:
        """Answer what was held, and hold no more."""
        with self._changed:
            self._held = lambda _: False
            self._free.set()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until that holds of what was asked."""
        with self._changed:
            assert self._changed.wait_for(condition, SECONDS), f"waited too long: {len(self.calls)} calls"

    def wait_for_calls(self, count: int) -> None:
        self.wait(lambda: len(self.calls) >= count)

    def steps(self) -> Counter[str]:
        """How often each step has called."""
        return Counter(call.step for call in self.calls)

    def paths(self) -> Counter[str]:
        """How often each path was called."""
        return Counter(call.path for call in self.calls)

    def forget(self) -> None:
        """Count anew."""
        with self._changed:
            self.calls.clear()

    def stop(self) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _whole(answer: Answer) -> tuple[int, bytes, list[str]]:
    status, body, headers = 200, answer, {}
    if isinstance(answer, tuple):
        status, body, headers = answer if len(answer) == 3 else (*answer, {})
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, data, [f"{name}: {value}" for name, value in headers.items()]


class Place:
    """A folder with flows, inputs and outputs, and a list of runs of its own."""

    def __init__(self, path: Path, service: Service | None = None) -> None:
        self.path = path
        self.service = service
        self.processes: list[subprocess.Popen[str]] = []
        # Without bytecode: a flow that is edited twice in a second must be read twice.
        self.env = {
            **os.environ,
            "XDG_STATE_HOME": str(path / "state"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }

    def flow(self, body: str, name: str = "flow.py") -> Path:
        """Write a flow file; `URL` in it is the service."""
        url = self.service.url if self.service else ""
        head = f"from yelpaze import Failure, Flow, Response, get, post\nURL = {url!r}\n"
        path = self.path / name
        path.write_text(head + textwrap.dedent(body))
        return path

    def rows(self, rows: Any, name: str = "in.jsonl") -> Path:
        """Write an input; a number stands for so many rows `{"n": 1}`, `{"n": 2}`, …"""
        if isinstance(rows, int):
            rows = [{"n": number} for number in range(1, rows + 1)]
        path = self.path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def lines(self, name: str = "in.results.jsonl") -> list[Any]:
        """The records of a JSON Lines file; none if it is not there."""
        path = self.path / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def numbers(self, name: str = "in.results.jsonl") -> list[int]:
        """The rows that are there, sorted."""
        return sorted(line["row"] for line in self.lines(name))

    @property
    def letters(self) -> dict[int, Any]:
        """The dead letters, by row."""
        found = self.lines("in.results.failures.jsonl")
        letters = {letter["row"]: letter for letter in found}
        assert len(letters) == len(found), "a row has several dead letters"
        return letters

    def recorded(self, rows: int) -> None:
        """Wait until the list of runs says that so many rows have ended, which it does after their commit."""
        records = self.path / "state" / "yelpaze" / "runs"
        until(lambda: any(f'"rows":{rows},' in path.read_text() for path in records.glob("*.json")))

    def __call__(self, *arguments: Any, code: int | None = None, **options: Any) -> Any:
        """Run `yelpaze` to its end; `code` is the exit code that it must have."""
        options.setdefault("cwd", self.path)
        done = subprocess.run(
            [*YELPAZE, *map(str, arguments)],
            env=options.pop("env", self.env),
            capture_output=True,
            text=True,
            timeout=100,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, done.stderr
        return done

    def ask(self, *arguments: Any, code: int, env: dict[str, str] | None = None) -> Any:
        """The same in this process, which takes no time: for commands that run no flow."""
        texts = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        got, modules = 0, set(sys.modules)
        with (
            redirect_stdout(texts[0]),
            redirect_stderr(texts[1]),
            chdir(self.path),
            patch.dict(os.environ, env or self.env, clear=True),
            patch.object(sys, "path", list(sys.path)),
            patch.object(sys, "dont_write_bytecode", True),
        ):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as ended:
                got = ended.code
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(self.path)):
                del sys.modules[name]
        stdout, stderr = (text.buffer.getvalue().decode() for text in texts)
        assert got == code, stderr
        return subprocess.CompletedProcess(arguments, got, stdout, stderr)

    def start(self, *arguments: Any, **options: Any) -> "subprocess.Popen[str]":
        """Start `yelpaze`; its stderr is a pipe."""
        process = subprocess.Popen(
            [*YELPAZE, *map(str, arguments)],
            cwd=self.path,
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End what a failed test has left running."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
