"""What every backend of the bus can do. One contract suite runs over all (tests/contract/test_bus.py).

    await bus.publish("results", [NewRecord(key, value), …])      durable when it returns
    async with bus.consume(["results"], group="store") as consumer:
        records, ack = await consumer.read()
        …                                                         the effect
        await ack()                                               these are not read again

A record is delivered at least once. Records of one key are in one partition, and in order.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from yelpaze.model.errors import StoppedError

DAY = 86_400.0

Partition = tuple[str, int]  # topic, number
Positions = Mapping[Partition, int]  # offset of the next record to read
Ack = Callable[[], Awaitable[None]]


class BusUnavailable(StoppedError):  # noqa: N818  a state, as in StoreUnavailable
    """The bus cannot be used now; it may be tried again. What was published is perhaps there."""


class Topic(msgspec.Struct, frozen=True):
    """A topic. `retention` is in seconds; the number of partitions never changes."""

    name: str
    partitions: int = 1
    retention: float = 7 * DAY


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to publish. Without `partition` its key decides.

    `is_droppable`: while the brokers are away, and there is no more room on disk, it may be lost.
    `is_transient`: it is of no use later, and not kept at all while the brokers are away.
    """

    key: str
    value: bytes
    partition: int | None = None
    is_droppable: bool = False
    is_transient: bool = False


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it was read. `at` is when it was published, in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    at: int
    key: str
    value: bytes


class TopicState(msgspec.Struct, frozen=True):
    """A topic as it stands: records that are kept, in all."""

    name: str
    partitions: int
    records: int


class Lag(msgspec.Struct, frozen=True):
    """How far a group is behind: `position` is its next record, `end` the next one to be published."""

    group: str
    topic: str
    partition: int
    position: int
    end: int

    @property
    def behind(self) -> int:
        """Records that it has not acknowledged."""
        return max(0, self.end - self.position)


class AssignmentListener(Protocol):
    """Learns which partitions a consumer reads, before it reads them and after."""

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        """Return where to start; what is missing starts at the beginning."""

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Another member has them, or will: what is kept of them is void."""


class Consumer(Protocol):
    """A member of a group. The partitions of its topics are divided among the members that are there."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def assigned(self) -> frozenset[Partition]:
        """The partitions that it reads."""

    async def read(self, most: int = 1000, wait: float = 1.0) -> tuple[list[Record], Ack]:
        """Wait up to `wait` seconds for records. Raises BusUnavailable.

        The records of a partition are in order. `ack` says that all of them, and those before, are done.
        """

    async def seek(self, positions: Positions) -> None:
        """Go on from there."""


class Bus(Protocol):
    """A log of records. An async context manager."""

    shown: str  # its name, without secrets

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def create(self, topics: Sequence[Topic]) -> None:
        """Make topics that are not there. Raises InputError if one has another number of partitions."""

    async def publish(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records; when it returns they are durable. Raises BusUnavailable, InputError."""

    def consume(
        self, topics: Sequence[str], group: str | None = None, listener: AssignmentListener | None = None
    ) -> Consumer:
        """A consumer, to be opened by `async with`.

        With a `listener` it starts where that says, else where the group has acknowledged. Without a `group`
        it reads all partitions, from their ends on, and acknowledges nothing.
        """

    async def offsets_at(self, topic: str, at: int) -> dict[Partition, int]:
        """The first offset of each partition at or after a time, in milliseconds since 1970."""

    async def topics(self) -> list[TopicState]:
        """All topics, by name."""

    async def lag(self) -> list[Lag]:
        """How far each group is behind, by group, topic and partition."""
