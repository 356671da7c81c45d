"""The channels of alarms: Gatus's providers as endpoints of hooks.

`custom` becomes an `http` endpoint, whose body is a template; `webhook`, which Gatus has not, a signed one
(Standard Webhooks).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from yelpaze.config.convert import Mistake, convert
from yelpaze.config.values import Duration, Secret
from yelpaze.monitor.config.settings import AlertSettings, ClientSettings, _Kebab

_WORDS = {
    "ALERT_DESCRIPTION": "description",
    "ENDPOINT_NAME": "name",
    "ENDPOINT_GROUP": "group",
    "ENDPOINT_URL": "url",
    "RESULT_ERRORS": "errors",
    "RESULT_CONDITIONS": "conditions",
    "ALERT_TRIGGERED_OR_RESOLVED": "triggered_or_resolved",
}
_PLACEHOLDER = re.compile(r"\[([A-Z_]+)\]")
_KEY_LENGTH = 32
_NOT_IN_UID = re.compile(r"[^A-Za-z0-9_.:-]")


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel, as an endpoint of hooks. `words` are what the alarm calls its two states."""

    uid: str
    kind: str
    url: str = ""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    secret: str = ""
    insecure: bool = False
    timeout: float | None = None
    words: tuple[str, str] = ("TRIGGERED", "RESOLVED")


class _Provider(_Kebab, frozen=True):
    default_alert: AlertSettings | None = None
    overrides: tuple[dict[str, Any], ...] = ()
    title: Any = None
    client: ClientSettings | None = None


class _Custom(_Provider, frozen=True):
    url: str = ""
    method: str = ""
    body: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    placeholders: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)


class _Webhook(_Provider, frozen=True):
    url: str = ""
    secret: Secret = Secret()
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class _WebhookUrl(_Provider, frozen=True):
    webhook_url: str = ""
    message_content: Any = None


class _Telegram(_Provider, frozen=True):
    token: Secret = Secret()
    id: str = ""
    topic_id: Any = None
    api_url: str = "https://api.telegram.org"


class _PagerDuty(_Provider, frozen=True):
    integration_key: Secret = Secret()
    url: str = "https://events.pagerduty.com/v2/enqueue"


class _Ntfy(_Provider, frozen=True):
    topic: str = ""
    url: str = "https://ntfy.sh"
    priority: int = 3
    token: Secret = Secret()
    email: Any = None
    click: Any = None
    disable_firebase: Any = None
    disable_cache: Any = None


class _Email(_Provider, frozen=True):
    from_: str = msgspec.field(default="", name="from")
    to: str = ""
    host: str = ""
    port: int = 587
    username: str = ""
    password: Secret = Secret()
    security: str = ""


class _Incomplete(Exception):  # noqa: N818  never leaves this file
    """A field is missing or wrong."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field
        self.text = text


def _needed(field: str, value: str) -> str:
    if not value:
        raise _Incomplete(field, "is missing")
    return value


def _custom(given: _Custom) -> dict[str, Any]:
    url = _needed("url", given.url)
    if _PLACEHOLDER.search(url):
        raise _Incomplete("url", "placeholders are replaced in the body only")
    method = (given.method or ("POST" if given.body else "GET")).upper()
    named = {name.lower(): value for name, value in given.headers.items()}
    content_type = named.get("content-type", _type_of(given.body))
    words = given.placeholders.get("ALERT_TRIGGERED_OR_RESOLVED", {})
    return {
        "kind": "http",
        "url": url,
        "headers": {name: value for name, value in given.headers.items() if name.lower() != "content-type"},
        "options": {"method": method, "body": templated(given.body), "content_type": content_type},
        "words": (words.get("TRIGGERED", "TRIGGERED"), words.get("RESOLVED", "RESOLVED")),
    }


def templated(body: str) -> str:
    """A body with Gatus's placeholders as a template of hooks.

    >>> templated('{"text": "[ENDPOINT_NAME] is [ALERT_TRIGGERED_OR_RESOLVED]"}')
    '{"text": "{{ payload.name }} is {{ payload.triggered_or_resolved }}"}'
    """
    return _PLACEHOLDER.sub(
        lambda found: f"{{{{ payload.{_WORDS[found[1]]} }}}}" if found[1] in _WORDS else found[0], body
    )


def _type_of(body: str) -> str:
    return "application/json" if body.lstrip().startswith(("{", "[")) else "text/plain; charset=utf-8"


def _webhook(given: _Webhook) -> dict[str, Any]:
    url, secret = _needed("url", given.url), str(given.secret)
    return {"kind": "webhook", "url": url, "secret": secret, "headers": given.headers}


def _by_url(kind: str) -> Callable[[Any], dict[str, Any]]:
    return lambda given: {"kind": kind, "url": _needed("webhook-url", given.webhook_url)}


def _telegram(given: _Telegram) -> dict[str, Any]:
    options = {"token": _needed("token", str(given.token)), "chat_id": _needed("id", given.id)}
    return {"kind": "telegram", "url": given.api_url, "options": options}


def _pagerduty(given: _PagerDuty) -> dict[str, Any]:
    key = _needed("integration-key", str(given.integration_key))
    if len(key) != _KEY_LENGTH:
        raise _Incomplete("integration-key", f"takes {_KEY_LENGTH} characters")
    return {"kind": "pagerduty", "url": given.url, "options": {"routing_key": key}}


def _ntfy(given: _Ntfy) -> dict[str, Any]:
    options = {"topic": _needed("topic", given.topic), "priority": given.priority, "token": str(given.token)}
    return {"kind": "ntfy", "url": given.url, "options": options}


def _email(given: _Email) -> dict[str, Any]:
    port, password = given.port, str(given.password)
    security = given.security or {465: "tls", 25: "none"}.get(port, "starttls")
    options = {
        "to": [one.strip() for one in _needed("to", given.to).split(",")],
        "sender": _needed("from", given.from_),
        "host": _needed("host", given.host),
        "port": port,
        "security": security,
        "username": (given.username or given.from_) if password else "",
        "password": password,
    }
    return {"kind": "email", "options": options}


_PROVIDERS: dict[str, tuple[type[_Provider], Callable[[Any], dict[str, Any]]]] = {
    "custom": (_Custom, _custom),
    "webhook": (_Webhook, _webhook),
    "slack": (_WebhookUrl, _by_url("slack")),
    "discord": (_WebhookUrl, _by_url("discord")),
    "teams": (_WebhookUrl, _by_url("teams")),
    "teams-workflows": (_WebhookUrl, _by_url("teams")),
    "telegram": (_Telegram, _telegram),
    "pagerduty": (_PagerDuty, _pagerduty),
    "ntfy": (_Ntfy, _ntfy),
    "email": (_Email, _email),
}
NAMES = tuple(_PROVIDERS)


class Provider(msgspec.Struct, frozen=True):
    """A provider's channels: its own, and one for each group with an override."""

    name: str
    default_alert: AlertSettings
    channels: dict[str, Channel]  # by group; "" for all others

    def channel_of(self, group: str) -> Channel:
        """The channel for an endpoint of a group."""
        return self.channels.get(group, self.channels[""])


def read_provider(name: str, settings: Any) -> Iterator[Provider | Mistake]:
    """The provider, or what is wrong, with paths within its section."""
    kind, make = _PROVIDERS[name]
    settings = {} if settings is None else settings
    given, mistakes = convert(kind, settings, {})
    if given is None or mistakes:
        yield from mistakes
        return
    channels: dict[str, Channel] = {}
    variants: list[tuple[str, str, Mapping[str, Any]]] = [("", "", {})]
    for number, override in enumerate(given.overrides):
        place = f"overrides[{number}]"
        group = override.get("group")
        if not isinstance(group, str) or not group or group in {one for _, one, _ in variants}:
            yield Mistake(f"{place}.group", "takes the name of a group, each once")
            return
        variants.append((place, group, {key: value for key, value in override.items() if key != "group"}))
    for place, group, more in variants:
        one, mistakes = convert(kind, {**settings, **more}, {})
        if one is None or mistakes:
            yield from (Mistake(f"{place}.{mistake.path}".strip("."), mistake.text) for mistake in mistakes)
            return
        try:
            made = make(one)
        except _Incomplete as fault:
            yield Mistake(f"{place}.{fault.field}".strip("."), fault.text)
            return
        client = one.client
        channels[group] = Channel(
            uid=_NOT_IN_UID.sub("-", f"{name}-{group}") if group else name,
            insecure=client is not None and client.insecure,
            timeout=float(client.timeout) if client is not None else None,
            **made,
        )
    yield Provider(name, given.default_alert or AlertSettings(), channels)


def merged_alert(alert: AlertSettings, default: AlertSettings) -> AlertSettings:
    """The alert, and what it does not say from its provider's default."""
    fallback = AlertSettings(
        enabled=True,
        failure_threshold=3,
        success_threshold=2,
        minimum_reminder_interval=Duration(0),
        send_on_resolved=False,
        description="",
    )
    found: dict[str, Any] = {}
    for name in AlertSettings.__struct_fields__:
        values = (getattr(one, name) for one in (alert, default, fallback))
        found[name] = next((value for value in values if value is not None), None)
    found["type"] = alert.type
    return AlertSettings(**found)
