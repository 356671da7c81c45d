"""Exit codes, and how errors are shown: one clear message on stderr, no traceback."""

import sys
from enum import IntEnum

from yelpaze.model.errors import FlowError, InputError, MisuseError, StoppedError


class Exit(IntEnum):
    """What the shell is told."""

    OK = 0
    SOME_FAILED = 1
    MISUSE = 2
    STOPPED = 3
    INTERRUPTED = 130


def code_of(error: Exception) -> Exit | None:
    """The exit code of an error that is shown as a message; None for a defect of ours."""
    if isinstance(error, FlowError | InputError | MisuseError):
        return Exit.MISUSE
    if isinstance(error, StoppedError):
        return Exit.STOPPED
    return None


def show(error: Exception) -> None:
    """Print the message."""
    print(f"yelpaze: {error}", file=sys.stderr)  # noqa: T201
