"""Deliveries: `yelpaze.Hooks`, durable and signed, against the plain way, which keeps nothing.

    python benches/hooks.py [--rounds N] [--only SCENARIO]

nginx receives, on all addresses of 127.0.0.0/8; what hangs or is slow is a process of ours. Everything shares the
machine's cores. The plain way is what people write first: aiohttp on uvloop, a semaphore of 15, gather, one
message after the other; it signs nothing, stores nothing and tries nothing again. `wrk` posts to the API.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from yelpaze import Hooks
from yelpaze.hooks.context import Access
from yelpaze.hooks.delivery.claims import Claim, claim_due
from yelpaze.hooks.log import applications, endpoints
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.tables import DELIVERY, MESSAGE
from yelpaze.hooks.values import ApplicationIn, EndpointIn, MessageIn
from yelpaze.process.garbage import run_gc_less_often

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.ports import free_port  # noqa: E402  it is found only now
from support.postgres import Postgres  # noqa: E402

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
BODY = b'{"type":"order.completed","data":{"text":"' + b"x" * 300 + b'"}}'
PER_APP = 10
SETTINGS = {"allow": ["127.0.0.0/8"], "max_backlog": 10_000_000, "concurrency": 1024, "encryption_key": KEY}
CONFIG = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/log crit; worker_rlimit_nofile 20000;
user root; events {{ worker_connections 15000; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 0.0.0.0:{port} backlog=8192; location / {{ return 200 "ok"; }}
    location /busy {{ add_header Retry-After 5 always; return 429; }} }} }}
"""


def raise_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def addresses(hosts):
    return [f"127.1.{host // 250}.{host % 250 + 1}" for host in range(hosts)]


def p95(values):
    return sorted(values)[int(len(values) * 0.95)] if values else 0


# ── in processes of their own ───────────────────────────────────────────────────


async def bad_receiver(port):
    """/dead never answers; /slow does after two seconds."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                await asyncio.sleep(3600 if b" /dead" in head else 2)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", port, backlog=8192)
    await server.serve_forever()


async def plain(task):

    urls = [f"http://{ip}:{task['port']}/{n}" for n, ip in cycled(task)]
    semaphore = asyncio.Semaphore(15)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:

        async def post(url):
            async with semaphore, session.post(url, data=BODY, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200

        async def message(number):
            first = number * PER_APP % len(urls)
            await asyncio.gather(*(post(url) for url in urls[first : first + PER_APP]))

        await everything(message, len(urls) // PER_APP)  # a warm-up: each endpoint once
        began, cpu = time.perf_counter(), cpu_seconds()
        await everything(message, task["messages"])
        wall = time.perf_counter() - began
        return {
            "rate": task["messages"] * PER_APP / wall,
            "cpu_us": (cpu_seconds() - cpu) / task["messages"] * 1e5,
        }


async def everything(message, count):
    """As many messages at once as the semaphore can use."""
    numbers = iter(range(count))

    async def sender():
        for number in numbers:
            await message(number)

    await asyncio.gather(*(sender() for _ in range(8)))


def cycled(task):
    hosts = addresses(task["hosts"])
    return [(number, hosts[number % len(hosts)]) for number in range(task["endpoints"])]


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def set_up(hooks, urls):
    """Applications with ten endpoints each."""

    for start in range(0, len(urls), 1000):

        def make(session, start=start):
            for first in range(start, min(start + 1000, len(urls)), PER_APP):
                given = ApplicationIn(name="x", uid=f"app{first // PER_APP}")
                app, _ = applications.create_application(session, hooks.context, given)
                for url in urls[first : first + PER_APP]:
                    endpoints.create_endpoint(session, hooks.context, app, EndpointIn(url=url))

        await hooks.write(make)


def new_message(number):

    given = MessageIn(event_type="order.completed", payload=msgspec.Raw(BODY))
    return NewMessage(f"app{number}", Access(), given)


async def deliver(hooks, apps, count):
    """Send so many messages, as fast as they are delivered; wait until all of them are in the log."""
    dispatcher = hooks.dispatcher
    before = dispatcher.counters.delivered.count
    numbers = iter(range(count))

    async def sender():
        for number in numbers:
            while dispatcher.backlog + dispatcher.unwritten > 4000:
                await asyncio.sleep(0.005)
            await hooks.accept(new_message(number % apps))

    await asyncio.gather(*(sender() for _ in range(64)))
    while dispatcher.counters.delivered.count - before < count * PER_APP or dispatcher.unwritten:
        await asyncio.sleep(0.005)


async def ours(task):

    urls = [f"http://{ip}:{task['port']}/{n}" for n, ip in cycled(task)]
    async with Hooks(task["store"], settings=SETTINGS) as hooks:
        await set_up(hooks, urls)
        apps = len(urls) // PER_APP
        await deliver(hooks, apps, apps)
        run_gc_less_often()  # as the service does
        began, cpu = time.perf_counter(), cpu_seconds()
        await deliver(hooks, apps, task["messages"])
        wall = time.perf_counter() - began
        return {
            "rate": task["messages"] * PER_APP / wall,
            "cpu_us": (cpu_seconds() - cpu) / task["messages"] * 1e5,
        }


async def steady(task):
    """A fixed rate for some seconds; times from accepted to delivered at the good endpoints, in ms."""

    urls = [f"http://{ip}:{task['port']}/{n}" for n, ip in cycled(task)]
    for number in range(len(urls)):
        if number % 100 < task["dead"]:
            urls[number] = f"http://127.0.0.1:{task['bad']}/dead"
        elif number % 100 < task["dead"] + task["slow"]:
            urls[number] = f"http://127.0.0.1:{task['bad']}/slow"
        elif number % 100 < task["dead"] + task["slow"] + task["busy"]:
            urls[number] = f"http://127.0.0.1:{task['port']}/busy"
    async with Hooks(task["store"], settings=SETTINGS) as hooks:
        await set_up(hooks, urls)
        if task["backlog"]:
            await add_backlog(hooks, task)
        apps, rate, seconds = len(urls) // PER_APP, task["rate"] / PER_APP, task["seconds"]
        began, sending = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            ahead = began + number / rate - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            sending.append(asyncio.ensure_future(hooks.accept(new_message(number % apps))))
        await asyncio.sleep(2)
        rows = await hooks.read(
            lambda session: session.rows(
                "SELECT a.at + a.duration - m.created FROM attempt a JOIN message m ON m.id = a.message_id "
                "WHERE a.state = 0 AND a.url LIKE ? AND a.url NOT LIKE '%/busy' AND m.created > ?",
                f"%:{task['port']}/%",
                int((time.time() - seconds) * 1000),
            )
        )
        times = [row[0] for row in rows]
        found = {
            "p50": statistics.median(times),
            "p95": p95(times),
            "p99": sorted(times)[int(len(times) * 0.99)],
        }
        return {**found, "delivered": len(times), **(await claim_times(hooks) if task["backlog"] else {})}


async def add_backlog(hooks, task):
    """So many due deliveries of one dead endpoint."""

    def make(session):
        app, _ = applications.create_application(session, hooks.context, ApplicationIn(name="d", uid="dead"))
        return endpoints.create_endpoint(
            session, hooks.context, app, EndpointIn(url=f"http://127.0.0.1:{task['bad']}/dead", uid="dead")
        ).id

    dead = await hooks.write(make)
    accepted = (await hooks.accept(new_message(0))).message
    now = hooks.context.now()
    for start in range(0, task["backlog"], 10_000):
        ids = [f"{accepted.id}{n}" for n in range(start, start + 10_000)]
        messages = [msgspec.structs.astuple(msgspec.structs.replace(accepted, id=one)) for one in ids]
        rows = [(dead, one, 1, now - 1000, 0, 0, 0, 0) for one in ids]

        def add(session, messages=messages, rows=rows):
            session.insert(MESSAGE, messages)
            session.insert(DELIVERY, rows)

        await hooks.write(add)
    hooks.changed(dead)


async def claim_times(hooks):

    rows = await hooks.read(
        lambda session: session.rows("SELECT id FROM endpoint ORDER BY uid DESC LIMIT 50")
    )
    found = {}
    for name, ids in (("dead", [row[0] for row in rows[:1]]), ("others", [row[0] for row in rows[1:]])):
        times = []
        for endpoint_id in ids * (50 if name == "dead" else 1):

            def claim(session, endpoint_id=endpoint_id):
                began = time.perf_counter()
                claim_due(session, [Claim(endpoint_id, 100)], hooks.context.now())
                return time.perf_counter() - began

            times.append(await hooks.write(claim) * 1000)
        found[f"claim_{name}_ms"] = statistics.median(times)
    return found


async def group_commit(task):
    """Messages accepted in a second while a commit takes 5 ms, by one sender and by 256."""

    async with Hooks(task["store"], settings=SETTINGS, deliver=False) as hooks:
        await set_up(hooks, [f"http://127.0.0.1:{task['port']}/{n}" for n in range(PER_APP)])
        connection = hooks._store._connection
        commit = connection.commit

        def slow_commit():
            time.sleep(0.005)
            commit()

        connection.commit = slow_commit
        found = {}
        for senders in (1, 256):
            end = time.perf_counter() + 3
            count = 0

            async def sender(end=end):
                nonlocal count
                while time.perf_counter() < end:
                    await hooks.accept(new_message(0))
                    count += 1

            before = hooks._store.commits
            await asyncio.gather(*(sender() for _ in range(senders)))
            found[f"by {senders}"] = count / 3
            found[f"commits by {senders}"] = (hooks._store.commits - before) / 3
        return found


KINDS = {"plain": plain, "ours": ours, "steady": steady, "group_commit": group_commit}


# ── the scenarios ───────────────────────────────────────────────────────────────


class Machine:
    """nginx, the bad receiver, and PostgreSQL while a scenario needs it."""

    def __init__(self, folder):

        self.folder = folder
        self.port, self.bad = free_port(), free_port()
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=self.port))
        bad = [sys.executable, __file__, "--bad", str(self.bad)]
        self.processes = [
            subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL),
            subprocess.Popen(bad),
        ]
        self.databases = None
        time.sleep(1)

    def store(self, kind):
        if kind == "sqlite":
            return str(Path(tempfile.mkdtemp(dir=self.folder)) / "h.db")

        if self.databases is None:
            self.databases = Postgres()
        return self.databases.new_database()

    def run(self, kind, **task):
        task |= {"port": self.port, "bad": self.bad}
        command = [sys.executable, __file__, "--task", kind, json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        print(kind, {key: task[key] for key in task if key not in ("port", "bad")}, found, file=sys.stderr)
        return found

    def close(self):
        for process in self.processes:
            process.terminate()
            process.wait()
        if self.databases is not None:
            self.databases.close()


def throughput(machine, rounds):
    lines = [
        "",
        "| scenario | way | deliveries/s | CPU µs a delivery | rate against the plain way |",
        "|---|---|--:|--:|--:|",
    ]
    for name, hosts in (("10,000 endpoints on 5,000 addresses", 5000), ("10,000 endpoints on one", 1)):
        figures = {"plain": [], "sqlite": [], "postgres": []}
        for _ in range(rounds):
            for way, found in figures.items():
                size = {"endpoints": 10_000, "hosts": hosts, "messages": 3000}
                if way == "plain":
                    found.append(machine.run("plain", **size))
                else:
                    found.append(machine.run("ours", store=machine.store(way), **size))
        for way, found in figures.items():
            rate = statistics.median(one["rate"] for one in found)
            cpu = statistics.median(one["cpu_us"] for one in found)
            pairs = zip(found, figures["plain"], strict=True)
            ratio = statistics.median(one["rate"] / other["rate"] for one, other in pairs)
            shown = "" if way == "plain" else f"{ratio:.2f}"
            lines.append(f"| {name} | {way} | {rate:,.0f} | {cpu:.0f} | {shown} |")
    return lines


def isolation(machine, rounds):
    lines = ["", "| at 2,000 deliveries/s | p50 | p95 | p99 | p95 against without |", "|---|--:|--:|--:|--:|"]
    none = {"dead": 0, "slow": 0, "busy": 0, "backlog": 0}
    wide, one_host = {"endpoints": 10_000, "hosts": 5000}, {"endpoints": 1000, "hosts": 1}
    for name, size, trouble in (
        ("1 % dead, 5 % slow of 10,000", wide, {"dead": 1, "slow": 5}),
        ("half of 1,000 on one host answer 429", one_host, {"busy": 50}),
        ("500,000 due deliveries of a dead one", wide, {"backlog": 500_000}),
    ):
        figures = {"without": [], "with": []}
        for _ in range(rounds):
            for way, found in figures.items():
                task = {**size, **none, **(trouble if way == "with" else {})}
                found.append(
                    machine.run("steady", store=machine.store("sqlite"), rate=2000, seconds=15, **task)
                )
        for way, found in figures.items():
            values = [statistics.median(one[key] for one in found) for key in ("p50", "p95", "p99")]
            pairs = zip(found, figures["without"], strict=True)
            ratio = statistics.median(one["p95"] / max(1, other["p95"]) for one, other in pairs)
            shown = "" if way == "without" else f"{ratio:.2f}"
            lines.append(f"| {name}: {way} | {' | '.join(f'{one:.0f} ms' for one in values)} | {shown} |")
        if "claim_dead_ms" in figures["with"][0]:
            dead, others = (
                statistics.median(one[f"claim_{key}_ms"] for one in figures["with"])
                for key in ("dead", "others")
            )
            lines.append(
                f"| a claim: of the dead one {dead:.2f} ms, of another {others:.2f} ms |  |  |  |  |"
            )
    return lines


def accepting(machine, _rounds):
    found = machine.run("group_commit", store=machine.store("sqlite"))
    lines = ["", "| accepted, a commit taking 5 ms | messages/s | commits/s |", "|---|--:|--:|"]
    lines += [
        f"| {n} senders | {found[f'by {n}']:,.0f} | {found[f'commits by {n}']:,.0f} |" for n in (1, 256)
    ]
    lines += ["", "| POST to the API, by wrk with 64 connections | messages/s |", "|---|--:|"]
    for kind in ("sqlite", "postgres"):
        for processes in (1, 2):
            lines.append(
                f"| {kind}, {processes} process{'es' * (processes > 1)} | {api(machine, kind, processes):,.0f} |"
            )
    return lines


def api(machine, kind, processes):

    port = free_port()
    environment = {
        **os.environ,
        "YELPAZE_HOOKS__ADMIN_TOKEN": "yt_bench",
        "YELPAZE_HOOKS__ENCRYPTION_KEY": KEY,
        "YELPAZE_HOOKS__ALLOW": "127.0.0.0/8",
    }
    command = [
        sys.executable,
        "-m",
        "yelpaze.cli.main",
        "hooks",
        "serve",
        "-q",
        "--store",
        machine.store(kind),
    ]
    command += ["--listen", f"127.0.0.1:{port}", "--processes", str(processes)]
    script = machine.folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Authorization"] = "Bearer yt_bench"\n'
        f"wrk.body = [==[{json.dumps({'eventType': 'order.completed', 'payload': json.loads(BODY)})}]==]\n"
    )
    service = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/api/v1"
        curl = ["curl", "-sf", "--retry", "20", "--retry-connrefused", "-H", "Authorization: Bearer yt_bench"]
        subprocess.run(
            [*curl, f"{url}/app", "-d", '{"name":"x","uid":"x"}'], check=True, stdout=subprocess.DEVNULL
        )
        wrk = ["wrk", "-t1", "-c64", "-d5s", "-s", str(script), f"{url}/app/x/msg"]
        out = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
        assert "Non-2xx" not in out, out
        return float(next(line.split()[1] for line in out.splitlines() if "Requests/sec" in line))
    finally:
        service.terminate()
        service.wait()


SCENARIOS = {"throughput": throughput, "isolation": isolation, "accepting": accepting}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--task", nargs=2)
    parser.add_argument("--bad", type=int)
    options = parser.parse_args()
    raise_limit()
    if options.bad:
        asyncio.run(bad_receiver(options.bad))
    elif options.task:
        print(json.dumps(uvloop.run(KINDS[options.task[0]](json.loads(options.task[1])))))
    else:
        with tempfile.TemporaryDirectory() as name:
            machine = Machine(Path(name))
            try:
                for scenario, measure in SCENARIOS.items():
                    if options.only in (None, scenario):
                        print("\n".join(measure(machine, options.rounds)), flush=True)
            finally:
                machine.close()


if __name__ == "__main__":
    main()
