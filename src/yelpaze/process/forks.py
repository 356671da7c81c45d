"""Processes that user code forks: in them, signals are as if Yelpaze weren't there.

A fork inherits handlers, and the descriptor that wakes the event loop, which it shares with us: a signal
sent to it (`multiprocessing.Pool` ends its processes with SIGTERM) would arrive here. Programs that user
code starts need nothing: execve(2) gives handled signals their default action.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from functools import partial
from typing import Any

# What handled a signal before us. A process has one set of handlers, so this is one, too.
_before: dict[int, Any] = {}


def restore_in_forks(numbers: Iterable[int]) -> None:
    """We are about to handle these signals: forks get the handlers of now, and no wake-up descriptor."""
    if not _before:
        os.register_at_fork(after_in_child=_restore)
    for number in numbers:
        handler = signal.getsignal(number)
        if isinstance(handler, partial) and isinstance(
            getattr(handler.func, "__self__", None), asyncio.Runner
        ):
            handler = signal.default_int_handler  # asyncio.run() has replaced it
        _before.setdefault(number, handler)


def _restore() -> None:
    signal.set_wakeup_fd(-1)
    for number, handler in _before.items():
        # None: a handler that is not Python's own, which cannot be set again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
