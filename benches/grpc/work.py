"""Pure Python that takes time, by a count of turns and not by a clock: so that a core that is shared shows.

`python work.py AT COUNT TURNS` does it so often from that moment of the monotonic clock, and prints
calls/s: what a process does with nothing around it.
"""

import sys
import time


def burn(turns: int) -> int:
    total = 0
    for number in range(turns):
        total += number * number % 7
    return total


def turns_in(seconds: float) -> int:
    """How many turns take that long here, undisturbed: the best of several tries."""
    turns = 20_000
    best = min(_timed(turns) for _ in range(25))
    return int(turns * seconds / best)


def _timed(turns: int) -> float:
    began = time.perf_counter()
    burn(turns)
    return time.perf_counter() - began


if __name__ == "__main__":
    at, count, turns = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    burn(turns)
    time.sleep(max(0.0, at - time.monotonic()))
    began = time.monotonic()
    for _ in range(count):
        burn(turns)
    print(count / (time.monotonic() - began))
