"""Whether an endpoint has failed for too long: a pure decision.

failing for `warn_after`                                        → a notice
failing for `disable_after`, and the notice is long enough ago  → disabled
410 Gone                                                        → disabled at once
"""

import msgspec

from yelpaze.hooks.delivery.decision import Decision
from yelpaze.hooks.settings import HooksSettings

_DAY = 86_400


class Health(msgspec.Struct, frozen=True):
    """The action to take: warn, or disable. Both are reasons for people, or empty."""

    warn: str = ""
    disable: str = ""


def health_of(
    decision: Decision, settings: HooksSettings, *, failures: int, since: int, warned: int, now: int
) -> Health:
    """Decide after a failure. Times are milliseconds since 1970; `warned` is 0 if there was no notice yet."""
    if decision.disable:
        return Health(disable=decision.disable)
    if not settings.disable_after or failures < settings.breaker_failures:
        return Health()
    failing = (now - since) / 1000
    for_days = f"for {failing / _DAY:.1f} days"
    if not warned:
        return Health(warn=f"nothing but failure {for_days}" if failing >= settings.warn_after else "")
    notice = settings.disable_after - settings.warn_after
    if failing >= settings.disable_after and (now - warned) / 1000 >= notice:
        return Health(disable=f"nothing but failure {for_days}; at last {decision.reason}")
    return Health()
