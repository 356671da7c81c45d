"""SIGTERM or SIGINT, once, or again when that takes too long."""

import signal


def ask_to_stop(life):
    if life.start().moment():
        number = life.rng.choice((signal.SIGTERM, signal.SIGINT))
        life.signal(number)
        if life.rng.random() < 0.4:
            life.sleep(life.rng.uniform(0.01, 0.2))
            life.signal(number)
            life.allowed |= {-number}  # it may be on its way out already
        life.allowed |= {130}
