"""SIGSTOP for longer than all time limits."""

import signal
import time


def freeze(life):
    if life.start().moment():
        life.signal(signal.SIGSTOP)
        time.sleep(life.rng.uniform(1.2, 2.8))
        if life.rng.random() < 0.2:
            life.kill()
        life.signal(signal.SIGCONT)
