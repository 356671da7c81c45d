"""What must hold, and bounds that all parts share."""

import signal

PATIENCE = 60.0  # seconds, for anything
MOST_ROWS = 900
DONE = {0, 1}
KILLED = {-signal.SIGKILL}


class BrokenPromiseError(AssertionError):
    """What must hold does not."""


def check(holds, text):
    if not holds:
        raise BrokenPromiseError(text)
