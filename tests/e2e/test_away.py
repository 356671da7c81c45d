"""A service that goes away in the middle of a run, for a minute or for good."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support.demo import flow_file, lines, start_demo, stop
from support.service import YELPAZE

FLOW = """
flow = Flow("ping", engine={"concurrency": 400, "limit": Limit(concurrency=400, rate="3000/s")})

@flow.request
def ping(row: int):
    return get(f"{SHOP}/ping?{row}")

@flow.compute
def number(ping, row: int):
    return row
"""


def start_run(tmp_path: Path, shop: str, rows: int, *flags: str) -> subprocess.Popen:
    head = f"from yelpaze import Limit\nSHOP = {shop!r}\n"
    flow = flow_file(tmp_path, head + FLOW)
    (tmp_path / "rows.jsonl").write_text("".join(f"{number}\n" for number in range(rows)))
    return subprocess.Popen(
        [*YELPAZE, "run", str(flow), "rows.jsonl", "--workers", "0", "--log", "log.jsonl", *flags],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def restart(shop: str) -> subprocess.Popen:
    address = re.sub(r"^http://", "", shop)
    process = subprocess.Popen(
        [sys.executable, "-m", "yelpaze.cli.main", "demo", "serve", "--listen", address], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stderr.readline()
    return process


def wait_for_results(path: Path, count: int) -> None:
    for _ in range(2400):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the run has not begun")


@pytest.mark.slow
def test_a_minute_away_costs_no_row(tmp_path):
    shop_process, shop = start_demo()
    run = start_run(tmp_path, shop, 50_000)
    wait_for_results(tmp_path / "rows.results.jsonl", 5_000)
    shop_process.send_signal(signal.SIGKILL)
    shop_process.wait()
    shop_process.stderr.close()
    time.sleep(60)  # the minute itself
    shop_process = restart(shop)
    try:
        _, said = run.communicate(timeout=400)
    finally:
        stop(shop_process)
    assert run.returncode == 0, said
    assert "away for" in said
    assert {result["row"] for result in lines(tmp_path / "rows.results.jsonl")} == set(range(1, 50_001))
    events = Counter(record["event"] for record in lines(tmp_path / "log.jsonl"))
    assert events["breaker.open"] >= 1
    assert events["breaker.closed"] == 1


@pytest.mark.slow
def test_one_that_never_comes_back_ends_the_run(tmp_path):
    shop_process, shop = start_demo()
    run = start_run(tmp_path, shop, 20_000, "--park", "8")
    wait_for_results(tmp_path / "rows.results.jsonl", 3_000)
    shop_process.send_signal(signal.SIGKILL)
    shop_process.wait()
    shop_process.stderr.close()
    began = time.monotonic()
    _, said = run.communicate(timeout=400)
    assert time.monotonic() - began < 300
    assert run.returncode == 1, said
    results, failures = (lines(tmp_path / f"rows.{name}.jsonl") for name in ("results", "results.failures"))
    assert len(results) + len(failures) == 20_000
    assert {failure["error"]["kind"] for failure in failures} == {"host_down"}
    assert os.path.getsize(tmp_path / "log.jsonl")
