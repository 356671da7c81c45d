"""Whether a location sees anything at all: if everything fails, it is the location that is offline.

Pure; `now` comes in, in seconds. It needs several hosts to say so: one that has a single site to look at
cannot tell the difference.
"""

from collections import deque

_WINDOW = 60.0
_LEAST = 5  # results within the window
_LEAST_HOSTS = 3
_BLIND_SHARE = 0.02  # successes


class Blindness:
    """The results of the last minute, by host."""

    def __init__(self) -> None:
        self._results: deque[tuple[float, str, bool]] = deque()
        self._successes = 0
        self._hosts: dict[str, int] = {}
        self._had_success = False
        self.is_offline = False  # said by a checker
        self.is_blind = False

    def add(self, host: str, now: float, *, success: bool) -> bool:
        """Take a result in; return whether the location is blind."""
        self._results.append((now, host, success))
        self._successes += success
        self._had_success |= success
        self._hosts[host] = self._hosts.get(host, 0) + 1
        while self._results and self._results[0][0] < now - _WINDOW:
            _, old, was_good = self._results.popleft()
            self._successes -= was_good
            self._hosts[old] -= 1
            if not self._hosts[old]:
                del self._hosts[old]
        return self.look(now)

    def look(self, now: float) -> bool:
        """Whether the location is blind."""
        recent = [one for one in list(self._results)[-_LEAST * 4 :] if one[0] >= now - _WINDOW]
        if self.is_offline:
            self.is_blind = True
        elif self.is_blind:
            # It sees again when what came last is not all failure.
            self.is_blind = not any(success for _, _, success in recent[-_LEAST:])
        else:
            hosts = {host for _, host, _ in recent}
            good = sum(success for _, _, success in recent)
            self.is_blind = (
                self._had_success
                and len(recent) >= _LEAST
                and len(hosts) >= _LEAST_HOSTS
                and len(hosts) >= min(len(self._hosts), _LEAST * 2)
                and good <= _BLIND_SHARE * len(recent)
            )
        return self.is_blind
