"""A tour of Yelpaze against services on this machine, 1 % of whose answers are faults.

make run
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yelpaze
from yelpaze import Engine, Outcome, get

OFFERS = Path(__file__).parent / "offers"
HOOKS = Path(__file__).parent / "hooks"
MONITOR = Path(__file__).parent / "monitor"
ROWS, PLAIN_ROWS = 10_000, 2_000
PAGE = ("customer", "order", "payment", "shipping")


def start_shop() -> tuple[subprocess.Popen[str], str]:
    """`yelpaze demo serve` in a process of its own; its address is in its first line."""
    command = [
        "-m",
        "yelpaze.cli.main",
        "demo",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--error-rate",
        "0.01",
        "--log-format",
        "json",
    ]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    return process, json.loads(process.stderr.readline())["url"]


async def order_page(shop: str) -> None:
    """An order page needs four services: 150, 200, 180 and 220 ms."""
    page = {name: get(f"{shop}/order-page/{name}") for name in PAGE}
    # The last service stalls: it gets 300 ms and no second try.
    broken = {
        **page,
        "shipping": get(f"{shop}/order-page/shipping?fault=stall", timeout=0.3, retry=False),
    }

    async with Engine() as engine:
        began = time.perf_counter()
        one_by_one = {name: await engine.send(request) for name, request in page.items()}
        show("one after the other", one_by_one, began)

        began = time.perf_counter()
        show("at once", await engine.gather(page), began)

        began = time.perf_counter()
        show("at once, one service dead", await engine.gather(broken), began)


def show(how: str, outcomes: dict[str, Outcome], began: float) -> None:
    took = (time.perf_counter() - began) * 1000
    parts = (f"{name} {'ok' if o.ok else o.error and o.error.kind}" for name, o in outcomes.items())
    print(f"  {how:<26}{took:>5.0f} ms   {' · '.join(parts)}")


def offers(shop: str, folder: Path) -> int:
    """10,000 rows: base call → three services at once → CPU work; then the plain way beside it."""
    run = [sys.executable, OFFERS / "make_rows.py", str(ROWS), "rows.jsonl", shop]
    subprocess.run(run, cwd=folder, check=True)
    environment = {**os.environ, "SHOP": shop}

    command = [
        sys.executable,
        "-m",
        "yelpaze.cli.main",
        "run",
        str(OFFERS / "flow.py"),
        "rows.jsonl",
        "--restart",
        "--json",
    ]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return done.returncode
    ours = json.loads(done.stdout)
    print("\n  first results:")
    for line in (folder / "rows.results.jsonl").read_text().splitlines()[:3]:
        print(f"    {line}")

    print(f"\nThe plain asyncio way (aiohttp, a task a row, a process pool), {PLAIN_ROWS:,} of the rows:")
    command = [sys.executable, str(OFFERS / "plain.py"), "rows.jsonl", str(PLAIN_ROWS)]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    plain = json.loads(done.stdout)
    ratio = ours["rows_per_second"] / plain["rows_per_second"]
    print(f"  plain    {plain['rows_per_second']:>7,.0f} rows/s   {plain['failed']} rows lost to faults")
    print(f"  Yelpaze  {ours['rows_per_second']:>7,.0f} rows/s   {ours['failed']} rows lost")
    print(f"  {ratio:.1f} times as fast, and {ours['retries']} faults absorbed by retries")
    return 0


def main() -> int:
    process, shop = start_shop()
    try:
        print("An order page from four services (150, 200, 180 and 220 ms):")
        yelpaze.run(order_page(shop))
        print(
            f"\n{ROWS:,} offers: a base call, three services at once, then CPU work in processes:",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder:
            code = offers(shop, Path(folder))
        if code:
            return code
        print(
            "\nAn order system tells the endpoints of 50 customers, some of which are in trouble:", flush=True
        )
        code = subprocess.run([sys.executable, HOOKS / "orders.py"], check=False).returncode
        if code:
            return code
        print("\nA shop is down, as two locations see it:", flush=True)
        return subprocess.run([sys.executable, MONITOR / "outage.py"], check=False).returncode
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
