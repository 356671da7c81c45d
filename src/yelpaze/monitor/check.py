"""A check as the services use it: read from the settings, frozen, small.

A million checks share their `CheckOptions`, so that one costs little more than its name and URL.
"""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from yelpaze.monitor.conditions import Condition

Kind = Literal["http", "tcp", "udp", "tls", "starttls", "icmp", "dns", "grpc", "push"]
# As Gatus does, one for one.
_KEY = str.maketrans(dict.fromkeys("/_., #+&", "-"))
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def key_of(group: str, name: str) -> str:
    """The key of a check, as in Gatus's paths.

    >>> key_of("core", "Front page/1")
    'core_front-page-1'
    >>> key_of("", "a")
    '_a'
    """
    return f"{_sanitized(group)}_{_sanitized(name)}"


def _sanitized(text: str) -> str:
    return text.lower().strip().translate(_KEY)


def id_of(key: str) -> int:
    """A check's number in tables: 63 bits of a hash of its key.

    >>> id_of("core_front") == id_of("core_front") > 0
    True
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 1


class Window(msgspec.Struct, frozen=True):
    """A maintenance window: minutes after midnight in `timezone`, seconds, and weekdays (0 is Monday)."""

    start: int
    duration: float
    timezone: str = "UTC"
    every: tuple[int, ...] = ()

    def contains(self, at: float) -> bool:
        """Whether a time, in UNIX seconds, is in it.

        >>> Window(23 * 60, 7200.0, "UTC", (0,)).contains(datetime(2026, 1, 6, 0, 30, tzinfo=UTC).timestamp())
        True
        """
        local = datetime.fromtimestamp(at, ZoneInfo(self.timezone))
        for days in (0, 1):  # one that began yesterday may go on
            day = local - timedelta(days=days)
            begin = day.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
            if self.every and begin.weekday() not in self.every:
                continue
            passed = local.astimezone(UTC) - begin.astimezone(UTC)
            if 0 <= passed.total_seconds() < self.duration:
                return True
        return False


class Alert(msgspec.Struct, frozen=True):
    """When a channel is told of a check. `channel` is the uid of an endpoint of hooks."""

    type: str
    channel: str
    failure_threshold: int = 3
    success_threshold: int = 2
    reminder: float = 0.0
    send_on_resolved: bool = False
    description: str = ""


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What many checks have in common. Times are in seconds."""

    kind: Kind = "http"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    interval: float = 60.0
    timeout: float = 10.0
    conditions: tuple[Condition, ...] = ()
    names: frozenset[str] = frozenset()  # placeholders that the conditions need
    verify: bool = True
    follow_redirects: bool = True
    resolver: str = ""
    ip_family: Literal[4, 6] | None = None
    certificate: tuple[str, str] | None = None
    ca_file: str = ""
    query_type: str = ""
    query_name: str = ""
    locations: tuple[str, ...] = ("local",)
    quorum: int = 1
    parents: tuple[str, ...] = ()
    retries: int = 1
    alerts: tuple[Alert, ...] = ()
    windows: tuple[Window, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    hide_url: bool = False
    hide_errors: bool = False
    hide_conditions: bool = False

    @property
    def failure_thresholds(self) -> tuple[int, ...]:
        """Failing slots after which something happens, ascending."""
        return tuple(sorted({alert.failure_threshold for alert in self.alerts})) or (3,)

    @property
    def success_thresholds(self) -> tuple[int, ...]:
        """Good slots after which something happens, ascending."""
        return tuple(sorted({alert.success_threshold for alert in self.alerts})) or (2,)


class Check(msgspec.Struct, frozen=True, gc=False):
    """One check. `disabled` says why it is not made; empty if it is."""

    id: int
    key: str
    name: str
    group: str
    url: str
    options: CheckOptions
    disabled: str = ""

    @property
    def title(self) -> str:
        """The name for people."""
        return f"{self.group}/{self.name}" if self.group else self.name

    def phase(self) -> float:
        """Seconds into its interval at which it is due: the same everywhere and always, spread evenly."""
        return (self.id % 1_000_003) / 1_000_003 * self.options.interval

    def in_maintenance(self, at: float) -> bool:
        """Whether it is in one of its windows, or in one of all, at a time in UNIX seconds."""
        return any(window.contains(at) for window in self.options.windows)
