"""The records of a monitor on the bus: JSON with these fields, on these topics.

    results          key: the check; all locations of a check are in one partition
    probe.LOCATION   key: the check; a partition is a share of the location's checks; requests to check now
    locations        key: the location; a heartbeat each 5 seconds
    commands         acknowledge, silence, maintenance
    transitions      one partition: one alarm service sees all checks
    alarms           key: the order key; messages for hooks
    dead             records that could not be read

Times are milliseconds since 1970.
"""

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar, cast
from zlib import crc32

import msgspec

from yelpaze.bus.protocol import DAY, Bus, BusUnavailable, NewRecord, Record, Topic

T = TypeVar("T", bound=msgspec.Struct)
RESULTS, LOCATIONS, COMMANDS = "results", "locations", "commands"
TRANSITIONS, ALARMS, DEAD = "transitions", "alarms", "dead"
RESULT_PARTITIONS = 64
PROBE_PARTITIONS = 16
APPLICATION = "monitor"  # of hooks
PUSH = "push"  # the location of push checks

TransitionKind = Literal["seems_down", "down", "failing", "passing", "resolved"]
Reason = Literal["", "probe_cleared", "false_alarm", "maintenance", "superseded"]
CommandKind = Literal["ack", "unack", "silence", "unsilence", "maintenance", "end_maintenance"]


class _Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A record. Unknown fields are skipped, so that newer services can add some."""


class Result(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What one try of a check came to, at one location.

    - `slot`: when it was due, by the location's clock; `sent`: when it was published, by the same clock.
    - `attempt`: 1, or more if a failure was checked again at once; only the `final` one is a vote.
    - `error`: its kind for programs; `message` for people; `conditions`: those that failed, with values.
    - `timings`: milliseconds until look-up, connection, TLS, first byte and end.
    - `certificate`: when it expires. `blind`: everything failed at that location: no vote.
    - `missed`: a push check that did not call. `config`: hash of the configuration.
    """

    check: str
    location: str
    slot: int
    sent: int
    attempt: int = 1
    final: bool = True
    success: bool = False
    status: int = 0
    error: str = ""
    message: str = ""
    conditions: tuple[str, ...] = ()
    duration: float = 0.0
    timings: tuple[float, float, float, float] | None = None
    certificate: int | None = None
    blind: bool = False
    missed: bool = False
    request: str = ""
    config: str = ""


class ProbeRequest(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Check now: to confirm a failure that another location saw, or because somebody asked."""

    check: str
    slot: int
    id: str
    expires: int


class Heartbeat(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A probe is there. `sent` by its clock; `late`: p99 of the lateness of its checks, in milliseconds."""

    location: str
    probe: str
    sent: int
    blind: bool = False
    checks: int = 0
    late: float = 0.0


class Transition(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A change of a check's state. `id` is `incident:n`, `incident` is `check:slot of the first failure`.

    - `at`: the slot that brought it; `since`: the first failure. `count`: slots in a row.
    - `locations`: where it failed last. `message`: what failed.
    """

    id: str
    incident: str
    n: int
    check: str
    kind: TransitionKind
    at: int
    since: int
    count: int = 0
    reason: Reason = ""
    locations: tuple[str, ...] = ()
    message: str = ""
    conditions: tuple[str, ...] = ()
    status: int = 0
    config: str = ""


class Command(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What an operator asks for. `id` makes it happen once.

    - `incident` for ack; `matchers` (`key`, `group`, `name` or a label, to a value), `since` and `until` for
      silence and maintenance; `target`: the silence or maintenance to end.
    """

    id: str
    kind: CommandKind
    at: int
    by: str = ""
    comment: str = ""
    incident: str = ""
    matchers: dict[str, str] = {}
    since: int = 0
    until: int = 0
    target: str = ""


class Alarm(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message for hooks, as its API takes it, and the application that it is of.

    `channels` has the one channel that it goes to. A newer one with its order key takes its place.
    """

    app: str = APPLICATION
    event_id: str
    event_type: str
    payload: dict[str, Any]
    channels: tuple[str, ...]
    order_key: str
    expires_at: datetime
    schedule: str = "alarm"


class Dead(_Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A record that could not be read, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: str


OF_TOPIC: dict[str, type[msgspec.Struct]] = {
    RESULTS: Result,
    LOCATIONS: Heartbeat,
    COMMANDS: Command,
    TRANSITIONS: Transition,
    ALARMS: Alarm,
    DEAD: Dead,
    "probe.LOCATION": ProbeRequest,
}
_DECODERS = {kind: msgspec.json.Decoder(kind) for kind in OF_TOPIC.values()}
encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def topics(locations: tuple[str, ...]) -> list[Topic]:
    """All topics of a monitor."""
    return [
        Topic(RESULTS, RESULT_PARTITIONS, 3 * DAY),
        Topic(LOCATIONS, 1, DAY),
        Topic(COMMANDS, 1, 30 * DAY),
        Topic(TRANSITIONS, 1, 30 * DAY),
        Topic(ALARMS, 8, 7 * DAY),
        Topic(DEAD, 1, 30 * DAY),
        *(Topic(probe_topic(one), PROBE_PARTITIONS, DAY) for one in locations),
    ]


def shard_of(check: str) -> int:
    """The partition of `probe.LOCATION` that a check belongs to."""
    return crc32(check.encode()) % PROBE_PARTITIONS


def probe_topic(location: str) -> str:
    """The topic of a location's probes."""
    return f"probe.{location}"


def decode(record: Record, kind: type[T]) -> T | Dead:
    """The value of a record, or why it has none."""
    try:
        value: Any = _DECODERS[kind].decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Dead(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=str(error),
            value=record.value[:4096].decode("utf-8", "replace"),
        )
    return cast(T, value)


async def decoded(bus: Bus, records: Sequence[Record], kind: type[T]) -> list[tuple[Record, T]]:
    """The records with their values. What cannot be read goes to the topic `dead`, and is left out."""
    found: list[tuple[Record, T]] = []
    dead: list[Dead] = []
    for record in records:
        value = decode(record, kind)
        if isinstance(value, Dead):
            dead.append(value)
        else:
            found.append((record, value))
    if dead:
        with contextlib.suppress(BusUnavailable):
            await bus.publish(DEAD, [record_of(one) for one in dead])
    return found


Value = Result | Heartbeat | Transition | Command | Alarm | Dead | ProbeRequest


def record_of(value: Value) -> NewRecord:  # noqa: PLR0911  one for each kind
    """A value as a record, with its key."""
    match value:
        case Result():
            return NewRecord(value.check, encode(value), is_droppable=value.success)
        case Heartbeat():
            return NewRecord(value.location, encode(value), is_transient=True)
        case ProbeRequest():
            return NewRecord(value.check, encode(value), shard_of(value.check))
        case Transition():
            return NewRecord(value.check, encode(value))
        case Alarm():
            return NewRecord(value.order_key, encode(value))
        case Command():
            return NewRecord(value.id, encode(value))
        case _:
            return NewRecord(value.topic, encode(value))
