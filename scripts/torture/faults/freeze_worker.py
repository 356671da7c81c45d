"""It outruns its time limit. Killed with its parent, too, now and then."""

import signal

from life import signal_pid


def freeze_worker(life):
    if life.start().moment() and (workers := life.workers()):
        signal_pid(life.rng.choice(workers), signal.SIGSTOP)
        if life.rng.random() < 0.3:
            life.sleep(life.rng.uniform(0, 1.0))
            life.kill()
