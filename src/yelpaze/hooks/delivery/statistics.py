"""Counters of deliveries, and a frozen value of them that can be summed over processes."""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from yelpaze.model.histogram import Histogram


class HooksTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one process, or of several together.

    Attributes:
        attempts: Attempts by `kind|status|reason`; the reason of a success is empty.
        accepted: Messages taken in.
        refused: Results that were not written because the shard had another owner.
        disabled: Endpoints disabled.
        expired: Deliveries that were not attempted any more because they had expired.
        outages: Times that the store was away.
        first_attempt: Seconds from accepted to the first attempt, as `Histogram.counts()`.
        delivered: Seconds from accepted to delivered, likewise.
        queue_ages: Seconds that the oldest delivery of each shard has waited for its turn, now.
        under_way: Attempts now.
        backlog: Deliveries in memory that wait for their turn, now.

    """

    attempts: dict[str, int] = {}
    accepted: int = 0
    refused: int = 0
    disabled: int = 0
    expired: int = 0
    outages: int = 0
    first_attempt: dict[str, float] = {}
    delivered: dict[str, float] = {}
    queue_ages: dict[int, float] = {}
    under_way: int = 0
    backlog: int = 0


class DeliveryCounters:
    """The counters of a process while it works."""

    def __init__(self) -> None:
        self.attempts: Counter[tuple[str, int, str]] = Counter()
        self.accepted = 0
        self.refused = 0
        self.disabled = 0
        self.expired = 0
        self.outages = 0
        self.first_attempt = Histogram()
        self.delivered = Histogram()

    def totals(self, queue_ages: dict[int, float], under_way: int, backlog: int) -> HooksTotals:
        """The counts as they stand."""
        return HooksTotals(
            attempts={
                f"{kind}|{status}|{why}": count for (kind, status, why), count in self.attempts.items()
            },
            accepted=self.accepted,
            refused=self.refused,
            disabled=self.disabled,
            expired=self.expired,
            outages=self.outages,
            first_attempt=self.first_attempt.counts(),
            delivered=self.delivered.counts(),
            queue_ages=queue_ages,
            under_way=under_way,
            backlog=backlog,
        )


def added(totals: Iterable[HooksTotals]) -> HooksTotals:
    """Several processes' counts as one."""
    every = list(totals)
    attempts: Counter[str] = Counter()
    for one in every:
        attempts.update(one.attempts)
    return HooksTotals(
        attempts=dict(attempts),
        accepted=sum(one.accepted for one in every),
        refused=sum(one.refused for one in every),
        disabled=sum(one.disabled for one in every),
        expired=sum(one.expired for one in every),
        outages=sum(one.outages for one in every),
        first_attempt=_merged(one.first_attempt for one in every),
        delivered=_merged(one.delivered for one in every),
        queue_ages={shard: age for one in every for shard, age in one.queue_ages.items()},
        under_way=sum(one.under_way for one in every),
        backlog=sum(one.backlog for one in every),
    )


def _merged(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    whole = Histogram()
    for one in counts:
        whole = whole.merged(Histogram.of(one))
    return whole.counts()
