"""Messages from the bus: what other parts of the system have to deliver.

A record is a message as the API takes it, with the application that it is of (`app`). Its `eventId` makes it
one message, however often the record is read.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from yelpaze.bus.protocol import DAY, Bus, BusUnavailable, NewRecord, Record, Topic
from yelpaze.hooks.context import Access
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.values import MessageIn
from yelpaze.model.notice import Level, Notice, Report
from yelpaze.store.session import StoreUnavailable

TOPIC = "alarms"
_DEAD = "dead"
TOPICS = (Topic(TOPIC, 8, 7 * DAY), Topic(_DEAD, 1, 30 * DAY))
_GROUP = "hooks"
_AGAIN_SECONDS = 0.5
_KNOWN, _TOO_MANY = 409, 429


class BusMessage(MessageIn, frozen=True, kw_only=True):
    """A message, and its application."""

    app: str


_decode = msgspec.json.Decoder(BusMessage).decode


class Intake:
    """Takes messages from a topic of the bus into hooks, as one of a group."""

    def __init__(self, bus: Bus, hooks: Hooks, report: Report) -> None:
        self._bus = bus
        self._hooks = hooks
        self._report = report
        self.accepted = 0

    async def run(self) -> None:
        """Take in until cancelled. Raises StoppedError when hooks have ended."""
        is_away = False
        while True:
            try:
                async with self._bus.consume([TOPIC], _GROUP) as consumer:
                    while True:
                        records, ack = await consumer.read(500, 1.0)
                        is_away = False
                        await self._take(records)
                        if records:
                            await ack()
            except (BusUnavailable, StoreUnavailable) as error:
                if not is_away:
                    is_away = True
                    self._report(Notice("bus.unavailable", f"hooks: {error}; trying again", Level.WARNING))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _take(self, records: Sequence[Record]) -> None:
        # Those of one key one after the other, so that a newer one takes an older one's place.
        by_key: dict[str, list[Record]] = {}
        for record in records:
            by_key.setdefault(record.key, []).append(record)
        await asyncio.gather(*(self._in_order(group) for group in by_key.values()))

    async def _in_order(self, records: Sequence[Record]) -> None:
        for record in records:
            await self._give(record)

    async def _give(self, record: Record) -> None:
        try:
            message = _decode(record.value)
        except msgspec.DecodeError as error:
            await self._refuse(record, f"is no message: {error}")
            return
        while True:
            try:
                await self._hooks.accept(NewMessage(message.app, Access(), message))
            except HooksError as error:
                if error.status == _TOO_MANY:
                    await asyncio.sleep(error.retry_after or _AGAIN_SECONDS)
                    continue
                if error.status != _KNOWN:
                    await self._refuse(record, str(error))
            else:
                self.accepted += 1
            return

    async def _refuse(self, record: Record, why: str) -> None:
        where = f"{record.topic}/{record.partition} at {record.offset}"
        self._report(Notice("message.refused", f"{where}: {why}", Level.WARNING))
        dead = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "reason": why,
            "value": record.value[:4096].decode("utf-8", "replace"),
        }
        with contextlib.suppress(BusUnavailable):
            await self._bus.publish(_DEAD, [NewRecord(record.topic, msgspec.json.encode(dead))])
