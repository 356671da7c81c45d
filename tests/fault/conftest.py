"""Tests of faults run on a loop whose clock can be put forward: time-outs and pauses cost no real time."""

from support.clock import AdjustableLoop


def pytest_asyncio_loop_factories():
    return {"adjustable": AdjustableLoop}
