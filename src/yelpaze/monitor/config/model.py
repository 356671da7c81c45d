"""A monitor's configuration, read and checked."""

from collections.abc import Iterable

import msgspec

from yelpaze.monitor.check import Check, Window
from yelpaze.monitor.config.providers import Channel
from yelpaze.monitor.config.settings import (
    ApiSettings,
    ConnectivitySettings,
    RetentionSettings,
    RouteSettings,
    UiSettings,
    WebSettings,
)


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the services work by.

    - `checks` by key, in the order of the files; disabled ones are among them.
    - `channels` by uid: the endpoints of hooks that alarms go to.
    - `push_tokens` by key of a push check.
    - `hash`: which configuration this is; `warnings`: what was left out, for people.
    """

    checks: dict[str, Check]
    channels: dict[str, Channel]
    push_tokens: dict[str, str]
    locations: tuple[str, ...]
    windows: tuple[Window, ...]
    route: RouteSettings
    connectivity: ConnectivitySettings
    retention: RetentionSettings
    api: ApiSettings
    web: WebSettings
    ui: UiSettings
    allow: tuple[str, ...] | None
    metrics: bool
    warnings: tuple[str, ...]
    hash: str

    def enabled(self) -> Iterable[Check]:
        """The checks that are made."""
        return (check for check in self.checks.values() if not check.disabled)
