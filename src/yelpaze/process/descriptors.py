"""The limit of file descriptors, and how many connections it allows (getrlimit(2))."""

import contextlib
import errno
import os
import resource

_SPARE = 100  # descriptors that are not for connections
_FOR_A_CALL = 2  # its connection, and the file that its body goes to
_OUT = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> int:
    """Raise the soft limit to the hard one, for this process and its children; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS reports a hard limit that it does not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def room_for_calls(wanted: int) -> int:
    """How many of so many calls can be under way at once, by the descriptors that are left; at least 1."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or wanted * _FOR_A_CALL + _SPARE < limit // 2:
        return wanted
    try:
        used = len(os.listdir("/dev/fd"))  # noqa: PTH208
    except OSError:
        used = limit
    return max(1, min(wanted, (limit - used - min(_SPARE, limit // 4)) // _FOR_A_CALL))


def are_used_up() -> bool:
    """Whether no descriptor is left just now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return is_shortage(error)
    return False


def is_shortage(error: BaseException) -> bool:
    """Whether the error is that no descriptor was left."""
    return isinstance(error, OSError) and error.errno in _OUT


def capacity(processes: int = 1) -> str:
    """Describe the processes, their descriptors, and the connections that these allow."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return f"{processes} process{'es' if processes != 1 else ''} without a limit of descriptors"
    room = max(0, files - _SPARE) * processes
    count = "1 process" if processes == 1 else f"{processes} processes"
    each = " each" if processes != 1 else ""
    return f"{count} with {files:,} descriptors{each}: room for about {room:,} connections"
