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
from pathlib import Path

import pytest
from test_run import YELPAZE, start_demo, stop, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def shop():
    process, url = start_demo()
    yield url
    stop(process)


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


async def test_an_order_page_takes_as_long_as_its_slowest_service(order_page, shop):
    page, took = await timed_page(order_page, shop, {})
    assert page["complete"]
    assert {part["data"]["service"] for part in page["parts"].values()} == set(order_page.PARTS)
    assert took >= 0.22  # the slowest; the measured figure is in benches/RESULTS.md


async def test_a_dead_and_a_failing_service_leave_a_partial_page(order_page, shop):
    page, took = await timed_page(order_page, shop, {"shipping": "fault=stall", "payment": "fault=500"})
    assert not page["complete"]
    assert page["parts"]["customer"]["data"]["status"] == "ok"
    assert page["parts"]["shipping"]["missing"] == "timeout.deadline"
    assert page["parts"]["payment"]["missing"] in ("status", "timeout.deadline")
    assert took < 5  # far from the attempt's own time-out of 60 s: the deadline ended it


def test_the_page_as_a_fastapi_endpoint(shop):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / "order_page"), "app:app", "--port", str(port), "--log-level", "warning"],
        env={**os.environ, "SHOP": shop},
    )  # fmt: skip
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_for(listens)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/7") as answer:
            page = json.load(answer)
        assert (page["order"], page["complete"]) == (7, True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/orders/7?order=fault%3Dstall") as answer:
            partial = json.load(answer)
        assert not partial["complete"]
        assert partial["parts"]["order"]["missing"] == "timeout.deadline"
    finally:
        process.terminate()
        process.wait(10)


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
