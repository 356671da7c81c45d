"""Counts of an engine, as a frozen snapshot that metrics and progress bars read."""

from typing import Literal

import msgspec

from yelpaze.model.histogram import Histogram


class HostStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One host since it was first called. Durations are in seconds.

    - `state`: the breaker's, or `down` once it was given up.
    - `paused`: how long no call starts yet, because the host or its breaker says so.
    - `limit`, `in_flight`, `waiting`: calls at once that are allowed, under way, and queued.
    - `latency`, `queueing`: of attempts that got an answer; of calls that had to wait.
    """

    requests: int
    attempts: int
    retries: int
    hedges: int
    failures: int
    statuses: dict[str, int]
    state: Literal["closed", "open", "half_open", "down"]
    paused: float
    limit: int
    in_flight: int
    waiting: int
    latency: Histogram
    queueing: Histogram


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the engine was opened, and what is under way now; `hosts` by name."""

    requests: int
    attempts: int
    retries: int
    hedges: int
    shared: int
    in_flight: int
    hosts: dict[str, HostStatistics]
    unmatched: tuple[str, ...] = ()
