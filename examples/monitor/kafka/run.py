"""The same outage, with a process for each service, on a real Kafka and PostgreSQL that this command starts.

python examples/monitor/kafka/run.py

It needs Java with Kafka's jars (`sh scripts/servers.sh slow` fetches them) and PostgreSQL.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parents[2] / "tests"))

from outage import COMMAND, FILE, free_port, story  # noqa: E402  it is found only now
from receivers import World  # noqa: E402

from support.kafka import Kafka  # noqa: E402
from support.postgres import Postgres  # noqa: E402
from yelpaze.hooks.sealing import new_key  # noqa: E402


@contextmanager
def services(bus: str, store: str, port: int, environment: dict[str, str]) -> Iterator[None]:
    """Each service on its own: two locations, storage, evaluation, alarms, deliveries, web."""
    on = ["--bus", bus, "--store", store, "--quiet"]
    file = str(FILE)
    commands = [
        ["monitor", "store", file, *on],
        ["monitor", "evaluate", file, *on],
        ["monitor", "alarm", file, *on],
        ["hooks", "serve", "--listen", f"127.0.0.1:{free_port()}", *on],
        ["monitor", "web", file, "--listen", f"127.0.0.1:{port}", *on],
        ["monitor", "probe", file, "--location", "frankfurt", *on],
        ["monitor", "probe", file, "--location", "oregon", *on],
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen([*COMMAND, *command], cwd=folder, env=environment) for command in commands
        ]
        print(f"  {len(started)} processes: {', '.join(' '.join(one[:2]) for one in commands)}", flush=True)
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


async def main() -> int:
    kafka, postgres = Kafka(), Postgres()
    try:
        print(f"  Kafka at {kafka.bootstrap}, PostgreSQL at port {postgres.port}", flush=True)
        async with World() as world:
            environment = {
                **os.environ,
                **world.environment(),
                "YELPAZE_HOOKS__ENCRYPTION_KEY": new_key(),
                "YELPAZE_HOOKS__ADMIN_TOKEN": "example-admin-token",
            }
            port = free_port()
            bus = f"kafka://{kafka.bootstrap}"
            with services(bus, postgres.new_database(), port, environment):
                return await story(world, f"http://127.0.0.1:{port}")
    finally:
        await asyncio.to_thread(kafka.close)
        await asyncio.to_thread(postgres.close)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
