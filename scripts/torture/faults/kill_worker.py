"""SIGKILL for worker processes. One of them, or all at once."""

import signal

from life import signal_pid


def kill_worker(life):
    if life.start().moment():
        workers = life.workers()
        chosen = workers[: life.rng.choice((1, len(workers)))]
        # At once for the run, too: it must not give a row that lost one worker to the next to go.
        life.signal(signal.SIGSTOP)
        for pid in chosen:
            signal_pid(pid, signal.SIGKILL)
        life.signal(signal.SIGCONT)
