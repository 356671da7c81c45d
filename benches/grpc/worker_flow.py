"""The rows' work as a flow's CPU step; run as a script, a worker of two processes that serves it.

python worker_flow.py PORT
"""

import sys

from rows import work

from yelpaze import Flow

flow = Flow("worked")


@flow.compute
def worked(row: dict) -> dict:
    return work(row)


if __name__ == "__main__":
    from yelpaze.cli.main import main

    main(["worker", __file__, "--listen", f"127.0.0.1:{sys.argv[1]}", "--processes", "2"])
