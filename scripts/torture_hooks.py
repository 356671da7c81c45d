"""Kill `yelpaze hooks serve` in the middle of everything, and check that no message is lost.

python scripts/torture_hooks.py --rounds 100            seeds itself, and prints the seed
python scripts/torture_hooks.py --seed 7 --only 31      one round again
python scripts/torture_hooks.py --stores postgres       with PostgreSQL only

A round has several lives. In each, messages are sent while a receiver fails some of them, until something
happens: kill -9 of all processes or of one, SIGTERM, SIGSTOP for longer than a lease, or, with PostgreSQL,
the crash of the server. In the last life everything is let finish. Then:

- every message that was accepted (202, or 409 for a second try) was delivered to each endpoint;
- what the store had as delivered when the service was dead is not sent again;
- no delivery came more often than once for each thing that happened, and always with the same id;
- nothing is pending, the attempts in the log are numbered without a gap, and SQLite finds its file whole.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.ports import free_port
from support.postgres import Postgres, binary
from support.raw import RawServer
from yelpaze.store.opening import connect_to

TOKEN = "yt_torture"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ENDPOINTS = 8
LEASE = 1.5
SETTINGS = {
    "schedule": [0, *[0.2] * 60],
    "breaker_pause": 0.3,
    "lease": LEASE,
    "timeout": 2,
    "allow": ["127.0.0.0/8"],
    "encryption_key": KEY,
    "admin_token": TOKEN,
}


class BrokenPromiseError(Exception):
    """What must not be."""


def check(holds, what):
    if not holds:
        raise BrokenPromiseError(what)


class Receiver:
    """Takes webhooks; fails some of them, by chance, and is slow with some."""

    def __init__(self, chance):
        self.chance = chance
        self.fails = 0.2
        self.successes = Counter()  # (path, webhook-id) that were answered 200
        self.since = Counter()  # the same, in this life
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = RawServer(self._script)
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10)
        self.url = self._server.url

    async def _script(self, peer):
        while request := await peer.request():
            lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            key = (lines[0].split()[1], headers["webhook-id"])
            if self.chance.random() < self.fails:
                if self.chance.random() < 0.3:
                    peer.reset()
                    return
                await peer.answer(status="500 Oh")
                continue
            if self.chance.random() < 0.1:
                await asyncio.sleep(self.chance.uniform(0, 0.2))
            self.successes[key] += 1
            self.since[key] += 1
            await peer.answer()

    def close(self):
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)


class Service:
    """The service, and what it said."""

    def __init__(self, folder, store, port, processes):
        self.url = f"http://127.0.0.1:{port}"
        settings = folder / "hooks.json"
        settings.write_text(json.dumps(SETTINGS | {"store": store, "listen": f"127.0.0.1:{port}"}))
        self.log = (folder / "log").open("a")
        command = [sys.executable, "-m", "yelpaze.cli.main", "hooks", "serve", "--config", str(settings)]
        self.process = subprocess.Popen(
            [*command, "--processes", str(processes)],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def ready(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            check(self.process.poll() is None, "the service ended at its start")
            try:
                if urllib.request.urlopen(f"{self.url}/readyz", timeout=2).status == 200:
                    return self
            except OSError:
                time.sleep(0.05)
        raise BrokenPromiseError("the service is not ready after a minute")

    def children(self):
        text = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout
        return [int(line) for line in text.split()]

    def signal_all(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self):
        self.signal_all(signal.SIGKILL)
        self.process.wait(30)
        self.log.close()

    def ask(self, method, path, body=None):
        """Status of the answer, and the answer; 0 if there is none."""
        request = urllib.request.Request(
            f"{self.url}/api/v1{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""


class Sender(threading.Thread):
    """Sends messages, each again and again until it is known to be accepted."""

    def __init__(self, service, numbers):
        super().__init__()
        self.service = service
        self.numbers = numbers
        self.accepted = set()
        self.is_over = False

    def run(self):
        for number in self.numbers:
            body = {"eventType": "torture.event", "eventId": f"e{number}", "payload": {"n": number}}
            while number not in self.accepted and not self.is_over:
                status, answer = self.service.ask("POST", "/app/torture/msg", body)
                if status in (202, 409):
                    self.accepted.add(number)
                elif status in (0, 503):
                    time.sleep(0.05)
                else:
                    raise BrokenPromiseError(f"a message was refused: {status} {answer!r}")
            if self.is_over:
                return


def delivered_in(store):
    """What the store has as delivered: pairs of path and message."""
    connection = connect_to(store)
    try:
        rows = connection.rows(
            "SELECT e.uid, d.message_id FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id "
            "WHERE d.state = 0 AND e.uid LIKE 'e%'"
        )
    finally:
        connection.close()
    return {(f"/{uid}", message_id) for uid, message_id in rows}


class Round:
    """One round: a store, a receiver, and the service in its lives."""

    def __init__(self, number, seed, kind, folder):
        self.chance = random.Random(f"{seed}-{number}")
        self.folder = folder
        self.database = Postgres() if kind == "postgres" else None
        self.store = str(folder / "h.db") if self.database is None else self.database.url
        self.receiver = Receiver(random.Random(self.chance.random()))
        self.processes = self.chance.choice([1, 1, 2])
        self.port = free_port()
        self.told = []  # what happened
        self.service = None
        self.sender = None

    def start(self):
        self.service = Service(self.folder, self.store, self.port, self.processes).ready()

    def close(self):
        if self.sender is not None:
            self.sender.is_over = True
        if self.service is not None:
            self.service.end()
        self.receiver.close()
        if self.database is not None:
            self.database.close()

    def set_up(self):
        service = self.service
        check(service.ask("POST", "/app", {"name": "t", "uid": "torture"})[0] == 201, "no application")
        for place in range(ENDPOINTS):
            body = {"url": f"{self.receiver.url}/e{place}", "uid": f"e{place}"}
            status, answer = service.ask("POST", "/app/torture/endpoint", body)
            check(status == 201, f"no endpoint: {status} {answer!r}")
        self.sender = Sender(service, range(self.chance.randrange(40, 120)))
        self.sender.start()

    def disturb(self):
        time.sleep(self.chance.uniform(0.05, 0.8))
        crash = ["crash"] if self.database is not None else []
        what = self.chance.choice(["kill", "kill", "kill one", "stop", "freeze", *crash])
        self.told.append(what)
        if what == "crash":
            self.database.kill()
            time.sleep(self.chance.uniform(0, 0.5))
            self.database.start()
        elif what == "freeze":
            self.service.signal_all(signal.SIGSTOP)
            time.sleep(LEASE * 1.5)
            self.service.signal_all(signal.SIGCONT)
        elif what == "kill one" and self.processes > 1:
            victims = self.service.children()
            if victims:
                os.kill(self.chance.choice(victims), signal.SIGKILL)
        else:
            self.restart(gently=what == "stop")

    def restart(self, *, gently):
        if gently:
            self.service.signal_all(signal.SIGTERM)
            time.sleep(self.chance.uniform(0, 0.3))
        self.service.end()
        done = delivered_in(self.store)
        self.receiver.since.clear()
        self.start()
        self.sender.service = self.service
        time.sleep(self.chance.uniform(0, 0.5))
        again = sorted(done & set(self.receiver.since))
        check(not again, f"{len(again)} deliveries were sent after a recorded success: {again[:3]}")

    def finish(self):
        self.receiver.fails = 0.0
        self.sender.join(60)
        check(not self.sender.is_alive(), "the sender did not come to its end")
        wanted = len(self.sender.accepted) * ENDPOINTS
        end = time.monotonic() + 60
        while (count := len(delivered_in(self.store))) < wanted:
            if time.monotonic() >= end:
                raise BrokenPromiseError(
                    f"only {count} of {wanted} were delivered; {self.told}; the rest: {self.rest()}"
                )
            time.sleep(0.1)
        self.service.signal_all(signal.SIGTERM)
        self.service.process.wait(40)
        return wanted

    def rest(self):
        """What has not been delivered, as far as the store knows."""
        connection = connect_to(self.store)
        try:
            return connection.rows(
                "SELECT e.uid, e.shard, d.message_id, d.state, d.attempts, e.disabled, d.due - m.created "
                "FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id "
                "JOIN message m ON m.id = d.message_id "
                "WHERE d.state <> 0 AND e.uid LIKE 'e%' LIMIT 5"
            )
        finally:
            connection.close()


def play(number, seed, kind, folder):
    """One round. Raises BrokenPromiseError."""
    found = Round(number, seed, kind, folder)
    try:
        found.start()
        found.set_up()
        for _ in range(found.chance.randrange(1, 4)):
            found.disturb()
        wanted = found.finish()
        judge(found.store, found.receiver, wanted, found.told, is_sqlite=found.database is None)
    finally:
        found.close()
    plural = "es" * (found.processes > 1)
    return f"{kind}, {found.processes} process{plural}, {', '.join(found.told)}: {wanted} deliveries"


def judge(store, receiver, wanted, told, *, is_sqlite):
    done = delivered_in(store)
    check(done <= set(receiver.successes), "the store has deliveries that never arrived")
    check(len(done) == wanted, f"{len(done)} of {wanted} are delivered")
    most = max(receiver.successes.values())
    check(most <= 1 + len(told), f"a delivery came {most} times; {told}")
    connection = connect_to(store)
    try:
        check(connection.rows("SELECT count(*) FROM delivery WHERE state = 1")[0][0] == 0, "some are pending")
        gaps = connection.rows(
            "SELECT endpoint_id, message_id FROM attempt GROUP BY endpoint_id, message_id "
            "HAVING max(number) <> count(*)"
        )
        check(not gaps, f"attempts are missing in the log: {gaps[:3]}")
        if is_sqlite:
            check(connection.rows("PRAGMA integrity_check") == [("ok",)], "the file is not whole")
    finally:
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", type=int)
    parser.add_argument("--stores", default="sqlite,sqlite,postgres")
    options = parser.parse_args()
    kinds = [kind for kind in options.stores.split(",") if kind != "postgres" or binary("initdb")]
    print(f"seed {options.seed}", flush=True)
    numbers = range(options.rounds) if options.only is None else [options.only]
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="yelpaze-hooks-") as name:
            folder = Path(name)
            try:
                said = play(number, options.seed, kinds[number % len(kinds)], folder)
            except BrokenPromiseError as error:
                print((folder / "log").read_text()[-3000:])
                sys.exit(f"round {number} of seed {options.seed}: {error}")
            print(f"{number}: {said}", flush=True)


if __name__ == "__main__":
    main()
