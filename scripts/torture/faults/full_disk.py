"""No space is left, and later there is some again.

Without a disk of its own (that takes root), a file may grow no further.
"""

from life import Life


def full_disk(life):
    round_ = life.round
    life.allowed |= {2, 3}
    if not round_.is_mounted or life.rng.random() < 0.2:
        blocks = str(life.rng.randrange(8, 160))
        life.prefix = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh"]
        life.start()
        return
    if life.rng.random() < 0.2:
        round_.fill_disk()
        life.start()
    else:
        life.start().moment()
        round_.fill_disk()
    try:
        life.wait()
        if life.rng.random() < 0.3:
            again = Life(round_)
            again.allowed |= {2, 3}
            again.start().wait()
    finally:
        round_.free_disk()
