"""The examples do what their first lines promise."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing

import grpc
import pytest

from support.examples import EXAMPLES, spelling
from support.ports import free_port
from support.service import YELPAZE
from support.waiting import until
from support.workers import worker


@pytest.fixture
def order_page(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "order_page"))
    import order_page

    return order_page


async def timed_page(order_page, shop, faults):
    loop = asyncio.get_running_loop()
    async with order_page.engine() as engine:
        await order_page.order_page(engine, shop, {})  # connections are there
        began = loop.time()
        page = await order_page.order_page(engine, shop, faults)
        return page, loop.time() - began


async def test_an_order_page_takes_as_long_as_its_slowest_service(order_page, shop, monkeypatch):
    monkeypatch.setattr(order_page, "DEADLINE", 30)
    page, took = await timed_page(order_page, shop, {})
    assert page["complete"]
    assert {part["data"]["service"] for part in page["parts"].values()} == set(order_page.PARTS)
    assert took >= 0.22  # the slowest; the measured figure is in benches/RESULTS.md


async def test_a_dead_and_a_failing_service_leave_a_partial_page(order_page, shop, monkeypatch):
    monkeypatch.setattr(
        order_page, "DEADLINE", 2
    )  # so that the others answer in time, however busy the machine
    page, took = await timed_page(order_page, shop, {"shipping": "fault=stall", "payment": "fault=500"})
    assert not page["complete"]
    assert page["parts"]["customer"]["data"]["status"] == "ok"
    assert page["parts"]["shipping"]["missing"] == "timeout.deadline"
    assert page["parts"]["payment"]["missing"] in ("status", "timeout.deadline")
    assert took < 30  # when no first byte would have ended the attempt: the deadline did


def test_the_page_as_a_fastapi_endpoint(shop, tmp_path):
    port = free_port()
    (tmp_path / "patient.py").write_text("import order_page\norder_page.DEADLINE = 2\nfrom app import app\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / "order_page"), "patient:app", "--port", str(port), "--log-level", "warning"],
        env={**os.environ, "SHOP": shop, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/7") as answer:
            page = json.load(answer)
        assert (page["order"], page["complete"]) == (7, True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/7?order=fault%3Dstall") as answer:
            partial = json.load(answer)
        assert not partial["complete"]
        assert partial["parts"]["order"]["missing"] == "timeout.deadline"
    finally:
        process.terminate()
        process.wait(60)


async def test_bulk_prices_keeps_errors_beside_prices(monkeypatch, shop):
    monkeypatch.syspath_prepend(str(EXAMPLES / "bulk_prices"))
    import bulk_prices

    found = await bulk_prices.prices(shop, bulk_prices.PRODUCTS, rate="2000/s")
    assert list(found) == bulk_prices.PRODUCTS
    assert all(price["currency"] == "EUR" for price in found.values())
    wrong = await bulk_prices.prices(f"{shop}/nothing", ["lamp-001"])
    assert wrong == {"lamp-001": {"error": "status: 404 Not Found"}}


def test_the_same_from_a_shell_script(shop, tmp_path):
    command = tmp_path / "bin" / "yelpaze"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {YELPAZE[0]} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    script = ["sh", str(EXAMPLES / "shell" / "prices.sh"), shop, "prices"]
    for skipped in ("", "500 skipped"):
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert skipped in done.stderr
        assert len(list((tmp_path / "prices").iterdir())) == 500
    assert "lamp-007" in json.loads((tmp_path / "prices/lamp-007.json").read_text())


def test_a_nightly_job(shop, tmp_path):
    command = tmp_path / "bin" / "yelpaze"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {YELPAZE[0]} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "SHOP": shop}
    rows = "".join(f"{n},lamp-{n},2,\n" for n in range(200))
    (tmp_path / "orders.csv").write_text(f"order,sku,quantity,note\n{rows}x,lamp-1,1,\n")
    script = ["sh", str(EXAMPLES / "nightly" / "nightly.sh"), "orders.csv", "orders.db"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # the order x is no number, however often it is tried
    with closing(sqlite3.connect(tmp_path / "orders.db")) as database:
        assert database.execute("SELECT count(*), min(cents) > 0 FROM results").fetchone() == (200, 1)
        assert database.execute("SELECT row, kind FROM results_failures").fetchall() == [(202, "input")]
    assert "<svg" in (tmp_path / "orders.db.html").read_text()


def test_a_spelling_service_in_two_processes_and_its_client():
    with spelling() as (port, _):
        command = [
            sys.executable,
            EXAMPLES / "grpc_service" / "client.py",
            "--server",
            f"grpc://127.0.0.1:{port}",
        ]
        done = subprocess.run(
            [*command, "recieve", "truly", "xyz"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" (process ")[0] for line in done.stdout.splitlines()]
    assert lines == ["recieve: receive, believe, achieve", "truly: truly", "xyz: not known"]


async def test_its_client_from_python(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "grpc_service"))
    import client

    with spelling() as (port, _):
        server = f"grpc://127.0.0.1:{port}"
        replies = await client.correct_text(server, "recieve beleive")
        assert [reply.suggestions[0] for reply in replies] == ["receive", "believe"]
        with pytest.raises(grpc.aio.AioRpcError, match="'two words' is no word"):
            await client.correct(server, ["two words"])


def test_the_examples_generated_code_is_that_of_its_proto(tmp_path):
    folder = EXAMPLES / "grpc_service"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", *outputs, "spelling.proto"]
    subprocess.run(command, check=True, timeout=60)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {name: (folder / name).read_text() for name in made}, "run scripts/protos.sh"
    assert len(made) == 3


def test_loans_at_two_workers_one_of_which_is_killed(tmp_path):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "yelpaze"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yelpaze.cli.main "$@"\n')
    command.chmod(0o755)
    rows = [{"id": n, "amount": 1000 + n, "rate": 0.08} for n in range(3000)]
    (tmp_path / "loans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    path = f"{command.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", EXAMPLES / "remote_workers" / "run.sh", "loans.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "FIRST": first, "SECOND": second},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3000 rows, with one worker killed on the way\n"
    assert not (tmp_path / "two_workers.results.failures.jsonl").exists()


def test_loans_from_a_program():
    folder = EXAMPLES / "remote_workers"
    with worker(folder / "flow.py") as found:
        done = subprocess.run(
            [sys.executable, folder / "from_python.py", found.address],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "one: 299.71 a month"
    assert [line.partition(":")[0] for line in lines[1:6]] == [f"loan {n}" for n in range(1, 6)]
    assert lines[6].startswith("validation: monthly: the argument 'amount' does not fit")


def test_fifty_customers_get_their_order_in_the_end():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "hooks" / "orders.py"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "at once: 40 of 50 arrived" in done.stdout
    assert "after all attempts: 45 of 50 arrived" in done.stdout
    assert "customer-49  fail     after 1 attempt: status: 410 Gone; given up" in done.stdout
    assert "in the end: 50 of 50 arrived" in done.stdout


def outage(*path, timeout):
    """An example of the monitor, after which nothing is left running."""
    done = subprocess.run(
        [sys.executable, EXAMPLES.joinpath("monitor", *path)], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_an_outage_is_told_and_its_end():
    said = outage("outage.py", timeout=100)
    assert said.index("DOWN: shop") < said.index("RESOLVED: shop")


@pytest.mark.slow
def test_the_same_outage_on_kafka_and_postgresql(kafka, postgres):
    """It starts servers of its own; the fixtures say whether these can be."""
    said = outage("kafka", "run.py", timeout=300)
    assert "7 processes" in said
    assert said.index("DOWN: shop") < said.index("RESOLVED: shop")
