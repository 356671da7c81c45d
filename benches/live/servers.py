"""Yelpaze and its rivals: how each is started, spoken to, and told to send something to everybody.

Each rival is used as its own documentation says, in one process: a file in rivals/, or Centrifugo's
program. Only Yelpaze and Centrifugo know users, channels and recovery; the others have every connection
in one set and no tokens, which spares them that work.
"""

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import CACHE, HERE, cores, free_port, rivals_python, running, wait_for_port

SECRET, KEY, CHANNEL = "a secret of 32 bytes, and then some", "key", "bench"
SOURCES = [f"127.0.0.{number}" for number in range(2, 8)]
NAP_US = 200  # see the loader's patience()


@dataclass(frozen=True)
class Server:
    """A server under one name; the same program may be there in several ways."""

    command: Callable[[int, Path], list[object]]  # of its port and its configuration
    mode: str = "ws"  # what the loader speaks
    path: str = "/ws"
    api: bool = False  # Centrifugo's: tokens and the HTTP server API
    missing: Callable[[], str] = str  # why it can't be measured here; nothing if it can

    def task(self, port: int, count: int, **more: Any) -> dict[str, Any]:
        """What a loader is told."""
        address = f"127.0.0.1:{port}"
        publish = {"way": "ws", "target": address, "path": "/publish"}
        if self.api:
            publish = {"way": "http", "target": address, "channel": CHANNEL, "key": KEY}
        return {
            "targets": [address],
            "mode": self.mode,
            "path": self.path,
            "channel": CHANNEL,
            "secret": SECRET if self.api else "",
            "count": count,
            "sources": SOURCES,
            "nap_us": NAP_US,
            "publish": publish,
            **more,
        }


def _rival(script: str, *arguments: str) -> Callable[[int, Path], list[object]]:
    return lambda port, _: [rivals_python(), HERE / "rivals" / script, port, *arguments]


def _uvicorn(port: int, _: Path) -> list[object]:
    flags = ["--host", "127.0.0.1", "--port", port, "--app-dir", HERE / "rivals", "--log-level", "warning"]
    flags += ["--loop", "uvloop", "--http", "httptools", "--backlog", 4096]
    return [rivals_python(), "-m", "uvicorn", *flags, "--ws-per-message-deflate", "false", "fastapi_app:app"]


@functools.cache
def _centrifugo_program() -> Path:
    """Version 5: of version 6 the Go module proxy has no release that can be built."""
    program = CACHE / "live" / "centrifugo"
    command = ["go", "build", "-o", program, "github.com/centrifugal/centrifugo/v5"]
    subprocess.run(command, cwd=HERE / "rivals" / "centrifugo", check=True, timeout=600)
    return program


def _centrifugo(port: int, config: Path) -> list[object]:
    ours = json.loads(config.read_text())
    channel = ours["channel"]["without_namespace"]
    theirs = config.with_name("centrifugo.json")
    theirs.write_text(
        json.dumps(
            {
                "token_hmac_secret_key": ours["client"]["token"]["hmac_secret_key"],
                "allowed_origins": ours["client"]["allowed_origins"],
                "api_key": ours["http_api"]["key"],
                "log_level": "error",
                **channel,
            }
        )
    )
    return [_centrifugo_program(), "--config", theirs, "--address", "127.0.0.1", "--port", port]


def _no_centrifugo() -> str:
    return "" if shutil.which("go") else "go is not there to build it"


def yelpaze(*flags: object) -> Callable[[int, Path], list[object]]:
    program = [sys.executable, "-m", "yelpaze.cli.main", "live"]
    return lambda port, config: [*program, "--listen", f"127.0.0.1:{port}", "--config", config, *flags]


@functools.cache
def _no_yelpaze() -> str:
    command = [sys.executable, "-m", "yelpaze.cli.main", "live", "--help"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return "there is no `yelpaze live`" if done.returncode else ""


def _ours(mode: str, path: str) -> Server:
    return Server(yelpaze(), mode, path, api=True, missing=_no_yelpaze)


OURS = {
    "yelpaze, Centrifugo's protocol": _ours("centrifugo", "/connection/websocket"),
    "yelpaze, plain WebSocket": _ours("ws", f"/ws/{CHANNEL}"),
    "yelpaze, SSE": _ours("sse", f"/sse/{CHANNEL}"),
}
CENTRIFUGO = Server(_centrifugo, "centrifugo", "/connection/websocket", api=True, missing=_no_centrifugo)
SERVERS = {
    **OURS,
    "Centrifugo": CENTRIFUGO,
    "websockets": Server(_rival("websockets_server.py")),
    "picows": Server(_rival("picows_server.py")),
    "FastAPI on uvicorn": Server(_uvicorn),
    "raw send()": Server(_rival("floor.py")),
    "raw send(), bursts joined": Server(_rival("floor.py", "joined")),
}


def present(wanted: list[str] | None, names: tuple[str, ...]) -> dict[str, Server]:
    """Those of them that are there, and asked for; why not the others."""
    found = {}
    for name in names:
        if wanted and name not in wanted:
            continue
        if why := SERVERS[name].missing():
            print(f"{name}: left out: {why}", file=sys.stderr)
        else:
            found[name] = SERVERS[name]
    return found


def configuration(*, recovery: bool) -> str:
    """In Centrifugo's layout, which Yelpaze reads too."""
    history = {"history_size": 100, "history_ttl": "300s", "force_recovery": True} if recovery else {}
    return json.dumps(
        {
            "client": {"token": {"hmac_secret_key": SECRET}, "allowed_origins": ["*"]},
            "http_api": {"key": KEY},
            "channel": {"without_namespace": {"allow_subscribe_for_client": True, **history}},
        }
    )


@contextlib.contextmanager
def started(server: Server, *, recovery: bool = False, core: int | None = None) -> Iterator[tuple[int, int]]:
    """Its port and its process, on the servers' core unless another is given."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "live.yaml"
        config.write_text(configuration(recovery=recovery))
        # Go's threads would take the loader's core, too; all are on one core anyhow.
        environment = {"GOMAXPROCS": "1"}
        command = server.command(port, config)
        with running(command, core=cores()[1] if core is None else core, environment=environment) as pid:
            wait_for_port(port, pid)
            yield port, pid
