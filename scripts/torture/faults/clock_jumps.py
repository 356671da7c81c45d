"""`time.time` jumps by hours."""

import os

CLOCK = """
import random, time

now, rng, shift = time.time, random.Random(), [0.0]

def jumping():
    if rng.random() < 0.02:
        shift[0] = rng.uniform(-30, 30) * 3600
    return now() + shift[0]

time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


def clock_jumps(life):
    paths = (str(life.round.clock), os.environ.get("PYTHONPATH", ""))
    life.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    life.start()
    if life.rng.random() < 0.5:
        life.moment()
        life.kill()
