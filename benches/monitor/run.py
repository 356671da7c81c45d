"""What a check costs, and what surrounds it: by turns with libcurl alone and with blackbox_exporter.

    python benches/monitor/run.py [--rounds 3] [--only checks,million,bus,fold]

nginx is the site, on all addresses of 127.0.0.0/8; a name server of ours knows 1 % slow, 1 % dead and 1 % nameless
ones besides. Prints the tables of "Monitor" in RESULTS.md. blackbox_exporter is Debian's package.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from farm import address_of, kind_of  # puts tests/ on the path

from support.kafka import Kafka
from support.kafka import is_installed as kafka_is_installed
from support.ports import free_port
from yelpaze import Engine, get
from yelpaze.bus.opening import open_bus
from yelpaze.bus.protocol import NewRecord, Topic
from yelpaze.monitor.evaluate.fold import CheckState, Input, Rules, fold
from yelpaze.monitor.records import Result

HERE = Path(__file__).parent
BLACKBOX = "prometheus-blackbox-exporter"
SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def farm(folder):
    process = subprocess.Popen([sys.executable, HERE / "farm.py", folder], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def settings(folder, ports, count, *, tls, mixed, name):
    numbers = (n for n in range(count * 2) if mixed or kind_of(n) == "good")
    scheme = "https" if tls else "http"
    with (folder / f"{name}.jsonl").open("w") as file:
        for _, number in zip(range(count), numbers, strict=False):
            kind = kind_of(number)
            port = {"slow": ports["slow"], "dead": ports["dead"]}.get(kind, ports["tls" if tls else "plain"])
            url = f"{'http' if kind in ('slow', 'dead') else scheme}://s{number}.farm.test:{port}/"
            file.write(json.dumps({"name": f"s{number}", "url": url}) + "\n")
    client = {"timeout": "5s", "dns-resolver": f"udp://127.0.0.1:{ports['dns']}"}
    if tls:
        client["tls"] = {"ca-file": str(folder / "ca.pem")}
    defaults = {"interval": "10s", "conditions": ["[STATUS] == 200"], "client": client}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"defaults": defaults, "targets": [{"file": f"{name}.jsonl"}]}))
    return path


def asked(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


async def blackbox(folder, ports, count, *, tls):
    """CPU µs a probe, and how many a second."""
    module = {"prober": "http", "timeout": "5s", "http": {"preferred_ip_protocol": "ip4"}}
    if tls:
        module["http"]["tls_config"] = {"ca_file": str(folder / "ca.pem"), "server_name": "s.farm.test"}
    (folder / "blackbox.yaml").write_text(json.dumps({"modules": {"m": module}}))
    port, file = free_port(), folder / "blackbox.yaml"
    command = [
        BLACKBOX,
        f"--config.file={file}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            async with Engine(retry=None, breaker=None, timeout=30.0) as engine:
                while not (await engine.send(get(f"http://127.0.0.1:{port}/-/healthy"))).ok:
                    await asyncio.sleep(0.1)
                scheme, site = ("https", ports["tls"]) if tls else ("http", ports["plain"])
                targets = [
                    f"http://127.0.0.1:{port}/probe?module=m&target={scheme}://{address_of(n)}:{site}/"
                    for n in range(count)
                ]
                used, began, good = cpu_of(process.pid), time.perf_counter(), 0
                for start in range(0, count, 64):
                    outcomes = await asyncio.gather(
                        *(engine.send(get(one)) for one in targets[start : start + 64])
                    )
                    good += sum("probe_success 1" in one.text for one in outcomes)
                wall, used = time.perf_counter() - began, cpu_of(process.pid) - used
        finally:
            process.terminate()
    assert good == count, f"{good} of {count} were good"
    return {"rate": count / wall, "cpu_us": used / count * 1e6}


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def middle(found, name):
    return statistics.median(one[name] for one in found)


def checks(folder, ports, rounds):
    ways = {}
    for _ in range(rounds):
        for tls, count in ((False, 20_000), (True, 7_000)):
            scheme = "TLS" if tls else "plain"
            ca = [folder / "ca.pem"] if tls else []
            site = settings(folder, ports, count, tls=tls, mixed=True, name=f"mixed-{scheme}")

            def add(way, found, scheme=scheme):
                ways.setdefault((scheme, way), []).append(found)

            add("libcurl alone", asked(HERE / "bare.py", ports["tls" if tls else "plain"], count, *ca))
            if shutil.which(BLACKBOX):
                add("blackbox_exporter", uvloop.run(blackbox(folder, ports, count // 4, tls=tls)))
            add("probe", asked(HERE / "ours.py", site, SECONDS, "probe"))
            add("probe, store, evaluate", asked(HERE / "ours.py", site, SECONDS, "store,evaluate,probe"))
    print("| sites | what | checks/s | CPU µs a check | against libcurl | lateness p99 | false alarms |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (scheme, way), found in ways.items():
        pairs = zip(found, ways[scheme, "libcurl alone"], strict=True)
        ratio = statistics.median(one["cpu_us"] / bare["cpu_us"] for one, bare in pairs)
        late = f"{middle(found, 'late_p99_ms'):.0f} ms" if "late_p99_ms" in found[0] else ""
        alarms = f"{sum(one['false_alarms'] for one in found)}" if "false_alarms" in found[0] else ""
        rate, cpu = middle(found, "rate"), middle(found, "cpu_us")
        print(f"| {scheme} | {way} | {rate:,.0f} | {cpu:.0f} | {ratio:.1f} | {late} | {alarms} |")


def million(folder, ports):
    code = (
        "import sys,time,resource,json; from pathlib import Path\n"
        "from yelpaze.monitor.config.loading import load_monitor\n"
        "peak = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) / 1024\n"
        "before, began = peak(), time.perf_counter()\n"
        "config = load_monitor([Path(sys.argv[1])])\n"
        "print(json.dumps({'count': len(config.checks), 's': time.perf_counter() - began, 'mb': peak() - before}))\n"
    )
    print("| checks in the file | read in | bytes a check |")
    print("|---|--:|--:|")
    for count in (10_000, 1_000_000):
        path = settings(folder, ports, count, tls=False, mixed=True, name="million")
        found = asked("-c", code, path)
        print(f"| {found['count']:,} | {found['s']:.1f} s | {found['mb'] * 2**20 / found['count']:,.0f} |")


async def bus_rates(url, count):
    topic = Topic(f"bench{time.time_ns()}", 8)
    records = [NewRecord(f"k{n % 5000}", b"x" * 300) for n in range(1000)]
    async with open_bus(url) as bus:
        await bus.create([topic])
        began = time.perf_counter()
        for _ in range(count // 1000):
            await bus.publish(topic.name, records)
        published, began = time.perf_counter() - began, time.perf_counter()
        left = count
        async with bus.consume([topic.name], topic.name) as consumer:
            while left:
                found, ack = await consumer.read(5000, 1.0)
                left -= len(found)
                if found:
                    await ack()
        return count / published, count / (time.perf_counter() - began)


def bus(folder, _):
    print("| bus, records of 300 bytes | published/s | read/s |")
    print("|---|--:|--:|")
    rates = [uvloop.run(bus_rates(str(folder / f"bus{n}.db"), 100_000)) for n in range(3)]
    print(
        f"| SQLite | {statistics.median(r[0] for r in rates):,.0f} | {statistics.median(r[1] for r in rates):,.0f} |"
    )
    if kafka_is_installed():
        kafka = Kafka()
        try:
            rates = [uvloop.run(bus_rates(f"kafka://{kafka.bootstrap}", 100_000)) for _ in range(3)]
        finally:
            kafka.close()
        middles = [statistics.median(rate[n] for rate in rates) for n in (0, 1)]
        print(f"| Kafka, one broker | {middles[0]:,.0f} | {middles[1]:,.0f} |")


def folds(*_):
    rules = Rules("a", 10_000, 0, 30_000, 1, (3,), (2,))
    count, found = 200_000, []
    for share in (0, 100):  # of a hundred, how many fail
        state, began = CheckState(), time.process_time()
        for n in range(count):
            result = Result(
                check="a", location="x", slot=n * 10_000, sent=n * 10_000, success=n % 100 >= share
            )
            fold(state, Input(result, n * 10_000), rules)
        found.append(count / (time.process_time() - began))
    print(f"The fold alone: {found[0]:,.0f} good results/s on one core, {found[1]:,.0f} bad ones.")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="checks,million,bus,fold")
    given = parser.parse_args()
    parts = given.only.split(",")
    with tempfile.TemporaryDirectory() as name, farm(Path(name)) as ports:
        folder = Path(name)
        if "checks" in parts:
            checks(folder, ports, given.rounds)
        for part, work in (("million", million), ("bus", bus), ("fold", folds)):
            if part in parts:
                print(flush=True)
                work(folder, ports)


if __name__ == "__main__":
    main()
