"""The bus of many machines: Kafka, through librdkafka (confluent-kafka).

The classic `Producer` is used with a poll thread of our own, and the classic `Consumer` in one thread each:
the asyncio classes of confluent-kafka 2.16 never send a trickle and lose what a cancelled read had fetched.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Consumer as KafkaClient
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from yelpaze.bus.protocol import (
    Ack,
    AssignmentListener,
    BusUnavailable,
    Lag,
    NewRecord,
    Partition,
    Positions,
    Record,
    Topic,
    TopicState,
)
from yelpaze.bus.settings import BusSettings
from yelpaze.bus.sqlite import mismatch
from yelpaze.model.errors import InputError
from yelpaze.model.notice import Level, Notice, Report

T = TypeVar("T")
_POLL_SECONDS = 0.1
_ADMIN_SECONDS = 10.0
_KNOWN_SECONDS = 0.05
_PUBLISH_MS = 10_000  # after which a record has failed, and goes to the spool if there is one
_AT_ONCE = 10_000  # records given to librdkafka at once
_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001  librdkafka's local errors have no public names
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


class KafkaBus:
    """See Bus. Raises InputError for settings that the brokers refuse."""

    def __init__(self, settings: BusSettings, report: Report) -> None:
        self.shown = settings.url
        self.settings = settings
        self._report = report
        self._refusal = ""
        self._was_there = False  # brokers that once took us refuse us only for a while
        self._known: set[str] = set()
        self._is_away = False
        self._producer: Producer | None = None
        self._admin: AdminClient | None = None
        self._polling: threading.Thread | None = None
        self._is_closing = threading.Event()
        self._blocking = ThreadPoolExecutor(2, "yelpaze-kafka")

    def configuration(self, **more: Any) -> dict[str, Any]:
        """Librdkafka's configuration for these brokers."""
        settings, found = self.settings, dict(more)
        found["bootstrap.servers"] = settings.url.removeprefix("kafka://").rstrip("/")
        found["client.id"] = "yelpaze"
        found["error_cb"] = self._on_error
        found["log_level"] = 0  # errors come to error_cb; librdkafka would write them to stderr as well
        found["socket.keepalive.enable"] = True
        found["reconnect.backoff.max.ms"] = 1000
        tls, sasl = settings.tls, settings.sasl
        protocol = "SASL_" if sasl.username else ""
        found["security.protocol"] = f"{protocol}{'SSL' if tls.enabled else 'PLAINTEXT'}"
        if sasl.username:
            found["sasl.mechanism"] = sasl.mechanism
            found["sasl.username"] = sasl.username
            found["sasl.password"] = str(sasl.password)
        if tls.ca:
            found["ssl.ca.location"] = tls.ca
        if tls.cert:
            found["ssl.certificate.location"] = tls.cert
            found["ssl.key.location"] = tls.key
        return {name: value for name, value in found.items() if value is not None}

    async def __aenter__(self) -> Self:
        self._refusal = ""
        self._is_closing = threading.Event()
        self._blocking = ThreadPoolExecutor(2, "yelpaze-kafka")
        try:
            self._admin = AdminClient(self.configuration())
            self._producer = Producer(
                self.configuration(
                    **{
                        "enable.idempotence": True,
                        "partitioner": "murmur2_random",  # as Java's
                        "linger.ms": 5,
                        "compression.type": "lz4",
                        "message.timeout.ms": _PUBLISH_MS,
                        "queue.buffering.max.messages": 1_000_000,
                    }
                )
            )
        except KafkaException as error:
            raise InputError(f"{self.shown}: {_text(error)}") from None
        self._polling = threading.Thread(target=self._poll, name="yelpaze-kafka-poll", daemon=True)
        self._polling.start()
        try:
            await self._metadata()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        self._is_closing.set()
        if self._polling is not None:
            await asyncio.to_thread(self._polling.join)
        if self._producer is not None:
            await self.in_thread(self._producer.purge)
            self._producer = None
        self._admin = None
        self._blocking.shutdown(wait=False)

    def _poll(self) -> None:
        assert self._producer is not None
        producer, closing = self._producer, self._is_closing
        while not closing.is_set():
            producer.poll(_POLL_SECONDS)

    def _on_error(self, error: KafkaError) -> None:
        """Called by librdkafka's threads, while they poll."""
        if error.code() in _REFUSED:
            self._refusal = error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._is_away:  # noqa: SLF001
            self._is_away = True
            self._report(Notice("bus.away", f"{self.shown}: no broker can be reached", Level.WARNING))

    # ── topics ──────────────────────────────────────────────────────────────────

    async def create(self, topics: Sequence[Topic]) -> None:
        known = (await self._metadata()).topics
        for topic in topics:
            found = known.get(self.full(topic.name))
            if found is not None and len(found.partitions) != topic.partitions:
                raise mismatch(topic, len(found.partitions))
        missing = [
            NewTopic(
                self.full(topic.name),
                num_partitions=topic.partitions,
                replication_factor=self.settings.replication,
                config={
                    "retention.ms": str(int(topic.retention * 1000)),
                    "message.timestamp.type": "LogAppendTime",  # the brokers' clock, whatever a producer's is
                },
            )
            for topic in topics
            if self.full(topic.name) not in known
        ]
        if not missing:
            return
        admin = self._administrator()
        for name, future in admin.create_topics(missing).items():
            try:
                await self._result(future)
            except KafkaException as error:
                if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                    raise InputError(f"{self.shown}: topic {name} cannot be made: {_text(error)}") from None
        await self._until_known([self.full(topic.name) for topic in topics])

    async def _until_known(self, names: Sequence[str]) -> None:
        """Wait until the brokers tell of new topics: that they are made is known only a little later."""
        try:
            async with asyncio.timeout(_ADMIN_SECONDS):
                while set(names) - set((await self._metadata()).topics):  # noqa: ASYNC110  Kafka has no event
                    await asyncio.sleep(_KNOWN_SECONDS)
        except TimeoutError:
            raise BusUnavailable(f"{self.shown}: topics that were made are not known yet") from None

    async def topics(self) -> list[TopicState]:
        known = (await self._metadata()).topics
        found = []
        for name in self._ours(known):
            partitions = [(name, number) for number in known[self.full(name)].partitions]
            ends = await self._offsets(partitions, OFFSET_END)
            begins = await self._offsets(partitions, OFFSET_BEGINNING)
            records = sum(ends[one] - begins[one] for one in partitions)
            found.append(TopicState(name, len(partitions), records))
        return found

    async def partitions_of(self, topic: str) -> int:
        """The number of a topic's partitions. Raises InputError."""
        known = (await self._metadata()).topics
        if self.full(topic) not in known:
            names = self._ours(known)
            hint = f"; there are {', '.join(names)}" if names else ""
            raise InputError(f"there is no topic {topic}{hint}")
        return len(known[self.full(topic)].partitions)

    def full(self, name: str) -> str:
        """A topic's or group's name at the brokers."""
        return f"{self.settings.prefix}{name}"

    def short(self, name: str) -> str:
        """The name without the prefix."""
        return name.removeprefix(self.settings.prefix)

    def _ours(self, known: Iterable[str]) -> list[str]:
        prefix = self.settings.prefix
        return sorted(self.short(one) for one in known if one.startswith(prefix) and not one.startswith("__"))

    async def lag(self) -> list[Lag]:
        admin = self._administrator()
        groups = (await self._result(admin.list_consumer_groups(request_timeout=_ADMIN_SECONDS))).valid
        found = []
        for group in self._ours(one.group_id for one in groups):
            asked = [ConsumerGroupTopicPartitions(self.full(group))]
            future = admin.list_consumer_group_offsets(asked)[self.full(group)]
            offsets = (await self._result(future)).topic_partitions
            known = {(self.short(one.topic), one.partition): one.offset for one in offsets if one.offset >= 0}
            ends = await self._offsets(list(known), OFFSET_END)
            found += [Lag(group, *one, at, ends[one]) for one, at in sorted(known.items())]
        return found

    async def offsets_at(self, topic: str, at: int) -> dict[Partition, int]:
        partitions = [(topic, number) for number in range(await self.partitions_of(topic))]
        client = KafkaClient(self.configuration(**{"group.id": "yelpaze-look-up"}))
        try:
            asked = [TopicPartition(self.full(topic), number, at) for _, number in partitions]
            found = await self.in_thread(partial(client.offsets_for_times, asked, timeout=_ADMIN_SECONDS))
        except KafkaException as error:
            raise self.unavailable(error) from None
        finally:
            await self.in_thread(client.close)
        ends = await self._offsets(partitions, OFFSET_END)
        return {
            (topic, one.partition): one.offset if one.offset >= 0 else ends[topic, one.partition]
            for one in found
        }

    async def _offsets(self, partitions: Sequence[Partition], where: int) -> dict[Partition, int]:
        """The first or the next offset of partitions."""
        if not partitions:
            return {}
        client = KafkaClient(self.configuration(**{"group.id": "yelpaze-look-up"}))

        def look_up() -> dict[Partition, int]:
            found = {}
            for one in partitions:
                place = TopicPartition(self.full(one[0]), one[1])
                low, high = client.get_watermark_offsets(place, timeout=_ADMIN_SECONDS)
                found[one] = high if where == OFFSET_END else low
            return found

        try:
            return await self.in_thread(look_up)
        except KafkaException as error:
            raise self.unavailable(error) from None
        finally:
            await self.in_thread(client.close)

    async def ends_of(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset of the next record of each partition."""
        return await self._offsets(partitions, OFFSET_END)

    # ── publishing ──────────────────────────────────────────────────────────────

    async def publish(self, topic: str, records: Sequence[NewRecord]) -> None:
        if topic not in self._known:  # librdkafka would wait for it until the records time out
            await self.partitions_of(topic)
            self._known.add(topic)
        for start in range(0, len(records), _AT_ONCE):
            await self._publish(topic, records[start : start + _AT_ONCE])

    async def _publish(self, topic: str, records: Sequence[NewRecord]) -> None:
        producer = self._producer
        if producer is None:
            raise BusUnavailable(f"{self.shown}: the bus is closed")
        batch = _Batch(len(records), asyncio.get_running_loop())
        # A partition in the message itself has no effect (confluent-kafka 2.16).
        by_partition: dict[int, list[dict[str, Any]]] = {}
        for record in records:
            number = -1 if record.partition is None else record.partition
            by_partition.setdefault(number, []).append({"key": record.key, "value": record.value})
        for number, messages in by_partition.items():
            queued = producer.produce_batch(self.full(topic), messages, number, on_delivery=batch.on_delivery)
            if queued < len(messages):
                errors = [message["_error"] for message in messages if "_error" in message]
                batch.failed(errors[0], len(messages) - queued)
        error = await batch.done
        if error is None:
            self._is_away = False
            return
        if error.code() == KafkaError._UNKNOWN_PARTITION:  # noqa: SLF001
            raise InputError(f"{self.shown}: topic {topic} has no such partition")
        raise BusUnavailable(f"{self.shown}: {self._refusal or error.str()}")

    def consume(
        self, topics: Sequence[str], group: str | None = None, listener: AssignmentListener | None = None
    ) -> "KafkaConsumer":
        return KafkaConsumer(self, topics, group, listener)

    # ── threads and errors ──────────────────────────────────────────────────────

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do blocking work of librdkafka."""
        return await asyncio.get_running_loop().run_in_executor(self._blocking, work)

    def unavailable(self, error: KafkaException) -> BusUnavailable:
        """The error for callers."""
        return BusUnavailable(f"{self.shown}: {self._refusal or _text(error)}")

    def _administrator(self) -> AdminClient:
        if self._admin is None:
            raise BusUnavailable(f"{self.shown}: the bus is closed")
        return self._admin

    async def _metadata(self) -> Any:
        admin = self._administrator()
        try:
            found = await self.in_thread(partial(admin.list_topics, timeout=_ADMIN_SECONDS))
        except KafkaException as error:
            if self._refusal and not self._was_there:
                raise InputError(f"{self.shown}: {self._refusal}") from None
            raise self.unavailable(error) from None
        self._refusal, self._was_there = "", True
        return found

    async def _result(self, future: "Future[T]") -> T:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), _ADMIN_SECONDS + 1)
        except TimeoutError:
            raise BusUnavailable(f"{self.shown}: no answer within {_ADMIN_SECONDS:g} s") from None


class _Batch:
    """Records that are on their way; `done` has the first error, or None, once all have ended."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._left = count
        self._loop = loop
        self._error: KafkaError | None = None
        self._lock = threading.Lock()
        self.done: asyncio.Future[KafkaError | None] = loop.create_future()
        if not count:
            self.done.set_result(None)

    def on_delivery(self, error: KafkaError | None, _message: object) -> None:
        """Called in the poll thread, for each record."""
        self._end(error, 1)

    def failed(self, error: Any, count: int) -> None:
        """So many were not even queued."""
        self._end(error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error)), count)  # noqa: SLF001

    def _end(self, error: KafkaError | None, count: int) -> None:
        with self._lock:
            self._left -= count
            self._error = self._error or error
            is_over = self._left == 0
        if is_over:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.done.done():
            self.done.set_result(self._error)


class KafkaConsumer:
    """See Consumer. Its client is used by one thread only."""

    def __init__(
        self, bus: KafkaBus, topics: Sequence[str], group: str | None, listener: AssignmentListener | None
    ) -> None:
        self._bus = bus
        self._names = list(topics)
        self._group = group
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "yelpaze-kafka-read")
        self._assigned: frozenset[Partition] = frozenset()
        self._client: Any = None
        self._problem: BaseException | None = None

    @property
    def assigned(self) -> frozenset[Partition]:
        return self._assigned

    async def __aenter__(self) -> Self:
        counts = [(name, await self._bus.partitions_of(name)) for name in self._names]
        settings = self._bus.settings
        self._client = KafkaClient(
            self._bus.configuration(
                **{
                    "group.id": self._bus.full(self._group or "yelpaze-tail"),
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    "session.timeout.ms": max(6000, int(settings.lease * 1000)),
                    "heartbeat.interval.ms": 1000,
                    "fetch.wait.max.ms": 100,
                }
            )
        )
        if self._group is not None:
            names = [self._bus.full(name) for name in self._names]
            self._client.subscribe(names, on_assign=self._on_assign, on_revoke=self._on_revoke)
            return self
        partitions = [(name, number) for name, count in counts for number in range(count)]
        given = await self._listener.on_assigned(partitions) if self._listener is not None else {}
        ends = await self._bus.ends_of([one for one in partitions if one not in given])
        starts = [
            TopicPartition(self._bus.full(one[0]), one[1], given.get(one, ends.get(one, 0)))
            for one in partitions
        ]
        await self._do(partial(self._client.assign, starts))
        self._assigned = frozenset(partitions)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        await asyncio.shield(self._do(client.close))
        self._thread.shutdown(wait=False)
        self._assigned = frozenset()

    async def read(self, most: int = 1000, wait: float = 1.0) -> tuple[list[Record], Ack]:
        # A read that is cancelled would lose what it has fetched: the thread ends it, and it is kept.
        reading = asyncio.ensure_future(self._do(partial(self._fetch, most, wait)))
        try:
            messages = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        except KafkaException as error:
            raise self._bus.unavailable(error) from None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        records: list[Record] = []
        positions: dict[Partition, int] = {}
        for message in messages:
            fault = message.error()
            if fault is not None:
                raise BusUnavailable(f"{self._bus.shown}: {fault.str()}")
            topic, number = self._bus.short(message.topic()), message.partition()
            offset = message.offset()
            if (topic, number) not in self._assigned:
                continue  # fetched before it was taken away
            key = message.key()
            records.append(
                Record(topic, number, offset, message.timestamp()[1], _decoded(key), message.value() or b"")
            )
            positions[topic, number] = offset + 1
        return records, partial(self._ack, positions)

    def _fetch(self, most: int, wait: float) -> list[Any]:
        found: list[Any] = self._client.consume(most, timeout=wait)
        return found

    async def seek(self, positions: Positions) -> None:
        for one, offset in positions.items():
            if one in self._assigned:
                try:
                    place = TopicPartition(self._bus.full(one[0]), one[1], offset)
                    await self._do(partial(self._client.seek, place))
                except KafkaException as error:
                    raise self._bus.unavailable(error) from None

    async def _ack(self, positions: dict[Partition, int]) -> None:
        """What the group has done, for showing its lag; a failure is made good by the next one."""
        if self._group is None or not positions:
            return
        offsets = [
            TopicPartition(self._bus.full(one[0]), one[1], at)
            for one, at in positions.items()
            if one in self._assigned
        ]
        if not offsets:
            return
        # With a listener the store has the positions, and this is for show: nobody waits for it.
        waits = self._listener is None
        try:
            await self._do(partial(self._client.commit, offsets=offsets, asynchronous=not waits))
        except KafkaException as error:
            if waits:
                raise self._bus.unavailable(error) from None

    async def _do(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)

    # ── called by `consume`, in the thread ──────────────────────────────────────

    def _on_assign(self, client: Any, partitions: list[TopicPartition]) -> None:
        names = [(self._bus.short(one.topic), one.partition) for one in partitions]
        given = self._ask(self._listener.on_assigned(names)) if self._listener is not None else {}
        for one, name in zip(partitions, names, strict=True):
            if name in given:
                one.offset = given[name]
            elif self._listener is not None:  # it has no effect of it yet
                one.offset = OFFSET_BEGINNING
        client.assign(partitions)
        self._assigned = frozenset(names)

    def _on_revoke(self, client: Any, partitions: list[TopicPartition]) -> None:
        names = [(self._bus.short(one.topic), one.partition) for one in partitions]
        self._assigned -= frozenset(names)
        if self._listener is not None:
            self._ask(self._listener.on_revoked(names))
        client.unassign()

    def _ask(self, asked: Awaitable[Any]) -> Any:
        async def ask() -> Any:
            return await asked

        try:
            return asyncio.run_coroutine_threadsafe(ask(), self._loop).result() or {}
        except BaseException as error:  # noqa: BLE001  raised by the read
            self._problem = error
            return {}


def _decoded(key: bytes | str | None) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key or ""


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _text(error: KafkaException) -> str:
    return str(error.args[0].str())
