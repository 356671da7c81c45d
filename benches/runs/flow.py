"""One call a row, nothing to compute: what commits cost is a larger part of it than of most flows."""

import os

from yelpaze import Flow, get

URL = os.environ["BENCH_URL"]
flow = Flow("one call")


@flow.request
def answer(row):
    return get(URL)


@flow.compute
def result(answer: dict, row) -> dict:
    return {"n": row["n"], "items": len(answer["data"]["items"]), "name": "one of many"}
