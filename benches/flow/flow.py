"""The flow of the `flow` scenario: base call → three services at once → 100 µs of CPU."""

import os
import time

from yelpaze import Flow, post

URL = os.environ["BENCH_URL"]
flow = Flow("bench")


@flow.request(idempotent=True)
def base(row: dict):
    return post(URL, json=row)


@flow.request(idempotent=True)
def details(base: dict):
    return post(URL, json=base["data"])


@flow.request(idempotent=True)
def prices(base: dict):
    return post(URL, json=base["data"])


@flow.request(idempotent=True)
def stock(base: dict):
    return post(URL, json=base["data"])


@flow.compute
def last(details: dict, prices: dict, stock: dict) -> dict:
    return burn(details)


def burn(details: dict) -> dict:
    """100 µs of CPU time, the same for both ways."""
    end = time.thread_time_ns() + 100_000
    while time.thread_time_ns() < end:
        pass
    return {"items": len(details["data"]["items"])}
