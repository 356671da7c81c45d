"""The limit of file descriptors, and how many connections it allows (getrlimit(2))."""

import contextlib
import resource

_SPARE = 100  # descriptors that are not for connections


def raise_limit() -> int:
    """Raise the soft limit to the hard one, for this process and its children; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS reports a hard limit that it does not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def capacity(processes: int = 1) -> str:
    """Describe the processes, their descriptors, and the connections that these allow."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return f"{processes} process{'es' if processes != 1 else ''} without a limit of descriptors"
    room = max(0, files - _SPARE) * processes
    count = "1 process" if processes == 1 else f"{processes} processes"
    each = " each" if processes != 1 else ""
    return f"{count} with {files:,} descriptors{each}: room for about {room:,} connections"
