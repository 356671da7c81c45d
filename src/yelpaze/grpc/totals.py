"""What all processes of a server have done together."""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from yelpaze.grpc.control import ProcessReport


class ServerTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes have done, those that are gone too.

    `started` by method; `handled` by method and status; `seconds` by method: how many calls took at most
    each of `control.BUCKETS`, how many longer, and the sum.
    """

    started: dict[str, int]
    handled: dict[tuple[str, str], int]
    seconds: dict[str, list[float]]
    running: int
    waiting: int
    processes: int
    restarts: dict[str, int]


def totals(
    gone: ProcessReport, now: list[ProcessReport], *, processes: int, restarts: Mapping[str, int]
) -> ServerTotals:
    """The sum of what those that are gone did and those that are there do now."""
    whole = summed([gone, *now])
    return ServerTotals(
        started=whole.started,
        handled=whole.handled,
        seconds=whole.seconds,
        running=sum(report.running for report in now),
        waiting=sum(report.waiting for report in now),
        processes=processes,
        restarts=dict(restarts),
    )


def summed(reports: Iterable[ProcessReport]) -> ProcessReport:
    """What was done, as one report; nothing runs or waits in it."""
    started, handled = Counter[str](), Counter[tuple[str, str]]()
    seconds: dict[str, list[float]] = {}
    for report in reports:
        started.update(report.started)
        handled.update(report.handled)
        for method, values in report.seconds.items():
            before = seconds.get(method, [0.0] * len(values))
            seconds[method] = [a + b for a, b in zip(before, values, strict=True)]
    return ProcessReport(started=dict(started), handled=dict(handled), seconds=seconds, running=0, waiting=0)
