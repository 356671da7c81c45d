"""When each check is due: a timing wheel with a stable phase (Varghese and Lauck, 1987).

A check is due at `phase + n · interval`, counted from 1970. The phase comes from its key, so that checks are
spread evenly, nothing drifts, and a restart, a reload or another probe changes nothing. A million checks cost
a list of buckets; no task or timer for each.
"""

import math
from collections.abc import Iterable

from yelpaze.monitor.check import Check

TICK = 0.05  # seconds
_JUMP = 20  # ticks that a clock is set back by without notice
_AT_START = 1000.0  # checks a second, at first


class Entry:
    """A check on the wheel. `certificate`: when the one last seen expires; `looked_at`: when that was."""

    __slots__ = ("bucket", "certificate", "check", "due", "is_running", "looked_at", "request")

    def __init__(self, check: Check) -> None:
        self.check = check
        self.due = 0.0
        self.bucket = -1
        self.is_running = False
        self.request: object = None
        self.certificate: float | None = None
        self.looked_at = 0.0


class Schedule:
    """The checks of a probe, by when they are due. Times are UNIX seconds."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._buckets: dict[int, list[Entry]] = {}
        self._done = -1  # the last bucket that was looked at

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """A check's entry."""
        return self._entries.get(key)

    def keys(self) -> Iterable[str]:
        """The checks that are on it."""
        return self._entries.keys()

    def add(self, checks: Iterable[Check], now: float, *, at_once: bool = True) -> None:
        """Put checks on it. With `at_once` those are made soon for the slot that is running now."""
        spread = 0
        for check in checks:
            old = self._entries.get(check.key)
            if old is not None and _is_same_time(old.check, check):
                old.check, old.request = check, None
                continue
            if old is not None:
                self.remove(check.key)
            entry = self._entries[check.key] = Entry(check)
            entry.due = next_due(check, now)
            start = now + spread / _AT_START
            spread += 1
            if at_once and start < entry.due:
                self._put(entry, start)
                entry.due -= check.options.interval  # for the slot that runs now, late on purpose
            else:
                self._put(entry, entry.due)

    def remove(self, key: str) -> None:
        """Take a check off."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.bucket = -1  # it stays in its bucket's list, which passes over it

    def due(self, now: float) -> list[tuple[Entry, float]]:
        """The checks that are due by now, with their slots; each is put back for its next one."""
        last = int(now / TICK)
        if last < self._done - _JUMP:
            self._put_all(now)
        if self._done < 0 or last - self._done > len(self._buckets):
            numbers: Iterable[int] = sorted(number for number in self._buckets if number <= last)
        else:
            numbers = range(self._done + 1, last + 1)
        self._done = max(self._done, last)  # what is put back comes in a later bucket
        found: list[tuple[Entry, float]] = []
        for number in numbers:
            for entry in self._buckets.pop(number, ()):
                if entry.bucket != number:
                    continue  # removed, or moved
                slot = entry.due
                entry.due = next_due(entry.check, slot)
                if entry.due + entry.check.options.interval <= now:  # slots were missed: only the last counts
                    entry.due = next_due(entry.check, now)
                    slot = entry.due - entry.check.options.interval
                found.append((entry, slot))
                self._put(entry, entry.due)
        return found

    def _put_all(self, now: float) -> None:
        """The clock was set back: put all back for their next slots by it."""
        self._done = int(now / TICK)
        self._buckets.clear()
        for entry in self._entries.values():
            entry.due = next_due(entry.check, now)
            self._put(entry, entry.due)

    def _put(self, entry: Entry, at: float) -> None:
        number = max(int(at / TICK), self._done + 1)
        entry.bucket = number
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [entry]
        else:
            bucket.append(entry)


def next_due(check: Check, after: float) -> float:
    """The first slot of a check after a time."""
    interval, phase = check.options.interval, check.phase()
    return phase + (math.floor((after - phase) / interval + 1e-6) + 1) * interval


def _is_same_time(old: Check, new: Check) -> bool:
    return old.options.interval == new.options.interval
