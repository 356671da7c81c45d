"""The demo services in a process of their own, and files to run `yelpaze` on."""

import json
import subprocess
import textwrap
from pathlib import Path

from support.service import YELPAZE


def start_demo(*arguments):
    """Start `yelpaze demo serve`; the process and its URL."""
    process = subprocess.Popen(
        [*YELPAZE, "demo", "serve", "--listen", "127.0.0.1:0", "--log-format", "json", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, json.loads(process.stderr.readline())["url"]


def stop(process):
    process.terminate()
    process.wait(60)
    process.stderr.close()


def flow_file(folder: Path, body: str, name: str = "flow.py") -> Path:
    path = folder / name
    path.write_text("from yelpaze import Flow, get, post\n" + textwrap.dedent(body))
    return path


def lines(path: Path) -> list:
    """The records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
