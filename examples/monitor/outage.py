"""An outage, from its first failure to the resolved message: `yelpaze monitor run`, all in one process.

python examples/monitor/outage.py

Two locations check three services. Two of them fail, one because of the other. The page changes by itself,
and a signed webhook and a mail say so. Everything runs on this machine.
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from receivers import World

from yelpaze import Engine, get

FILE = Path(__file__).parent / "monitor.yaml"
COMMAND = [sys.executable, "-m", "yelpaze.cli.main"]


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with World() as world:
            port = free_port()
            command = [*COMMAND, "monitor", "run", str(FILE), "--listen", f"127.0.0.1:{port}", "--quiet"]
            environment = {**os.environ, **world.environment()}
            process = subprocess.Popen(command, cwd=folder, env=environment)
            try:
                return await story(world, f"http://127.0.0.1:{port}")
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait)


async def story(world: World, page: str) -> int:
    """Let services fail and come back, and say what the monitor does; 0 if all went as it should."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {text}", flush=True)

    async with Engine(retry=None, breaker=None) as engine:

        async def heading() -> str:
            outcome = await engine.send(get(page))
            found = re.search(r"<h1>(.*?)</h1>", outcome.text)
            return found[1] if found else ""

        async def until(what: str, condition: Callable[[str], bool], seconds: float = 60) -> bool:
            end, shown = time.monotonic() + seconds, ""
            heard = len(world.heard)
            while time.monotonic() < end:
                now = await heading()
                if now and now != shown:
                    say(f"page     {now}")
                    shown = now
                for channel, title, text in world.heard[heard:]:
                    say(f"{channel:<8} {title}: {' / '.join(text.split(chr(10)))}")
                heard = len(world.heard)
                if condition(now):
                    return True
                await asyncio.sleep(0.1)
            say(f"{what}: waited too long")
            return False

        good = await until("the first results", lambda now: now == "All services are up")
        world.down |= {"gateway", "checkout"}
        say("site     gateway and checkout answer 503 from now on")
        good &= await until("the alarm", lambda now: "down" in now and len(world.heard) >= 2)
        world.down.clear()
        say("site     both are repaired")
        good &= await until("the end", lambda now: now == "All services are up" and len(world.heard) >= 4)
    channels = sorted(channel for channel, _, _ in world.heard)
    if good and channels == ["e-mail", "e-mail", "webhook", "webhook"]:
        say("each channel was told of the outage and of its end; the gateway's explains the checkout's")
        return 0
    say(f"told: {world.heard}")
    return 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
