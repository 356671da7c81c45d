"""SIGKILL for worker processes. One of them, or all at once."""

import signal

from life import signal_pid


def kill_worker(life):
    if life.start().moment():
        workers = life.workers()
        for pid in workers[: life.rng.choice((1, len(workers)))]:
            signal_pid(pid, signal.SIGKILL)
