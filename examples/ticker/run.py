"""A ticker: the same prices by WebSocket and by server-sent events, side by side.

    python examples/ticker/run.py

It starts the gateway, publishes made-up prices through its server API, and serves the page. Ctrl-C ends all.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ["Almond", "Barley", "Cocoa", "Coffee", "Cotton", "Maize", "Rice", "Sugar", "Tea", "Wheat"]


@contextlib.contextmanager
def gateway(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """`yelpaze live` on a free port; its host and port."""
    command = [sys.executable, "-m", "yelpaze.cli.main", "live", "--config", str(HERE / "live.yaml")]
    command += ["--listen", "127.0.0.1:0", "--grace", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if " live at http://" not in line:
                sys.exit(line or "the gateway did not start")
            host, _, port = line.partition(" live at http://")[2].partition(",")[0].rpartition(":")
            threading.Thread(target=lambda: sys.stderr.writelines(process.stderr or ()), daemon=True).start()
            yield host, int(port)
        finally:
            process.terminate()
            process.wait()


class Ticker(threading.Thread):
    """Publishes all prices, again and again: each publication says everything, so any may be left out."""

    def __init__(self, host: str, port: int, key: str, pause: float) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(host, port, timeout=10)
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self._pause = pause
        self._over = threading.Event()

    def run(self) -> None:
        chance = random.Random()
        prices = {name: chance.uniform(50, 500) for name in NAMES}
        tick = 0
        while not self._over.wait(self._pause):
            tick += 1
            for name in chance.sample(NAMES, 3):
                prices[name] *= chance.uniform(0.99, 1.01)
            data = {"tick": tick, "prices": {name: round(price, 2) for name, price in prices.items()}}
            body = json.dumps({"channel": "ticker:prices", "data": data})
            self._connection.request("POST", "/api/publish", body, self._headers)
            answer = json.load(self._connection.getresponse())
            if "error" in answer:
                print(f"not published: {answer['error']}", file=sys.stderr)

    def stop(self) -> None:
        self._over.set()
        self.join()


class Page(BaseHTTPRequestHandler):
    """The page; it is told where the gateway is."""

    gateway = ""

    def do_GET(self) -> None:
        body = (HERE / "index.html").read_text().replace("GATEWAY", self.gateway).encode()
        found = self.path == "/"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body if found else b"there is nothing here\n")

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="of the page; 0 for a free one")
    parser.add_argument("--every", type=float, default=0.1, metavar="SECONDS", help="from tick to tick")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), Page)
    except OSError as error:
        sys.exit(f"port {options.port}: {error.strerror}: choose another with --port")
    address = f"http://127.0.0.1:{server.server_port}"
    key = secrets.token_hex(16)
    environment = {
        **os.environ,
        "YELPAZE_LIVE__HTTP_API__KEY": key,
        "YELPAZE_LIVE__CLIENT__ALLOWED_ORIGINS": address,
    }
    with server, gateway(environment) as (host, port):
        Page.gateway = f"{host}:{port}"
        ticker = Ticker(host, port, key, options.every)
        ticker.start()
        print(f"gateway at {Page.gateway}\nopen {address}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            ticker.stop()


if __name__ == "__main__":
    main()
