"""Which policies hold for which host.

    Engine(limit=Limit(concurrency=64), hosts={
        "api.example.com": HostPolicy(limit=Limit(rate="100/s")),
        "*.example.com":   HostPolicy(retry=Retry(attempts=5)),
        "pay.example.com": HostPolicy(breaker=Breaker(calls=5), share=0.1),
    })

Of the patterns that match a host the most exact one holds: a plain name before a wildcard,
a longer wildcard before a shorter one. What it leaves out is the engine's own setting.
With `share`, only that part of the requests is moved; the rest stays under what held before.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec
from msgspec import UNSET, UnsetType

from yelpaze.model.errors import MisuseError
from yelpaze.model.request import Timeout
from yelpaze.model.url import Origin
from yelpaze.policy.breaker import Breaker
from yelpaze.policy.budget import Budget
from yelpaze.policy.hedge import Hedge
from yelpaze.policy.limit import Limit
from yelpaze.policy.retry import Retry

_TYPES = {
    "retry": Retry,
    "timeout": Timeout,
    "limit": Limit,
    "breaker": Breaker,
    "budget": Budget,
    "hedge": Hedge,
}
_NEVER_NONE = ("timeout", "limit")


class HostPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What differs for one host or group of hosts; None turns a policy off.

    `deadline` is in seconds for the whole call; `share` is the part of the requests, above 0
    and at most 1, for which this holds. `pauses=False`: an answer's Retry-After and quota fields
    delay only the call that got it, not others to the host.
    """

    retry: Retry | UnsetType | None = UNSET
    timeout: Timeout | UnsetType = UNSET
    deadline: float | UnsetType | None = UNSET
    limit: Limit | UnsetType = UNSET
    breaker: Breaker | UnsetType | None = UNSET
    budget: Budget | UnsetType | None = UNSET
    hedge: Hedge | UnsetType | None = UNSET
    pauses: bool | UnsetType = UNSET
    share: float = 1.0

    def __post_init__(self) -> None:
        for name, wanted in _TYPES.items():
            value = getattr(self, name)
            if value is None and name not in _NEVER_NONE:
                continue
            if value is not UNSET and not isinstance(value, wanted):
                raise MisuseError(f"{name} takes a {wanted.__name__}, not {value!r}")
        if self.pauses is not UNSET and not isinstance(self.pauses, bool):
            raise MisuseError(f"pauses takes True or False: {self.pauses!r}")
        if not (isinstance(self.share, int | float) and 0 < self.share <= 1):
            raise MisuseError(f"share is a part of the requests, above 0 and at most 1: {self.share!r}")
        if self.deadline is not None and self.deadline is not UNSET and not self.deadline > 0:
            raise MisuseError(f"deadline takes a positive number of seconds: {self.deadline!r}")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a host: a HostPolicy with nothing left open. `pattern` says by which key."""

    retry: Retry | None
    timeout: Timeout
    deadline: float | None
    limit: Limit
    breaker: Breaker | None
    budget: Budget | None
    hedge: Hedge | None
    pauses: bool = True
    share: float = 1.0
    pattern: str = ""

    def with_(self, pattern: str, given: HostPolicy) -> "Policy":
        """A copy with what `given` says instead."""
        changes = {
            name: value
            for name in given.__struct_fields__
            if (value := getattr(given, name)) is not UNSET and name != "share"
        }
        return msgspec.structs.replace(self, **changes, share=given.share, pattern=pattern)


class Policies:
    """Finds the policies of a host, and remembers which patterns have been of use."""

    def __init__(self, default: Policy, hosts: Mapping[str, HostPolicy]) -> None:
        if not isinstance(hosts, Mapping):
            raise MisuseError(f"hosts takes a dict of patterns and HostPolicy, not {hosts!r}")
        for pattern, given in hosts.items():
            if not isinstance(pattern, str) or not pattern or "/" in pattern:
                raise MisuseError(f'hosts=… takes names such as "api.example.com" or "*.test": {pattern!r}')
            if not isinstance(given, HostPolicy):
                raise MisuseError(f"hosts[{pattern!r}] takes a HostPolicy, not {type(given).__name__}")
        self.default = default
        # The most exact first.
        self._hosts = sorted(
            ((pattern.lower(), given) for pattern, given in hosts.items()),
            key=lambda entry: ("*" in entry[0] or "?" in entry[0], -len(entry[0])),
        )
        self.unmatched = {pattern for pattern, _ in self._hosts}

    def of(self, origin: Origin) -> tuple[Policy, ...]:
        """What holds for the host: the last for all requests, those before for their share."""
        found: list[Policy] = []
        for pattern, given in self._hosts:
            if not _matches(pattern, origin):
                continue
            self.unmatched.discard(pattern)
            found.append(self.default.with_(pattern, given))
            if given.share == 1:
                return tuple(found)
        return (*found, self.default)

    def patterns(self) -> list[Policy]:
        """What holds by each pattern, the most exact first."""
        return [self.default.with_(pattern, given) for pattern, given in self._hosts]


def _matches(pattern: str, origin: Origin) -> bool:
    host = origin.host.lower().removesuffix(".")  # with or without the final dot, it is the same name
    if pattern in (
        host,
        f"{host}:{origin.port}",
    ):  # an IPv6 address has brackets, which fnmatch reads its own way
        return True
    return fnmatchcase(host, pattern) or fnmatchcase(f"{host}:{origin.port}", pattern)
