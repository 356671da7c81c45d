"""A flow that calls for the rows from FROM on, and notes when it made its first request."""

import os
import time

from yelpaze import Flow, get

URL, FROM, NOTE = os.environ["BENCH_URL"], int(os.environ["FROM"]), os.environ["NOTE"]
flow = Flow("late")


@flow.request
def answer(row: dict):
    if row["n"] < FROM:
        return None
    if not os.path.exists(NOTE):
        with open(NOTE, "w") as file:
            file.write(str(time.time()))
    return get(URL)
