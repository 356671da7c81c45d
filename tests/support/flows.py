"""Flows as people write them, for worker processes to import."""

import os
import signal
import sys
import time

import msgspec

from yelpaze import Flow

kill = Flow("kill")


class Answer(msgspec.Struct):
    text: str


class OnlyHere:
    """Can be pickled, and unpickled only in the process that made it."""

    def __reduce__(self):
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> str:
    if pid != os.getpid():
        raise ValueError("it was made elsewhere")
    return "here"


@kill.compute(timeout=1.0)
def act(row: str) -> Answer:
    if row == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if row == "exit":
        os._exit(7)
    if row == "sysexit":
        sys.exit(3)
    if row == "hang":
        while True:
            time.sleep(0.01)
    if row.startswith("fork"):
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        while row == "fork and hang":
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    if row == "raise":
        raise LookupError("no such thing")
    if row == "unsendable":
        return lambda: None
    if row == "unreadable":
        return OnlyHere()
    if row == "print":
        print("user code prints this")
    return Answer(f"done {row}")
