"""python commit.py ROWS OUTPUT COMMIT_SECONDS: one run in this process; prints rows/s.

With so many seconds that no commit comes before the end, it is a run without a journal.
"""

import asyncio
import json
import sys
from pathlib import Path

from yelpaze.flow.loading import find
from yelpaze.jobs.options import RunOptions
from yelpaze.jobs.session import run_job

rows, output, seconds = sys.argv[1:]
source = Path(f"{rows}.jsonl")
if not source.exists():
    with source.open("w") as file:
        file.writelines(f'{{"n":{number}}}\n' for number in range(int(rows)))
options = RunOptions(
    inputs=(str(source),), output=output, workers=1, restart=True, commit_seconds=float(seconds)
)
summary = asyncio.run(run_job(find(str(Path(__file__).with_name("flow.py"))), options).run())
print(json.dumps({"rows_per_second": summary.rows_per_second}))
