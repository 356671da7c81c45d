"""A chat over two nodes of `yelpaze live` and one Redis.

    python examples/chat_two_nodes/run.py

It starts all three, and serves the page that talks to both nodes. Ctrl-C ends everything.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

HERE = Path(__file__).parent
AWAY_SECONDS = 3


class Redis:
    """A Redis of our own behind a socket file; it writes each change down before it answers."""

    def __init__(self, folder: str) -> None:
        self.address = f"unix://{folder}/redis.sock"
        self._command = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis.sock"]
        self._command += ["--dir", folder, "--logfile", "redis.log"]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def node(number: int, redis: Redis, environment: dict[str, str]) -> Iterator[str]:
    """A node on a free port; its address."""
    command = [sys.executable, "-m", "yelpaze.cli.main", "live", "--config", str(HERE / "live.yaml")]
    command += ["--listen", "127.0.0.1:0", "--broker", redis.address, "--grace", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = process.stderr
        try:
            said = ""
            for line in lines:
                said += line
                if " live at " in line:
                    break
            else:
                sys.exit(f"node {number} did not start:\n{said}")
            threading.Thread(target=pass_on, args=(number, lines), daemon=True).start()
            yield line.partition(" live at http://")[2].partition(",")[0]
        finally:
            process.terminate()
            process.wait()


def pass_on(number: int, lines: Any) -> None:
    for line in lines:
        print(f"node {number}: {line}", end="", file=sys.stderr)


class Page(BaseHTTPRequestHandler):
    """The page, a token for whoever asks for one, and the end of Redis."""

    nodes: tuple[str, ...] = ()
    secret = ""
    redis: Redis

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self._answer(200, "text/html; charset=utf-8", (HERE / "index.html").read_bytes())
        elif url.path == "/entry":
            # A real application tells who somebody is by its own log-in.
            name = parse_qs(url.query).get("name", ["somebody"])[0]
            token = jwt.encode({"sub": name, "exp": int(time.time()) + 3600}, self.secret, "HS256")
            self._answer(200, "application/json", json.dumps({"token": token, "nodes": self.nodes}).encode())
        else:
            self._answer(404, "text/plain", b"there is nothing here\n")

    def do_POST(self) -> None:
        if self.path == "/redis/kill":
            self.redis.kill()
            threading.Timer(AWAY_SECONDS, self.redis.start).start()
            self._answer(200, "application/json", b"{}")
        else:
            self._answer(404, "text/plain", b"there is nothing here\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="of the page; 0 for a free one")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is missing: install Redis (Debian: apt-get install redis-server)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), Page)
    except OSError as error:
        sys.exit(f"port {options.port}: {error.strerror}: choose another with --port")
    address = f"http://127.0.0.1:{server.server_port}"
    Page.secret = secrets.token_hex(32)
    environment = {
        **os.environ,
        "YELPAZE_LIVE__CLIENT__TOKEN__HMAC_SECRET_KEY": Page.secret,
        "YELPAZE_LIVE__CLIENT__ALLOWED_ORIGINS": address,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(server.server_close)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chat"))
        Page.redis = Redis(folder)
        Page.redis.start()
        stack.callback(Page.redis.kill)
        Page.nodes = tuple(stack.enter_context(node(number, Page.redis, environment)) for number in (1, 2))
        print(f"nodes at {' and '.join(Page.nodes)}\nopen {address}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
