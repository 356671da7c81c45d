"""What a node has done and has, as frozen values that can be added up over processes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec


class NodeTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one node, or of several together.

    - `connections`, `users`, `channels`, `subscriptions`: now; the rest since the start.
    - `closed`: connections that ended, by close code.
    - `commands`: commands done, by method; `refused`: by error code.
    - `delivered`: publications given to connections; `missed`: streams that could not be made whole again.
    """

    connections: dict[str, int] = {}
    users: int = 0
    channels: int = 0
    subscriptions: int = 0
    accepted: dict[str, int] = {}
    closed: dict[int, int] = {}
    commands: dict[str, int] = {}
    refused: dict[int, int] = {}
    published: int = 0
    delivered: int = 0
    missed: int = 0
    outages: int = 0
    rejected: dict[int, int] = {}  # handshakes and requests, by HTTP status


class Statistics:
    """A node's counters while it works."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.commands: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.rejected: Counter[int] = Counter()
        self.published = 0
        self.outages = 0


def added(totals: Iterable[NodeTotals]) -> NodeTotals:
    """Several nodes' counts as one."""
    numbers: dict[str, Any] = dict.fromkeys(("users", "channels"), 0)
    counters: dict[str, Counter[object]] = {}
    for one in totals:
        for name in NodeTotals.__struct_fields__:
            value = getattr(one, name)
            if isinstance(value, dict):
                counters.setdefault(name, Counter()).update(value)
            else:
                numbers[name] = numbers.get(name, 0) + value
    found: dict[str, Any] = {name: dict(counter) for name, counter in counters.items()}
    return NodeTotals(**numbers, **found)
