"""What an alarm says: the payload of its message, with a title and a text for chats and mails."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from yelpaze.model.secrets import SECRETS
from yelpaze.monitor.alarm.groups import Item, Notification
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.providers import Channel

_MOST_LISTED = 50


def payload_of(
    notification: Notification, checks: Mapping[str, Check], channel: Channel, number: int
) -> dict[str, Any]:
    """The payload: fields of the first alarm, as Gatus's placeholders name them, and a list of all."""
    items = notification.firing or notification.resolved
    is_resolved = not notification.firing
    first = items[0]
    check = checks.get(first.check)
    alarms = [_listed(one, checks, "firing") for one in notification.firing[:_MOST_LISTED]]
    alarms += [_listed(one, checks, "resolved") for one in notification.resolved[:_MOST_LISTED]]
    return {
        "status": "resolved" if is_resolved else "firing",
        "triggered_or_resolved": channel.words[is_resolved],
        "title": _title(notification, checks),
        "text": _text(notification, checks),
        "name": check.name if check is not None else first.check,
        "group": check.group if check is not None else "",
        "key": first.check,
        "url": _url(check),
        "description": first.description,
        "errors": first.message,
        "conditions": ", ".join(first.conditions),
        "incident": first.incident,
        "since": _time(first.since),
        "is_reminder": notification.is_reminder,
        "number": number,
        "alarms": alarms,
    }


def _listed(item: Item, checks: Mapping[str, Check], status: str) -> dict[str, Any]:
    check = checks.get(item.check)
    listed: dict[str, Any] = {
        "status": status,
        "key": item.check,
        "name": check.title if check is not None else item.check,
        "incident": item.incident,
        "since": _time(item.since),
        "message": item.message,
        "conditions": list(item.conditions),
        "locations": list(item.locations),
    }
    if item.resolved:
        listed |= {"resolved": _time(item.resolved), "reason": item.reason}
    return listed


def _title(notification: Notification, checks: Mapping[str, Check]) -> str:
    firing, resolved = notification.firing, notification.resolved
    items = firing or resolved
    state = "DOWN" if firing else "RESOLVED"
    again = " (still)" if notification.is_reminder else ""
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"{state}{again}: {_name(items[0], checks)}{more}"


def _text(notification: Notification, checks: Mapping[str, Check]) -> str:
    lines = []
    for item in notification.firing[:_MOST_LISTED]:
        what = item.message or "; ".join(item.conditions)
        where = f" from {', '.join(item.locations)}" if item.locations else ""
        lines.append(f"{_name(item, checks)} is down since {_time(item.since)}{where}: {what}")
        if item.description:
            lines.append(f"  {item.description}")
    for item in notification.resolved[:_MOST_LISTED]:
        lasted = _duration(item.resolved - item.since)
        why = "" if item.reason == "probe_cleared" else f" ({item.reason})"
        lines.append(f"{_name(item, checks)} is up again since {_time(item.resolved)}, after {lasted}{why}")
    left = len(notification.firing) + len(notification.resolved) - len(lines)
    if left > 0 and len(lines) >= _MOST_LISTED:
        lines.append(f"… and {left} more")
    return "\n".join(lines)


def _name(item: Item, checks: Mapping[str, Check]) -> str:
    check = checks.get(item.check)
    return check.title if check is not None else item.check


def _url(check: Check | None) -> str:
    return SECRETS.url(check.url) if check is not None and not check.options.hide_url else ""


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(milliseconds: int) -> str:
    """A length of time, in its two largest units.

    >>> _duration(3_725_000), _duration(59_000)
    ('1 h 2 min', '59 s')
    """
    seconds = max(0, milliseconds) // 1000
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for size, name in units:
        if seconds >= size or (size == 1 and not parts):
            parts.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(parts[:2])
