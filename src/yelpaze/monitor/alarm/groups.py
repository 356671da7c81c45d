"""Groups of alarms for a channel, as Alertmanager has them: pure, `now` comes in. Times are milliseconds.

    first alarm ──group_wait──→ sent ──a change, group_interval after the last──→ sent, …

An alarm that is resolved before it was sent is never sent. One that is muted (by a parent, a silence) is
held, and sent when it is muted no longer and still firing.
"""

from collections.abc import Callable

import msgspec


class Item(msgspec.Struct):
    """An alarm of one check in a group.

    `sent`: whether the channel knows of it; `is_anew`: it knows of the one before, and not of its end.
    `hold`: it is not sent before, while a parent is looked at.
    """

    check: str
    incident: str
    since: int
    message: str = ""
    conditions: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    status: int = 0
    description: str = ""
    count: int = 0
    reminder: int = 0  # milliseconds between reminders; 0 for none
    send_on_resolved: bool = False
    resolved: int = 0  # when, or 0
    reason: str = ""
    sent: bool = False
    is_anew: bool = False
    hold: int = 0


class Group(msgspec.Struct):
    """A group. `due`: the next look at it; `sent`: notifications so far; `last`: when the last was made."""

    key: str
    channel: str
    items: dict[str, Item] = {}
    due: int | None = None
    sent: int = 0
    last: int = 0


class Notification(msgspec.Struct, frozen=True):
    """What to tell a channel: alarms that fire, and those that have ended since. `is_reminder`: again."""

    firing: tuple[Item, ...]
    resolved: tuple[Item, ...]
    is_reminder: bool = False


Muted = Callable[[Item], bool]


def fire(group: Group, item: Item, now: int, wait: int, interval: int) -> None:
    """An alarm begins, or begins anew."""
    before = group.items.get(item.check)
    item.is_anew = before is not None and (before.sent or before.is_anew)
    group.items[item.check] = item
    _set_due(group, now, wait if not group.sent else 0, interval, hold=item.hold)


def resolve(group: Group, check: str, at: int, reason: str, now: int, interval: int) -> None:
    """An alarm ends."""
    item = group.items.get(check)
    if item is None:
        return
    if not item.sent and not item.is_anew:
        del group.items[check]
        if not _is_pending(group):
            group.due = _next_reminder(group)
        return
    item.resolved, item.reason = at, reason
    _set_due(group, now, 0, interval)


def flush(  # noqa: C901  one branch for each state of an alarm
    group: Group, now: int, muted: Muted, look_again: int
) -> Notification | None:
    """What the channel is to be told now, if anything; `look_again`: ms until held alarms are looked at."""
    if group.due is None or group.due > now:
        return None
    held = False
    news: list[Item] = []
    ended: list[Item] = []
    reminded = False
    for item in list(group.items.values()):
        if item.resolved:
            del group.items[item.check]
            if item.send_on_resolved:
                ended.append(item)
        elif not item.sent and (item.hold > now or muted(item)):
            held = True
        elif not item.sent:
            news.append(item)
        elif item.reminder and group.last + item.reminder <= now and not muted(item):
            reminded = True
    for item in news:
        item.sent = True
    if news or ended or reminded:
        group.sent += 1
        group.last = now
    group.due = now + look_again if held else _next_reminder(group)
    if not (news or ended or reminded):
        return None
    firing = tuple(one for one in group.items.values() if one.sent)
    return Notification(firing, tuple(ended), is_reminder=reminded and not (news or ended))


def _set_due(group: Group, now: int, wait: int, interval: int, hold: int = 0) -> None:
    due = max(now + wait, group.last + interval if group.sent else 0, hold)
    group.due = due if group.due is None or not _is_pending(group) else min(group.due, due)


def _is_pending(group: Group) -> bool:
    """Whether the channel has yet to be told of something."""
    return any(not one.sent or one.resolved for one in group.items.values())


def _next_reminder(group: Group) -> int | None:
    times = [group.last + one.reminder for one in group.items.values() if one.sent and one.reminder]
    return min(times, default=None)
