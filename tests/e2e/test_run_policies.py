"""Policies of flows, and by the flags of `yelpaze run`."""

import asyncio
import json
import subprocess
import time

import pytest

import yelpaze
from support.demo import flow_file, lines
from support.service import YELPAZE
from yelpaze import Flow, MisuseError, Retry, get
from yelpaze.testing import MockTransport, Reply, run_simulated

PING = """
flow = Flow("ping", engine={"hosts": {}})

@flow.request
def ping(row: int):
    return get(f"{SHOP}/ping?{row}")
"""


SHOP_FLAGS = (
    "--rate-limit",
    "0",
)


def run(tmp_path, shop, *flags, rows=10, body=PING):
    flow = flow_file(tmp_path, f"SHOP = {shop!r}\n{body}")
    (tmp_path / "rows.jsonl").write_text("".join(f"{number}\n" for number in range(rows)))
    return subprocess.run(
        [*YELPAZE, "run", str(flow), "rows.jsonl", "--workers", "0", *flags],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_rate_by_flag(tmp_path, shop):
    began = time.monotonic()
    done = run(tmp_path, shop, "--rate", "20/s", rows=11)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began >= 0.45


def test_explain_reads_the_flow_and_the_flags(tmp_path, shop):
    body = PING.replace('"hosts": {}', '"hosts": {"*.test": HostPolicy(limit=Limit(rate="5/s"), share=0.2)}')
    done = run(
        tmp_path,
        shop,
        "--explain",
        "--retries",
        "4",
        "--deadline",
        "9",
        body=f"from yelpaze import HostPolicy, Limit\n{body}",
    )
    assert done.returncode == 0, done.stderr
    assert "*.test  (20% of the requests)" in done.stdout
    assert "5/s with a burst of 1" in done.stdout
    assert "any other host" in done.stdout
    assert done.stdout.count("5 attempts") == 2
    assert done.stdout.count("9 s for a whole call") == 2
    assert not (tmp_path / "rows.results.jsonl").exists()


def test_a_pattern_that_matches_nothing_is_a_warning(tmp_path, shop):
    done = run(tmp_path, shop, "--host-policy", "nobody.test:retries=1")
    assert done.returncode == 0
    assert "'nobody.test' matched no host" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate", "0/s"], "above 0"),
        (["--rate", "fast"], "not a rate: 'fast'"),
        (["--rate", "7"], "not a rate: '7'"),
        (["--timeout", "-1"], "above 0"),
        (["--deadline", "nan"], "above 0"),
        (["--park", "0"], "above 0"),
        (["--retries", "-1"], "-1"),
        (["--per-host", "0"], "nor auto"),
        (["--host-policy", "x"], "HOST:KEY=VALUE"),
        (["--host-policy", "x:share=2"], "share is a part"),
        (["--metrics", "99999"], "--metrics takes PORT"),
        (["--log", "no/such/folder"], "cannot be written"),
    ],
)
def test_wrong_flags_get_one_clear_message(tmp_path, shop, flags, message):
    done = run(tmp_path, shop, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_deadline_bounds_calls_and_their_retries(tmp_path, shop):
    body = PING.replace("engine={", "deadline=0.4, engine={").replace(
        "ping?{row}", "ping?fault={('stall', '500')[row % 2]}"
    )
    done = run(tmp_path, shop, "--no-breaker", "--json", "-q", rows=6, body=body)
    assert done.returncode == 1
    failures = lines(tmp_path / "rows.results.failures.jsonl")
    assert {failure["error"]["kind"] for failure in failures if failure["input"] % 2 == 0} == {
        "timeout.deadline"
    }
    assert json.loads(done.stdout)["seconds"] < 30


SLEEP = """
import time
flow = Flow("slow", deadline=2)

@flow.compute
def sleep(row: int):
    time.sleep(row * 20)
    return row
"""


def test_a_row_deadline_reaches_cpu_steps(tmp_path, shop):
    done = run(tmp_path, shop, "--workers", "1", rows=2, body=SLEEP)
    assert done.returncode == 1
    (failure,) = lines(tmp_path / "rows.results.failures.jsonl")
    assert (failure["row"], failure["error"]["kind"]) == (2, "timeout.compute")


def test_a_step_has_a_retry_of_its_own(shop):
    flow = Flow("patient", engine={"breaker": None})

    @flow.request(retry=Retry(attempts=5, base=0.01))
    def ping(row):
        return get(f"{shop}/ping?fault=500")

    (result,) = yelpaze.run(flow, [1])
    assert len(result.failure.attempts) == 5


@pytest.mark.parametrize("deadline", [0, -1, "soon"])
def test_a_row_deadline_that_makes_no_sense_is_refused(deadline):
    with pytest.raises(MisuseError, match="deadline"):
        Flow("x", deadline=deadline)


def test_a_row_deadline_in_simulated_time():
    """Handed down: what is left of it is all that a later step gets."""
    flow = Flow("two", deadline=0.6)

    @flow.request
    def first(row):
        return get("http://10.0.0.1/first")

    @flow.request
    def second(first):
        return get("http://10.0.0.1/second")

    async def main():
        (result,) = await flow.run([1], engine={"transport": MockTransport({"*": Reply(json={}, delay=0.4)})})
        return result, asyncio.get_running_loop().time()

    result, now = run_simulated(main())
    assert result.failure.step == "second"
    assert result.failure.kind == "timeout.deadline"
    assert now - 1000 == pytest.approx(0.6)
