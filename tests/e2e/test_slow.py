"""What needs minutes: memory over long inputs, churn of connections and of workers, the tour."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.demo import flow_file, lines
from support.raw import Peer
from support.service import YELPAZE
from yelpaze import Engine, get

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


SHOP_FLAGS = (
    "--error-rate",
    "0.001",
)  # three in a row: once in 2,000 runs of this file


def test_memory_does_not_depend_on_the_inputs_length(shop, tmp_path):
    peaks = []
    for count in (20_000, 120_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(f'{{"url":"{shop}/products/a","json":{{"n":{n}}}}}\n' for n in range(count)))
        done = subprocess.run(
            [*YELPAZE, "run", str(ROOT / "examples/offers/flow.py"), str(path), "--json", "-q"],
            cwd=tmp_path, env={**os.environ, "SHOP": shop}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads(done.stdout)
        assert summary["rows"] == count
        peaks.append(summary["peak_rss_mb"])
    assert peaks[1] <= peaks[0] * 1.1 + 5


async def test_connection_churn_leaks_no_descriptor(raw):
    async def now_and_then_closes(peer: Peer) -> None:
        for _ in range(peer.number % 7 + 1):
            if not await peer.request():
                return
            await peer.answer()
        if peer.number % 3 == 0:
            peer.reset()

    server = await raw(now_and_then_closes)
    async with Engine(concurrency=50, per_host=50) as engine:
        async for outcome in engine.stream(get(server.url) for _ in range(20_000)):
            assert outcome.ok, outcome.error
        transport = engine._core.transport
        assert len(transport._interest) <= 60
        assert len(transport._watched) <= 60
        assert len(os.listdir("/proc/self/fd")) < 300
        assert engine._core.slots.busy == 0


def test_workers_that_keep_dying_lose_only_the_rows_that_kill_them(tmp_path):
    flow_file(
        tmp_path,
        """
        import os, signal
        flow = Flow("poison")

        @flow.compute(timeout=5)
        def risky(row):
            if row % 500 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return row
        """,
    )
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(1, 10_001)))
    done = subprocess.run([*YELPAZE, "run", "flow.py", "in.jsonl", "--workers", "2", "-q"], cwd=tmp_path)
    assert done.returncode == 1
    assert len(lines(tmp_path / "in.results.jsonl")) == 9_980
    failures = lines(tmp_path / "in.results.failures.jsonl")
    assert {line["error"]["kind"] for line in failures} == {"crashed"}
    assert sorted(line["row"] for line in failures) == list(range(500, 10_001, 500))


def test_the_tour():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "tour.py")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "one service dead" in done.stdout
    assert "times as fast" in done.stdout


def test_the_ladder(tmp_path):
    done = subprocess.run(
        [*YELPAZE, "bench", "ladder", "--seconds", "0.3", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["readings"]) == 6
    assert len(result["machines"]) == 3
    assert (tmp_path / "ladder.svg").read_text().startswith("<svg")
