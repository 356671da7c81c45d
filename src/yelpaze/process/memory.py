"""The most memory that a process has had."""

import resource
import sys


def peak_rss_mb(usage: resource.struct_rusage) -> float:
    """ru_maxrss in MB: kilobytes on Linux, bytes on macOS (getrusage(2)).

    On Linux that of a child includes what its parent had when the child began: see `peak_of`.
    """
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)


def peak_of(pid: int | str) -> float:
    """The most memory that a process which still runs has had, in MB; 0 where /proc does not tell."""
    return _status(pid, "VmHWM:")


def rss_of(pid: int | str) -> float:
    """The memory that a process has, in MB; 0 where /proc does not tell."""
    return _status(pid, "VmRSS:")


def _status(pid: int | str, field: str) -> float:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith(field)), 0.0)
    except OSError:
        return 0.0
