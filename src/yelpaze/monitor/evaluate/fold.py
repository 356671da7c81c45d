"""The verdict over a check: a fold of its results, without a clock and without I/O.

                   a vote fails               so many failing slots          so many good slots
    up ────────────────────────→ seems down ────────────────────────→ down ───────────────────────→ up
     ↑        a good slot: false_alarm │                                │  resolved: probe_cleared
     └─────────────────────────────────┘

(The states are those of Automattic's jetmon.) Each location has a vote a slot of the schedule. A slot is
*failing* once as many locations as the quorum say so, *good* once the others are too few for that, and open
until then. A vote that is older than three intervals is unknown. Thresholds count slots in a row. The
incident is dated from the first failure.
"""

from typing import Literal

import msgspec

from yelpaze.monitor.check import Check
from yelpaze.monitor.records import Reason, Result, Transition, TransitionKind

State = Literal["up", "seems_down", "down"]
STALE = 3  # intervals after which a vote is unknown
_LEAST_STALE = 15_000  # whatever the interval is: batches and checks take their time
_EVER = 1 << 62


_LEAST_EARLY = 5_000


class Vote(msgspec.Struct, gc=False, array_like=True):
    """A location's last vote: its slot, and when it was received (ms by the bus's clock)."""

    slot: int
    success: bool
    received: int


class CheckState(msgspec.Struct, gc=False, array_like=True):
    """What is known of a check. `decided`: the last slot that has a verdict.

    `first`: the failure that opened the incident, `n` its transitions so far. It is changed in place, since a
    million of them are kept.
    """

    votes: dict[str, Vote] = {}
    state: State = "up"
    decided: int = -1
    failing: int = 0
    passing: int = 0
    first: int = 0
    n: int = 0
    incident: str = ""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is open."""
        return self.state == "up" and not self.failing


class Rules(msgspec.Struct, frozen=True):
    """What the fold needs of a check, in milliseconds. `stale`: the age from which a vote is unknown."""

    key: str
    interval: int
    phase: int
    stale: int
    quorum: int
    failures: tuple[int, ...]  # thresholds, ascending
    successes: tuple[int, ...]

    @staticmethod
    def of(check: Check) -> "Rules":
        """The rules of a check."""
        options = check.options
        failures, successes = options.failure_thresholds, options.success_thresholds
        if options.kind == "push":  # each call is a slot of its own, and holds until the next
            return Rules(check.key, 1, 0, _EVER, 1, failures, successes)
        interval = int(options.interval * 1000)
        stale = max(STALE * interval, _LEAST_STALE)
        return Rules(
            check.key, interval, int(check.phase() * 1000), stale, options.quorum, failures, successes
        )

    def slot_of(self, at: int) -> int:
        """The slot that is due next to a time: its time in milliseconds, which holds for any interval."""
        return round((at - self.phase) / self.interval) * self.interval + self.phase


class Input(msgspec.Struct, frozen=True, gc=False):
    """A result with what is known when it is read: `received` and `skew` in milliseconds."""

    result: Result
    received: int
    skew: int = 0


def fold(state: CheckState, given: Input, rules: Rules) -> list[Transition]:
    """Take a result in: change the state, and return what it brings."""
    result, received = given.result, given.received
    at = result.slot - given.skew
    lateness = received - at
    early = -max(rules.interval, _LEAST_EARLY)  # a clock that is ahead, before that is known
    if not result.final or result.blind or not early <= lateness <= rules.stale:
        return []  # it is history only
    number = rules.slot_of(at)
    before = state.votes.get(result.location)
    if before is not None and number < before.slot:
        return []
    state.votes[result.location] = Vote(number, result.success, received)
    found: list[Transition] = []
    if not result.success and state.state == "up" and number > state.decided:
        _open(state, given, rules, at, found)
    verdict = _verdict(state, number, received, rules)
    if verdict is None or number <= state.decided:
        return found
    state.decided = number
    if verdict:
        state.passing += 1
        state.failing = 0
        _on_good(state, given, rules, at, found)
    else:
        state.failing += 1
        state.passing = 0
        _on_failing(state, given, rules, at, found)
    return found


def close(state: CheckState, given: Input, rules: Rules, reason: Reason) -> list[Transition]:
    """End what is open, for a reason that is no result."""
    found: list[Transition] = []
    if state.state != "up":
        _resolve(state, given, rules, given.result.slot - given.skew, reason, found)
    state.failing = state.passing = 0
    return found


def _verdict(state: CheckState, number: int, received: int, rules: Rules) -> bool | None:
    """Whether a slot is good; None while that is open."""
    fresh = failing = good = 0
    oldest = received - rules.stale
    for vote in state.votes.values():
        if vote.received < oldest:
            continue
        fresh += 1
        if vote.slot >= number:
            good += vote.success
            failing += not vote.success
    if fresh < rules.quorum:
        return None
    if failing >= rules.quorum:
        return False
    return True if fresh - good < rules.quorum else None


def _open(state: CheckState, given: Input, rules: Rules, at: int, found: list[Transition]) -> None:
    state.state = "seems_down"
    state.first = at
    state.n = 0
    state.incident = f"{rules.key}:{at}"
    _add(state, given, rules, at, "seems_down", found)


def _on_failing(state: CheckState, given: Input, rules: Rules, at: int, found: list[Transition]) -> None:
    if state.state == "up":  # the failing votes came before the incident could open
        _open(state, given, rules, at, found)
    if state.failing >= rules.failures[0] and state.state == "seems_down":
        state.state = "down"
        _add(state, given, rules, at, "down", found, state.failing)
    elif state.failing in rules.failures and state.state == "down":
        _add(state, given, rules, at, "failing", found, state.failing)


def _on_good(state: CheckState, given: Input, rules: Rules, at: int, found: list[Transition]) -> None:
    if state.state == "seems_down":
        _resolve(state, given, rules, at, "false_alarm", found)
    elif state.state == "down":
        if state.passing >= rules.successes[-1]:
            _resolve(state, given, rules, at, "probe_cleared", found)
        elif state.passing in rules.successes:
            _add(state, given, rules, at, "passing", found, state.passing)


def _resolve(
    state: CheckState, given: Input, rules: Rules, at: int, reason: Reason, found: list[Transition]
) -> None:
    _add(state, given, rules, at, "resolved", found, state.passing, reason)
    state.state = "up"
    state.incident = ""


def _add(
    state: CheckState,
    given: Input,
    rules: Rules,
    at: int,
    kind: TransitionKind,
    found: list[Transition],
    count: int = 0,
    reason: Reason = "",
) -> None:
    state.n += 1
    result = given.result
    found.append(
        Transition(
            id=f"{state.incident}:{state.n}",
            incident=state.incident,
            n=state.n,
            check=rules.key,
            kind=kind,
            at=at,
            since=state.first,
            count=count,
            reason=reason,
            locations=tuple(sorted(name for name, vote in state.votes.items() if not vote.success)),
            message=result.message,
            conditions=result.conditions,
            status=result.status,
            config=result.config,
        )
    )
