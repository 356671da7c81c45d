"""The second is refused, though the first is stopped. So is a retry."""

import signal

from life import Life
from promises import DONE, check


def two_at_once(life):
    if life.start().moment():
        life.signal(signal.SIGSTOP)
        other = Life(life.round, life.rng.choice((("run",), ("retry", "last"))))
        other.allowed = {2}
        other.start().wait()
        life.signal(signal.SIGCONT)
        if life.is_alive() or life.process.poll() in DONE:
            said = other.words()
            check(other.code == 2, f"a second run was let in: exit {other.code}: {said}")
            check("another run is writing it" in said, f"the reason is not said: {said}")
