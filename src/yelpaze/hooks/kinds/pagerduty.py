"""`pagerduty`: Events API v2 (developer.pagerduty.com/docs/send-alert-event).

A message whose payload has `"status": "resolved"` resolves the incident of its `order_key`; any other
triggers it.
"""

from collections.abc import Iterator
from typing import Any

from yelpaze.hooks.kinds.chat import ChatOptions, check_template, text_of
from yelpaze.hooks.kinds.protocol import Builder, Content, HttpCall, Kind, Secret, Settings, cut, json_call

_MOST = 1024
_SEVERITIES = ("critical", "error", "warning", "info")
_MOST_KEY = 255


class PagerDutyOptions(ChatOptions, frozen=True, forbid_unknown_fields=True):
    """The integration key of a service; `severity` where the payload has none."""

    routing_key: str = ""
    severity: str = "critical"
    source: str = "yelpaze"


def _check(settings: Settings, options: PagerDutyOptions) -> Iterator[tuple[str, str]]:
    if len(options.routing_key) != 32 or not options.routing_key.isalnum():  # noqa: PLR2004
        yield "options.routing_key", "takes the integration key of a service: 32 letters and digits"
    if options.severity not in _SEVERITIES:
        yield "options.severity", f"takes one of {', '.join(_SEVERITIES)}"
    yield from check_template(settings, options)


def _prepare(settings: Settings, options: PagerDutyOptions, _secrets: tuple[Secret, ...]) -> Builder:
    def build(content: Content) -> HttpCall:
        payload = content.values()["payload"]
        fields: dict[str, Any] = payload if isinstance(payload, dict) else {"value": payload}
        severity = fields.get("severity")
        event: dict[str, Any] = {
            "routing_key": options.routing_key,
            "event_action": "resolve" if fields.get("status") == "resolved" else "trigger",
            "dedup_key": cut(content.order_key or content.message_id, _MOST_KEY),
            "payload": {
                "summary": cut(text_of(options.template, content), _MOST),
                "source": options.source,
                "severity": severity if severity in _SEVERITIES else options.severity,
                "custom_details": fields,
            },
        }
        return json_call(settings, settings.url, event)

    return build


PAGERDUTY = Kind(
    name="pagerduty",
    options=PagerDutyOptions,
    prepare=_prepare,
    check=_check,
    url="https://events.pagerduty.com/v2/enqueue",
    secret_options=frozenset({"routing_key"}),
)
