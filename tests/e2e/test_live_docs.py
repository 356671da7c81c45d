"""What docs/live.md says is so: its commands, its Python and its JavaScript run."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_live_js import MODULES, flags

from support.live import KEY, SECONDS, SECRET, Gateway, WebSocket, request, token
from support.needed import needs
from support.nginx import free_port
from yelpaze.live.protocol import codes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "live.md").read_text()

__all__ = ["flags"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


(YAML,) = blocks("yaml")
COMMANDS = [line for block in blocks("console") for line in re.findall(r"^\$ (.*)", block, re.MULTILINE)]
SERVERS = [line for line in COMMANDS if line.startswith("yelpaze live")]
CALLS = [line for line in COMMANDS if "X-API-Key" in line]
FOLLOW, LISTEN, CENTRIFUGE = blocks("javascript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run: the settings are there."""
    path = tmp_path_factory.mktemp("docs")
    (path / "live.yaml").write_text(YAML)
    return path


@pytest.fixture(scope="module")
def environment(folder):
    command = folder / "bin" / "yelpaze"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "YELPAZE_LIVE__CLIENT__TOKEN__HMAC_SECRET_KEY": SECRET,
        "YELPAZE_LIVE__HTTP_API__KEY": KEY,
        "KEY": KEY,
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """`yelpaze live --config live.yaml`."""
    needs("uvloop", "httptools", "jwt", "yaml")
    import yaml

    found = Gateway(tmp_path_factory.mktemp("live"), yaml.safe_load(YAML))
    yield found
    found.stop()


def run(command, folder, environment, **options):
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, **options
    )


# ── commands ────────────────────────────────────────────────────────────────────


def test_all_kinds_of_commands_are_known():
    tried = COMMANDS.index(next(line for line in COMMANDS if "api/publish" in line)) + 1
    others = [line for line in COMMANDS[tried:] if line not in SERVERS and line not in CALLS]
    assert [line.split()[0] for line in others] == ["export", "export", "export", "curl"]
    assert (len(SERVERS), len(CALLS)) == (3, 3)


@pytest.mark.parametrize("line", SERVERS)
def test_servers_start_and_stop(line, folder, environment, request):
    metrics = free_port()
    if "redis://" in line:
        line = line.replace("redis://127.0.0.1:6379", request.getfixturevalue("redis").url)
    line = f"exec {line.replace('9100', str(metrics))} --listen 127.0.0.1:{free_port()}"
    with subprocess.Popen(
        line, shell=True, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            started = next(text for text in process.stderr if "live at http://" in text)
            address = started.partition("http://")[2].partition(",")[0]
            if "--insecure" in line:
                tried(address, folder, environment)
            if "--metrics" in line:
                measured(metrics, folder, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
    assert process.returncode == 0, said


def tried(address, folder, environment):
    """The first try: both lines in one shell, as they stand."""
    listen, publish = (line.replace("127.0.0.1:8000", address) for line in COMMANDS[1:3])
    done = subprocess.Popen(
        ["sh", "-c", f"{listen.rstrip('&')}"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    while not json.loads(
        run(["curl", "-s", "-d", "{}", f"http://{address}/api/channels"], folder, environment).stdout
    )["result"]["channels"]:
        pass
    answer = run(publish, folder, environment, shell=True)
    assert json.loads(answer.stdout) == {"result": {}}
    said = next(line for line in done.stdout if line.startswith("data"))
    assert said.strip() in TEXT
    done.kill()
    done.wait(SECONDS)
    done.stdout.close()


def measured(port, folder, environment):
    line = next(line for line in COMMANDS if "/metrics" in line).replace("9100", str(port))
    found = set(re.findall(r"^# HELP (\w+)", run(line, folder, environment, shell=True).stdout, re.MULTILINE))
    said = re.search(r"## Metrics\n(.*?)\n## ", TEXT, re.DOTALL)[1]
    names = {name.removeprefix("yelpaze_live") for name in re.findall(r"`((?:yelpaze_live)?_\w+)`", said)}
    ours = {name.removeprefix("yelpaze_live") for name in found if name.startswith("yelpaze_live")}
    assert ours == names


@pytest.mark.parametrize("line", CALLS)
def test_calls_of_the_server_api(line, gateway, folder, environment):
    done = run(line.replace("127.0.0.1:8000", gateway.address), folder, environment, shell=True)
    assert done.returncode == 0, done.stderr
    assert "result" in json.loads(done.stdout)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python(snippet, gateway, folder, environment, request):
    snippet = snippet.replace("127.0.0.1:8000", gateway.address)
    if "redis://127" in snippet:
        snippet = snippet.replace("redis://127.0.0.1:6379", request.getfixturevalue("redis").url)
    done = run([sys.executable, "-W", "error", "-c", snippet], folder, environment)
    assert done.returncode == 0, done.stderr
    if "jwt.encode" in snippet:
        channel = "orders:42" if "orders:42" in snippet else "chat:room"
        with WebSocket(gateway.port, "/connection/websocket") as client:
            connect = token("42") if "orders:42" in snippet else done.stdout.strip()
            client.say(json.dumps({"id": 1, "connect": {"token": connect}}))
            assert "error" not in json.loads(client.hear())
            given = {"token": done.stdout.strip()} if "orders:42" in snippet else {}
            client.say(json.dumps({"id": 2, "subscribe": {"channel": channel, **given}}))
            assert "subscribe" in json.loads(client.hear())


# ── JavaScript ──────────────────────────────────────────────────────────────────


class Script:
    """A function of the page, run by Node; its waits are a twentieth."""

    def __init__(self, process) -> None:
        self._process = process

    async def tell(self, *what):
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def hear(self, *what):
        """What it says next, but for its waits."""
        while True:
            line = await asyncio.wait_for(self._process.stdout.readline(), SECONDS)
            said = json.loads(line)
            if said[0] != "waits":
                assert said[: len(what)] == list(what)
                return said

    async def give(self, text):
        await self.hear("token")
        await self.tell("token", text)


@asynccontextmanager
async def script(flags, folder, code, name, address):
    path = folder / f"{name}.js"
    path.write_text(code)
    process = await asyncio.create_subprocess_exec(
        "node", *flags, str(ROOT / "tests" / "node" / "plain.js"), str(path), name, address,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Script(process)
    finally:
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


async def test_a_plain_websocket_comes_back(flags, folder, gateway):
    async with script(flags, folder, LISTEN, "listen", f"{gateway.ws}/ws/chat:room") as page:
        await page.give("none")  # the page's own server is away
        await page.give(token("ada"))
        while not gateway.api("presence_stats", channel="chat:room")["num_clients"]:
            pass
        gateway.publish("chat:room", {"text": "Hello"})
        await page.hear("data", '{"text": "Hello"}')
        await page.tell("send", '"back"')
        await page.hear("data", '"back"')
        gateway.kill()
        await page.give(token("ada"))  # nobody is there
        await page.hear("token")
        gateway.start()
        await page.tell("token", token("ada"))
        while not gateway.api("presence_stats", channel="chat:room")["num_clients"]:
            pass
        gateway.publish("chat:room", "again")
        await page.hear("data", "again")
        gateway.api("disconnect", user="ada")
        await page.hear("end", 3503, "force disconnect")


async def test_a_bad_token_is_told_to_the_page(flags, folder, gateway):
    async with script(flags, folder, LISTEN, "listen", f"{gateway.ws}/ws/chat:room") as page:
        await page.give("no token")
        await page.hear("end", 4001, "bad token")


@pytest.mark.slow
async def test_an_event_source_goes_on_where_it_was(flags, folder, gateway):
    """A killed gateway is for a browser to try: Node's EventSource does not come back to one."""
    flags = (*flags, "--experimental-eventsource")
    async with script(flags, folder, FOLLOW, "follow", f"{gateway.url}/sse/chat:events") as page:
        await page.give("no token")  # refused by 401: an EventSource gives up, the page does not
        await page.give(token("ada"))
        while not gateway.api("presence_stats", channel="chat:events")["num_clients"]:
            pass
        gateway.publish("chat:events", {"n": 1})
        await page.hear("data", {"n": 1})
        gateway.api("disconnect", user="ada")
        gateway.publish("chat:events", {"n": 2})
        await page.hear("data", {"n": 2})
        gateway.api("disconnect", user="ada")
        gateway.publish("chat:events", {"n": 3})
        gateway.api("history_remove", channel="chat:events")
        await page.hear("end")  # it was told that something is missing
        await page.tell("close")


async def test_centrifuge_js_as_it_stands(flags, folder, gateway):
    (folder / "node_modules").symlink_to(MODULES)
    given = json.dumps(token("ada"))
    code = CENTRIFUGE.replace("127.0.0.1:8000", gateway.address)
    (folder / "page.mjs").write_text(
        f"globalThis.fetch = async () => ({{ text: async () => {given} }});\n{code}\n"
        'room.on("publication", () => centrifuge.disconnect());\n'
    )
    done = await asyncio.to_thread(run, ["node", *flags, "page.mjs"], folder, None)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello\n"


# ── tables ──────────────────────────────────────────────────────────────────────


def test_close_codes_are_those_of_the_code():
    said = {
        int(code): reason for code, reason in re.findall(r"^\| (\d{4}) \| ([^|]+) \|", TEXT, re.MULTILINE)
    }
    endings = [value for value in vars(codes).values() if isinstance(value, codes.Ending)]
    reasons = {}
    for one in endings:
        if one.code >= 3000:
            reasons.setdefault(one.code, []).append(one.reason)
    assert said == {code: ", or ".join(words) for code, words in reasons.items()}
    final = {int(code) for code in re.findall(r"^\| (\d{4}) \| [^|]+ \| stays away", TEXT, re.MULTILINE)}
    assert final == {one.code for one in endings if one.is_final} | {4001}


def test_addresses_are_there(gateway):
    assert request(gateway.port, "GET", "/health")[0] == 200
    status, _, body = request(gateway.port, "GET", "/api/openapi.json", headers={"X-API-Key": KEY})
    assert status == 200
    methods = {path.removeprefix("/api/") for path in json.loads(body)["paths"]}
    said = re.search(r"Its methods are Centrifugo's: (.*?)\.\n", TEXT, re.DOTALL)[1]
    assert methods == set(re.findall(r"`(\w+)`", said))
