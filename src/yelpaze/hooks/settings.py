"""The settings of `yelpaze hooks`: the section `hooks`, or a file of its own."""

from collections.abc import Iterator
from typing import Any

import msgspec

from yelpaze.config.convert import Mistake
from yelpaze.config.loader import Schema
from yelpaze.config.values import Duration, Secret, Settings, Size
from yelpaze.hooks.kinds.protocol import Settings as KindSettings
from yelpaze.hooks.kinds.registry import mistakes_of
from yelpaze.hooks.sealing import Sealer
from yelpaze.model.errors import InputError, MisuseError
from yelpaze.policy.address_guard import AddressGuard
from yelpaze.policy.schedule import ALARM, DELIVERY, Schedule


class Smtp(Settings, frozen=True, kw_only=True):
    """The server for e-mail endpoints that name none; its address is not guarded."""

    host: str = ""
    port: int = 0  # 0 for the usual one of `security`
    security: str = "starttls"  # or tls, none
    username: str = ""
    password: Secret = Secret()
    sender: str = ""


class OperatorEndpoint(Settings, frozen=True, kw_only=True):
    """An endpoint of the operator's: it gets the service's own events, and its address is not guarded."""

    kind: str = "webhook"
    url: str = ""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    secret: Secret = Secret()
    event_types: tuple[str, ...] = ()  # all, if empty
    channels: tuple[str, ...] = ()  # all, if empty


class Operator(Settings, frozen=True, kw_only=True):
    """The application that gets operator events: endpoint failing, disabled, message exhausted."""

    endpoints: dict[str, OperatorEndpoint] = msgspec.field(default_factory=dict)


class HooksSettings(Settings, frozen=True, kw_only=True):
    """All settings."""

    listen: str = "127.0.0.1:8071"
    store: str = "hooks.db"  # an SQLite file or a postgresql:// URL
    admin_token: Secret = Secret()  # token for all applications
    encryption_key: Secret = Secret()  # 32 bytes in base64, for secrets at rest
    previous_encryption_keys: tuple[str, ...] = ()  # keys that still decrypt
    allow: tuple[str, ...] = ()  # networks that endpoints may be in although they are private
    concurrency: int = 1024  # attempts at once, over all endpoints
    connections: int = 12_288  # kept connections, within half of the descriptors
    endpoint_concurrency: int = 10  # attempts at once per endpoint
    timeout: Duration = Duration(15)  # of an attempt
    schedule: tuple[Duration, ...] = tuple(map(Duration, DELIVERY.delays))  # delay before each attempt
    alarm_schedule: tuple[Duration, ...] = tuple(map(Duration, ALARM.delays))  # the same, of alarms
    jitter: float = 0.2  # share by which delays vary
    retry_after_cap: Duration = Duration(3600)  # the most that Retry-After can ask for
    breaker_failures: int = 5  # failures in a row after which an endpoint is left alone
    breaker_pause: Duration = Duration(30)  # time until it is probed
    disable_after: Duration = Duration(5 * 86_400)  # time of nothing but failure; 0 for never
    warn_after: Duration = Duration(2 * 86_400)  # time of nothing but failure until the notice before that
    retention: Duration = Duration(90 * 86_400)  # of messages and attempts
    max_payload: Size = Size(1 << 20)  # bytes
    max_response: Size = Size(20_000)  # bytes of an answer that the log keeps
    max_backlog: int = 100_000  # deliveries that wait in a process; above it the API answers 429
    secret_grace: Duration = Duration(86_400)  # time that a rotated secret still signs
    lease: Duration = Duration(15)  # time until the shards of a process that is gone are taken over
    shutdown: Duration = Duration(20)  # time for attempts under way at shutdown
    smtp: Smtp = Smtp()
    operator: Operator = Operator()

    @property
    def deliveries(self) -> Schedule:
        """The schedule of ordinary messages."""
        return Schedule(self.schedule, self.jitter, self.retry_after_cap)

    @property
    def alarms(self) -> Schedule:
        """The schedule of messages with `schedule: alarm`."""
        return Schedule(self.alarm_schedule, self.jitter, min(self.retry_after_cap, ALARM.retry_after_cap))


_AT_LEAST_ONE = (
    "concurrency",
    "connections",
    "endpoint_concurrency",
    "breaker_failures",
    "max_payload",
    "max_backlog",
)
_POSITIVE = ("timeout", "breaker_pause", "retention", "lease")


def _check_operator(settings: HooksSettings) -> Iterator[Mistake]:
    for name, given in settings.operator.endpoints.items():
        kind = KindSettings(kind=given.kind, url=given.url, options=given.options)
        for field, why in mistakes_of(kind):
            yield Mistake(f"operator.endpoints.{name}.{field}", why)


def _check_keys(settings: HooksSettings) -> Iterator[Mistake]:
    if settings.encryption_key:
        try:
            Sealer([settings.encryption_key, *settings.previous_encryption_keys])
        except InputError as error:
            yield Mistake("encryption_key", str(error))


def _check(settings: HooksSettings) -> Iterator[Mistake]:
    for name in _AT_LEAST_ONE:
        if getattr(settings, name) < 1:
            yield Mistake(name, "takes at least 1")
    for name in _POSITIVE:
        if not getattr(settings, name) > 0:
            yield Mistake(name, "takes a time above 0")
    for name in ("schedule", "alarm_schedule"):
        try:
            Schedule(getattr(settings, name), settings.jitter)
        except MisuseError as error:
            yield Mistake("jitter" if "jitter" in str(error) else name, str(error))
    try:
        AddressGuard(settings.allow)
    except MisuseError:
        yield Mistake("allow", "takes networks such as 10.20.0.0/16")
    yield from _check_operator(settings)
    yield from _check_keys(settings)
    if 0 < settings.disable_after <= settings.warn_after:
        yield Mistake("warn_after", "comes before disable_after: take a shorter time")
    if settings.smtp.security not in ("starttls", "tls", "none"):
        yield Mistake("smtp.security", "takes starttls, tls or none")


HOOKS_SETTINGS = Schema("hooks", HooksSettings, _check)
