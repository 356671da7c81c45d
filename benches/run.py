"""`make bench`: every scenario, Yelpaze and its rivals by turns, into benches/RESULTS.md.

    python benches/run.py [--only SECTION] [--rounds N] [--scale SHARE]

nginx serves, pinned to the last core; engine clients are pinned to the first. Flows and
memory use all cores, as `yelpaze run` does. gRPC's and the gateway's scenarios have servers of their own:
grpc/ and live/.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import gateway
import policies
import serving
import trustme

HERE = Path(__file__).parent
SECTIONS = (
    *("engine", "flow", "memory", "policies", "effect", "fetch", "runs"),
    *("scale", "empty", "balance", "killed", "worker_http"),
    *("live_idle", "live_fanout", "live_hundred", "live_accept"),
)
BODY = '{"data":{"items":[1,2,3,4,5]}}'
CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
worker_rlimit_nofile 12000;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600; default_type application/json;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  server {{ listen 127.0.0.1:{plain} backlog=4096; location / {{ return 200 '{body}'; }} }}
  server {{ listen 127.0.0.1:{tls} ssl backlog=4096; location / {{ return 200 '{body}'; }} }}
  server {{ listen 127.0.0.1:{http2} ssl http2 backlog=4096; location / {{ return 200 '{body}'; }} }}
}}
"""
ALL = ("yelpaze", "aiohttp", "httpx", "pyreqwest", "pycurl", "wrk")
# name, server, connections, calls, HTTP/2, a new connection each, clients
ENGINE = (
    ("plain, 64 connections", "plain", 64, 40_000, False, False, ALL),
    ("TLS, 64 connections", "tls", 64, 40_000, False, False, ALL),
    ("TLS, 1,000 connections", "tls", 1000, 40_000, False, False, ("yelpaze", "aiohttp", "pyreqwest", "pycurl", "wrk")),
    ("plain, 1,000 connections", "plain", 1000, 40_000, False, False, ("yelpaze", "aiohttp", "pyreqwest", "pycurl", "wrk")),
    ("HTTP/2 over TLS, 1,000 at once", "http2", 1000, 20_000, True, False, ("yelpaze", "pyreqwest", "pycurl")),
    ("HTTP/2 over TLS, 64 at once", "http2", 64, 20_000, True, False, ("yelpaze", "httpx", "pyreqwest", "pycurl")),
    ("a new TLS connection each, 64", "tls", 64, 2_000, False, True, ("yelpaze", "aiohttp", "httpx", "pyreqwest", "pycurl")),
)  # fmt: skip
# httpx takes minutes where the others take seconds; its calls are fewer, the measure the same.
FEWER = {"httpx": 8}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        (folder / "cert.pem").write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
        self.ports = {name: free_port() for name in ("plain", "tls", "http2")}
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, body=BODY, **self.ports))
        self.ca_file = str(folder / "ca.pem")
        core = max(os.sched_getaffinity(0))
        command = ["taskset", "-c", str(core), "nginx", "-c", str(folder / "nginx.conf")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for port in self.ports.values():
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)

    def url(self, name: str) -> str:
        return f"{'http' if name == 'plain' else 'https'}://127.0.0.1:{self.ports[name]}/"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def first_core() -> list[str]:
    return ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def run_client(client: str, task: dict) -> dict:
    if client == "wrk":
        return run_wrk(task)
    command = [
        *first_core(),
        sys.executable,
        str(HERE / "clients" / f"{client}_client.py"),
        json.dumps(task),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():  # a client that crashes on its way out has measured all the same
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"{client}: {done.stderr}")


def run_wrk(task: dict) -> dict:
    command = [*first_core(), "wrk", "-t1", f"-c{task['connections']}", "-d3s", task["url"]]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    calls = next(int(line.split()[0]) for line in done.stdout.splitlines() if "requests in" in line)
    return {"cpu_us": cpu / calls * 1e6, "rate": calls / 3, "peak_mb": 0.0}


def engine(server: Server, rounds: int, scale: float) -> list[str]:
    lines = []
    for name, kind, connections, count, http2, fresh, clients in ENGINE:
        figures: dict[str, list[dict]] = {client: [] for client in clients}
        for _ in range(rounds):
            for client in clients:
                task = {
                    "url": server.url(kind),
                    "count": max(connections, int(count * scale) // FEWER.get(client, 1)),
                    "connections": connections,
                    "ca_file": server.ca_file,
                    "http2": http2,
                    "fresh": fresh,
                }
                figures[client].append(run_client(client, task))
                print(f"{name}: {client}: {figures[client][-1]}", file=sys.stderr)
        lines += [
            "",
            f"### {name}",
            "",
            "| client | CPU µs a request | requests/s | Yelpaze's CPU against it |",
            "|---|--:|--:|--:|",
        ]
        for client in clients:
            cpu = statistics.median(figure["cpu_us"] for figure in figures[client])
            rate = statistics.median(figure["rate"] for figure in figures[client])
            # Pair by pair, so that a machine that changes speed changes both.
            ratio = statistics.median(
                ours["cpu_us"] / theirs["cpu_us"]
                for ours, theirs in zip(figures["yelpaze"], figures[client], strict=True)
            )
            shown = "" if client == "yelpaze" else f"{ratio:.2f}"
            lines.append(f"| {client} | {cpu:.1f} | {rate:,.0f} | {shown} |")
    return lines


def yelpaze_run(folder: Path, rows: int, url: str, flow: Path) -> dict:
    path = folder / f"{rows}.jsonl"
    if not path.exists():
        with path.open("w") as file:
            file.writelines(f'{{"n":{number}}}\n' for number in range(rows))
    command = [
        sys.executable,
        "-m",
        "yelpaze.cli.main",
        "run",
        str(flow),
        str(path),
        "-q",
        "--json",
        "--restart",
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "BENCH_URL": url, "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def flow(server: Server, folder: Path, rounds: int, scale: float) -> list[str]:
    url, here = server.url("plain"), HERE / "flow"
    ours, plain, stage = [], [], []
    for _ in range(rounds):
        ours.append(yelpaze_run(folder, int(60_000 * scale), url, here / "flow.py")["rows_per_second"])
        environment = {**os.environ, "BENCH_URL": url}
        command = [sys.executable, str(here / "plain.py"), str(int(5_000 * scale))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        plain.append(json.loads(done.stdout)["rows_per_second"])
        command = [sys.executable, str(here / "stage.py"), str(int(60_000 * scale))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        stage.append(json.loads(done.stdout))
        print(f"flow: {ours[-1]:.0f} against {plain[-1]:.0f}; stage {stage[-1]}", file=sys.stderr)
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    return [
        "",
        "| way | rows/s |",
        "|---|--:|",
        f"| `yelpaze run` | {statistics.median(ours):,.0f} |",
        f"| plain asyncio | {statistics.median(plain):,.0f} |",
        "",
        f"Yelpaze runs **{ratio:.1f} times** as many rows a second.",
        f"A row with nothing but an empty CPU step costs **{median_of(stage, 'row_us'):.1f} µs** of CPU over",
        f"all processes, everything included; {median_of(stage, 'inline_us'):.1f} µs with the step inline.",
    ]


def median_of(figures: list[dict], name: str) -> float:
    return statistics.median(figure[name] for figure in figures)


def memory(server: Server, folder: Path, scale: float) -> list[str]:
    lines = ["", "| rows | peak RSS, all processes | rows/s |", "|--:|--:|--:|"]
    for rows in (10_000, 100_000, 1_000_000):
        count = int(rows * scale)
        summary = yelpaze_run(folder, count, server.url("plain"), HERE / "flow" / "flow.py")
        lines.append(f"| {count:,} | {summary['peak_rss_mb']:.0f} MB | {summary['rows_per_second']:,.0f} |")
        print(f"memory: {lines[-1]}", file=sys.stderr)
    return lines


NEVER = "1e9"  # seconds: no commit before the end


def runs(server: Server, folder: Path, rounds: int, scale: float) -> list[str]:
    """What commits cost, how the formats compare, and how soon a run goes on."""
    environment = {**os.environ, "BENCH_URL": server.url("plain"), "XDG_STATE_HOME": str(folder)}
    count = str(int(60_000 * scale))

    def rate(output: str, seconds: str) -> float:
        command = [sys.executable, str(HERE / "runs" / "commit.py"), count, output, seconds]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"runs: {output}, a commit every {seconds} s: {done.stdout.strip()}", file=sys.stderr)
        return json.loads(done.stdout)["rows_per_second"]

    with_journal, without, csv, parquet, sqlite = [], [], [], [], []
    for _ in range(rounds):
        with_journal.append(rate("a.jsonl", "1"))
        without.append(rate("b.jsonl", NEVER))
        csv.append(rate("c.csv", "1"))
        parquet.append(rate("d.parquet", "1"))
        sqlite.append(rate("e.db", "1"))

    def ratio(ours: list[float], other: list[float]) -> str:
        return f"{statistics.median(a / b for a, b in zip(ours, other, strict=True)):.2f}"

    lines = [
        "",
        "| output, commits | rows/s | against the first line |",
        "|---|--:|--:|",
        f"| JSONL, once a second | {statistics.median(with_journal):,.0f} | |",
        f"| JSONL, none before the end | {statistics.median(without):,.0f} | {ratio(without, with_journal)} |",
        f"| CSV, once a second | {statistics.median(csv):,.0f} | {ratio(csv, with_journal)} |",
        f"| Parquet, once a second | {statistics.median(parquet):,.0f} | {ratio(parquet, with_journal)} |",
        f"| SQLite, once a second | {statistics.median(sqlite):,.0f} | {ratio(sqlite, with_journal)} |",
    ]
    return [*lines, "", *resumed(folder, environment, int(1_000_000 * scale))]


def resumed(folder: Path, environment: dict, count: int) -> list[str]:
    path, note, start = folder / f"{count}.jsonl", folder / "first-call", count * 9 // 10
    if not path.exists():
        with path.open("w") as file:
            file.writelines(f'{{"n":{number}}}\n' for number in range(count))
    command = [
        sys.executable,
        "-m",
        "yelpaze.cli.main",
        "run",
        str(HERE / "runs" / "late.py"),
        str(path),
        "-q",
    ]
    environment = {**environment, "FROM": str(start), "NOTE": str(note)}
    subprocess.run(
        [*command, "-o", "late.jsonl", "--limit", str(start)], cwd=folder, env=environment, check=True
    )
    began = time.time()
    subprocess.run(
        [*command, "-o", "late.jsonl", "--limit", str(start + 1000)], cwd=folder, env=environment, check=True
    )
    seconds = float(note.read_text()) - began
    print(f"runs: resumed after {seconds:.2f} s", file=sys.stderr)
    return [
        f"A run with {start:,} of {count:,} rows done, started again, makes its first new call after "
        f"**{seconds:.2f} s**, the start of Python included."
    ]


def about() -> str:
    packages = ("aiohttp", "uvloop", "httpx", "pyreqwest", "pycurl", "grpcio", "grpclib", "mosec")
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{model}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    if not shutil.which("nginx") or not shutil.which("wrk"):
        raise SystemExit("the benches need nginx and wrk: make servers")
    arguments.output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder)
        sections = {
            "engine": lambda: engine(server, arguments.rounds, arguments.scale),
            "flow": lambda: flow(server, folder, arguments.rounds, arguments.scale),
            "memory": lambda: memory(server, folder, arguments.scale),
            "runs": lambda: runs(server, folder, arguments.rounds, arguments.scale),
            "policies": lambda: policies.cost(
                server.url("tls"), server.ca_file, arguments.rounds, arguments.scale
            ),
            "effect": lambda: policies.effect(arguments.rounds),
            "fetch": lambda: policies.fetch(
                server.url("plain"), server.url("tls"), server.ca_file, arguments.rounds
            ),
            "scale": lambda: serving.scale(arguments.rounds, arguments.scale),
            "empty": lambda: serving.empty(arguments.rounds, arguments.scale),
            "balance": lambda: serving.balance(arguments.rounds, arguments.scale),
            "killed": lambda: serving.killed(arguments.scale),
            "worker_http": lambda: serving.worker_http(arguments.rounds, arguments.scale),
            "live_idle": lambda: gateway.idle(arguments.scale),
            "live_fanout": lambda: gateway.fanout(arguments.rounds, arguments.scale),
            "live_hundred": lambda: gateway.hundred(arguments.scale),
            "live_accept": lambda: gateway.accept(arguments.rounds, arguments.scale),
        }
        try:
            for section, measure in sections.items():
                if arguments.only in (None, section):
                    (arguments.output / f"{section}.md").write_text("\n".join(measure()).strip() + "\n")
        finally:
            server.stop()
    write_results(arguments.output)


def write_results(folder: Path) -> None:
    """Put the sections under their text in RESULTS.md."""
    text = (HERE / "RESULTS.template.md").read_text()
    text = text.replace("{about}", about())
    for section in SECTIONS:
        path = folder / f"{section}.md"
        text = text.replace(f"{{{section}}}", path.read_text() if path.exists() else "Not measured.\n")
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
