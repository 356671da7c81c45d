"""Whether a location sees anything at all: if everything fails, it is the location that is offline.

Pure; `now` comes in, in seconds. It needs several hosts to say so: one that has a single site to look at
cannot tell the difference.
"""

from collections import deque

_WINDOW = 60
_LEAST = 5  # results within the window
_ENOUGH = 20  # the last so many decide
_LEAST_HOSTS = 3
_BLIND_SHARE = 0.02  # successes


class _Second:
    """The results of one second."""

    __slots__ = ("at", "count", "good", "hosts")

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = self.good = 0
        self.hosts: set[str] = set()


class Blindness:
    """The results of the last minute, by second."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque()
        self._had_success = False
        self.is_offline = False  # said by a checker
        self.is_blind = False

    def add(self, host: str, now: float, *, success: bool) -> bool:
        """Take a result in; return whether the location is blind."""
        at = int(now)
        last = self._seconds[-1] if self._seconds else None
        if last is None or last.at != at:
            last = _Second(at)
            self._seconds.append(last)
            while self._seconds[0].at < at - _WINDOW:
                self._seconds.popleft()
        last.count += 1
        if success:
            last.good += 1
            self._had_success = True
            if self.is_blind and not self.is_offline:
                self.is_blind = False  # it sees again
        if len(last.hosts) < _ENOUGH:
            last.hosts.add(host)
        # Failures are few, or this has to be found out.
        return self.is_blind if success else self.look(now)

    def look(self, now: float) -> bool:
        """Whether the location is blind."""
        if self.is_offline:
            self.is_blind = True
        elif not self.is_blind and self._had_success:
            count = good = 0
            hosts: set[str] = set()
            for one in reversed(self._seconds):
                if one.at < now - _WINDOW or count >= _ENOUGH:
                    break
                count += one.count
                good += one.good
                hosts |= one.hosts
            self.is_blind = count >= _LEAST and len(hosts) >= _LEAST_HOSTS and good <= _BLIND_SHARE * count
        return self.is_blind
