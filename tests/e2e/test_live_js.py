"""centrifuge-js, unchanged, under Node; in a browser: test_live_browser.py."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from support.centrifuge_js import CentrifugeJs, JsClient
from support.needed import absent

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
HAS_WEBSOCKET = "if (!globalThis.WebSocket) process.exit(1)"


class NodeClient(JsClient):
    """tests/node/live.js in a process of its own."""

    async def start(self, flags) -> None:
        self._results = {}
        self._process = await asyncio.create_subprocess_exec(
            "node", *flags, str(ROOT / "tests" / "node" / "live.js"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self._process.stdout:
            message = json.loads(line)
            if "done" in message:
                self._results.pop(message["done"]).set_result(message)
            else:
                await self.heard(message)

    async def act(self, name, **options):
        number = len(self._results) + 1
        done = self._results[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps([number, name, options]).encode() + b"\n")
        return await asyncio.wait_for(done, 30)

    async def close(self) -> None:
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), 30) == 0
        await self._reading


@pytest.fixture(scope="module")
def flags():
    """What makes Node have WebSocket: nothing from version 22 on."""
    if shutil.which("node") is None or not (MODULES / "centrifuge").is_dir():
        absent("centrifuge-js (scripts/servers.sh)")
    for found in ((), ("--experimental-websocket", "--no-warnings")):
        if os.spawnlp(os.P_WAIT, "node", "node", *found, "-e", HAS_WEBSOCKET) == 0:
            return found
    return absent("a Node with WebSocket")


@pytest.fixture
async def js(flags):
    clients = []

    async def start():
        client = NodeClient()
        await client.start(flags)
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


class TestNode(CentrifugeJs):
    """Under Node."""
