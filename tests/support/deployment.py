"""A monitor as it runs at scale: a process for each service, on a bus and a store that are given."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.ports import free_port
from support.waiting import until

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Sites:
    """Sites of which some can be down, and a receiver of webhooks."""

    def __init__(self):
        self.down = set()
        self.heard = []
        sites = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status = 500 if self.path[1:] in sites.down else 200
                self.answer(status)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                sites.heard.append((self.headers["webhook-id"], json.loads(body)))
                self.answer(200)

            def answer(self, status):
                self.send_response(status)
                self.send_header("content-length", "0")
                self.send_header("connection", "close")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 500
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Deployment:
    """Services by name; each is a process with its log in `folder`."""

    def __init__(self, folder, bus, store, settings):
        self.folder, self.bus, self.store = folder, bus, store
        self.file = folder / "monitor.yaml"
        self.file.write_text(json.dumps(settings))
        self.web_port, self.hooks_port = free_port(), free_port()
        self._processes = {}
        self._frozen = set()
        self.env = {
            **os.environ,
            "YELPAZE_HOOKS__ENCRYPTION_KEY": KEY,
            "YELPAZE_HOOKS__ADMIN_TOKEN": "admin-token-of-tests",
            "YELPAZE_HOOKS__STORE": store,
            "YELPAZE_HOOKS__LEASE": "5",
            "YELPAZE_BUS__LEASE": "6s",
            "YELPAZE_BUS__PREFIX": f"t{free_port()}-",
        }

    def command(self, name):
        on = ["--bus", self.bus]
        if name == "hooks":
            listen = f"127.0.0.1:{self.hooks_port}"
            return ["hooks", "serve", *on, "--listen", listen, "--store", self.store]
        service, _, rest = name.partition("-")
        more = ["--location", rest.split("-")[0]] if service == "probe" else []
        if service == "web":
            more = ["--listen", f"127.0.0.1:{self.web_port}"]
        return ["monitor", service, str(self.file), *on, "--store", self.store, *more]

    def start(self, *names):
        for name in names:
            log = (self.folder / f"{name}.log").open("ab")
            command = [sys.executable, "-m", "yelpaze", *self.command(name)]
            process = subprocess.Popen(command, stderr=log, stdout=log, env=self.env, cwd=self.folder)
            log.close()
            self._processes[name] = process
        for name in names:
            until(lambda name=name: self.is_ready(name))

    def is_ready(self, name):
        process = self._processes[name]
        text = (self.folder / f"{name}.log").read_text()
        assert process.poll() is None, f"{name} has ended: {text[-2000:]}"
        return any(line.startswith("yelpaze: monitor") or "hooks at" in line for line in text.splitlines())

    def kill(self, name):
        process = self._processes.pop(name)
        process.kill()
        process.wait(30)
        (self.folder / f"{name}.log").write_text("")

    def restart(self, name):
        self.kill(name)
        self.start(name)

    def freeze(self, name):
        self._processes[name].send_signal(signal.SIGSTOP)
        self._frozen.add(name)

    def thaw(self, name):
        self._processes[name].send_signal(signal.SIGCONT)
        self._frozen.discard(name)

    def close(self):
        for name in list(self._frozen):
            self.thaw(name)
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)

    def logs(self):
        return {path.name: path.read_text()[-3000:] for path in self.folder.glob("*.log")}
