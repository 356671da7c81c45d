"""How many cores this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_NO_LIMIT = float("inf")


def usable_cores() -> int:
    """The cores that it may run on, as far as the system says so (Linux); else all.

    The CPU quota of a container counts as cores, a part of one as a whole: `docker run --cpus 1.5` is 2.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(_GROUPS, _read(_OWN))
    return cores if quota == _NO_LIMIT else max(1, min(cores, math.ceil(quota)))


def cpu_quota(groups: Path, own: str) -> float:
    """The CPU seconds a second that control groups allow; infinite if there is no bound.

    `groups` is where they are mounted, `own` the text of /proc/self/cgroup (cgroups(7)). Each group above
    the process's own bounds it, too.
    """
    bounds = [_NO_LIMIT]
    for line in own.splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            bounds += [_quota_v2(folder) for folder in _ancestors(groups, path)]
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                bounds += [_quota_v1(folder) for folder in _ancestors(groups / name, path)]
    return min(bounds)


def _ancestors(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it. A container may see its own group as the top one."""
    inner = PurePosixPath(path.lstrip("/"))
    for one in (inner, *inner.parents):
        if ".." not in one.parts:
            yield mount / one


def _quota_v2(folder: Path) -> float:
    """`cpu.max`: microseconds of CPU in a period, as in `150000 100000`, or `max 100000`."""
    return _ratio(*_read(folder / "cpu.max").split()[:2])


def _quota_v1(folder: Path) -> float:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str = "", period: str = "") -> float:
    try:
        found = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return _NO_LIMIT
    return found if found > 0 else _NO_LIMIT  # -1 is no quota


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
