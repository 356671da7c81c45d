"""What Redis refuses, in words that say what to do.

Redis that is away comes back by itself. Redis that is there and refuses (a replica, an ACL, a cluster) does
not: somebody has to change a setting, and has to be told which.
"""

import re
from collections.abc import Callable
from typing import Final

from redis import exceptions as said

from yelpaze.model.notice import Level, Notice, Report

_AGAIN: Final = 60.0  # seconds between two notices of one kind
_LOGIN: Final = "it wants a password, or another: redis://:PASSWORD@host:port"
_PERMISSIONS: Final = "give its user the permissions in docs/live.md"
_ADVICE: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    (
        (said.ReadOnlyError, said.MasterDownError),
        "it is a read-only replica: set broker.redis.address to the primary",
    ),
    ((said.NoPermissionError,), _PERMISSIONS),
    (
        # MOVED is a kind of AskError.
        (said.ClusterDownError, said.ClusterCrossSlotError, said.AskError, said.TryAgainError),
        "it is a node of Redis Cluster, which is not supported: set broker.redis.address to a single Redis",
    ),
    ((said.OutOfMemoryError,), "it has no memory left: raise its maxmemory, or keep less history"),
    ((said.AuthenticationError,), _LOGIN),
)


def is_refusal(error: BaseException) -> bool:
    """Whether Redis is there and says no. What it does not know of itself, or only for now, is none."""
    if isinstance(error, said.AuthenticationError):
        return True
    is_away = isinstance(error, said.ConnectionError | said.TimeoutError)
    return isinstance(error, said.RedisError) and not is_away


def explained(error: BaseException) -> str:
    """What Redis says, and what to do. Arguments of a command and hashes of scripts are left out."""
    text = re.split(r",? (?:with args|script: )", str(error))[0].rstrip(".")
    if "HELLO must be called" in text:  # of a Redis before version 6, which has no code for that
        return _LOGIN
    if text.startswith("Protocol error"):
        return "what answers there is no Redis"
    for kinds, advice in _ADVICE:
        if isinstance(error, kinds):
            return advice if advice is _LOGIN else f"{text}; {advice}"
    # Redis has no code of its own for a command that the user's script may not run.
    return f"{text}; {_PERMISSIONS}" if text.startswith("The user executing the script") else text


class Refusals:
    """Reports refusals, each kind at most once a minute: every client may cause one."""

    def __init__(self, report: Report, clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._reported: dict[str, float] = {}

    def report(self, error: BaseException) -> None:
        """Report an error, if it is a refusal."""
        if not is_refusal(error):
            return
        text = explained(error)
        kind = f"{type(error).__name__} {text.partition(' ')[0]}"
        now = self._clock()
        if now - self._reported.get(kind, -_AGAIN) >= _AGAIN:
            self._reported[kind] = now
            self._report(Notice("broker.refused", f"Redis refuses what it is asked: {text}", Level.ERROR))
