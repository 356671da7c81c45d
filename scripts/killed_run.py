"""Draw docs/killed.svg: a run that is killed and goes on, as it really went on this machine.

python scripts/killed_run.py

It starts the demo services, runs the offers example over 30,000 rows, kills it with SIGKILL, waits,
starts the same command again, and draws how many rows were committed at each moment, by the journal.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from yelpaze.jobs.charts import lines

ROOT = Path(__file__).parents[1]
OFFERS = ROOT / "examples" / "offers"
ROWS, KILL_AFTER, PAUSE = 30_000, 0.45, 3.0


def committed(journal: Path) -> int:
    """Rows of the last whole line."""
    try:
        whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    except OSError:
        return 0
    checkpoint = json.loads(whole[-1])["checkpoint"] if whole and whole[-1] else {}
    return checkpoint.get("succeeded", 0) + checkpoint.get("failed", 0)


def main() -> None:
    command = [sys.executable, "-m", "yelpaze.cli.main"]
    shop = subprocess.Popen(
        [*command, "demo", "serve", "--listen", "127.0.0.1:0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    url = json.loads(shop.stderr.readline())["url"]
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            environment = {**os.environ, "SHOP": url, "XDG_STATE_HOME": name}
            subprocess.run(
                [sys.executable, OFFERS / "make_rows.py", str(ROWS), "rows.jsonl", url],
                cwd=folder,
                check=True,
            )
            run = [*command, "run", str(OFFERS / "flow.py"), "rows.jsonl", "-q"]
            journal = folder / "rows.results.jsonl.journal"
            times, rows = [0.0], [0.0]
            began = time.monotonic()
            process = subprocess.Popen(run, cwd=folder, env=environment)
            killed = 0.0
            while True:
                time.sleep(0.05)
                now = time.monotonic() - began
                times.append(now)
                rows.append(float(committed(journal)))
                if not killed and rows[-1] > ROWS * KILL_AFTER:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed = now
                elif killed and process.returncode == -signal.SIGKILL and now > killed + PAUSE:
                    process = subprocess.Popen(run, cwd=folder, env=environment)
                elif process.poll() == 0:
                    break
            times.append(time.monotonic() - began)
            rows.append(float(committed(journal)))
            done = sorted(json.loads(line)["row"] for line in (folder / "rows.results.jsonl").open())
            if done != list(range(1, ROWS + 1)):
                raise SystemExit("rows were lost or doubled")
    finally:
        shop.terminate()
        shop.wait()
    drawn = lines(
        times, [("rows committed", rows)], unit=f"kill -9 at {killed:.1f} s, started again {PAUSE:g} s later"
    )
    plain = (
        '<style>text{fill:#1f2933}.rule{stroke:#e4e7eb}</style><rect width="100%" height="100%" fill="#fff"/>'
    )
    head, _, rest = drawn.partition(">")
    (ROOT / "docs" / "killed.svg").write_text(f"{head}>{plain}{rest}\n")


if __name__ == "__main__":
    main()
