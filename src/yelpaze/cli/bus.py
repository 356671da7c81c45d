"""`yelpaze bus`: look into the bus, as kcat does."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from yelpaze.bus.opening import is_kafka, open_bus, with_url
from yelpaze.bus.protocol import Bus, Partition, Positions, Record
from yelpaze.bus.settings import BUS_SETTINGS
from yelpaze.cli.exits import Exit
from yelpaze.cli.table import print_table
from yelpaze.config.loader import load
from yelpaze.config.values import Duration
from yelpaze.model.errors import InputError

_BUS = click.option(
    "--bus", metavar="FILE|URL", help="SQLite file or kafka://HOST:PORT[,…]. [default: bus.db]"
)


@click.group("bus")
def command() -> None:
    """Look into the bus: an SQLite file, or Kafka.

    How to reach brokers (SASL, TLS) comes from YELPAZE_BUS__SASL__USERNAME and so on.
    """


def _opened(name: str | None) -> Bus:
    settings = load(BUS_SETTINGS, None, {})
    settings = with_url(settings, name, "bus.db")
    bus = open_bus(msgspec.structs.replace(settings, spool=type(settings.spool)()))
    path = Path(settings.url)
    if not is_kafka(settings.url) and path.parent.exists() and not path.exists():
        raise InputError(f"{path}: there is no such bus")
    return bus


def _run(work: Coroutine[Any, Any, int]) -> int:
    return asyncio.run(work)


@command.command("topics")
@_BUS
def topics(bus: str | None) -> int:
    """List topics: partitions, and records that are kept."""

    async def work() -> int:
        async with _opened(bus) as opened:
            found = await opened.topics()
        rows = [[one.name, str(one.partitions), f"{one.records:,}"] for one in found]
        print_table([["TOPIC", "PARTITIONS", "RECORDS"], *rows])
        return Exit.OK

    return _run(work())


@command.command("lag")
@_BUS
@click.option("--partitions", is_flag=True, help="A line for each partition, not for each topic.")
def lag(bus: str | None, partitions: bool) -> int:
    """List how far each group is behind."""

    async def work() -> int:
        async with _opened(bus) as opened:
            found = await opened.lag()
        if partitions:
            rows = [
                [one.group, one.topic, str(one.partition), str(one.position), str(one.end), str(one.behind)]
                for one in found
            ]
            print_table([["GROUP", "TOPIC", "PARTITION", "POSITION", "END", "BEHIND"], *rows])
            return Exit.OK
        sums: dict[tuple[str, str], int] = {}
        for one in found:
            sums[one.group, one.topic] = sums.get((one.group, one.topic), 0) + one.behind
        print_table([["GROUP", "TOPIC", "BEHIND"], *([*key, f"{count:,}"] for key, count in sums.items())])
        return Exit.OK

    return _run(work())


@command.command("schema")
@click.argument("topic")
def schema(topic: str) -> int:
    """Print the JSON Schema of a topic's records; probe.LOCATION stands for all locations."""
    from yelpaze.monitor.records import OF_TOPIC  # noqa: PLC0415  other commands need none of it

    name = "probe.LOCATION" if topic.startswith("probe.") else topic
    if name not in OF_TOPIC:
        raise InputError(f"there is no schema of {topic}; there are {', '.join(OF_TOPIC)}")
    click.echo(
        msgspec.json.format(msgspec.json.encode(msgspec.json.schema(OF_TOPIC[name])), indent=2).decode()
    )
    return Exit.OK


class _Start:
    """Where to begin to read."""

    def __init__(self, offsets: Positions) -> None:
        self._offsets = offsets

    async def on_assigned(self, partitions: Sequence[Partition]) -> Positions:
        return {one: self._offsets[one] for one in partitions if one in self._offsets}

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Nothing is kept."""


@command.command("tail")
@click.argument("topic")
@_BUS
@click.option("--since", metavar="DURATION", help="Begin so long ago; 0: the oldest. [default: now]")
@click.option("-n", "count", metavar="N", type=click.IntRange(1), help="End after so many records.")
@click.option("--no-follow", is_flag=True, help="End when everything that is there was read.")
@click.option("--json", "as_json", is_flag=True, help="Records as JSON objects, with topic, offset and time.")
def tail(
    topic: str, bus: str | None, since: str | None, count: int | None, no_follow: bool, as_json: bool
) -> int:
    """Print the records of a topic as they come: its key, a tab, its value."""
    try:
        ago = None if since is None else Duration.parse(since)
    except ValueError as error:
        raise InputError(f"--since: {error}") from None

    async def work() -> int:
        async with _opened(bus) as opened:
            start = None
            if ago is not None:
                at = int((time.time() - ago) * 1000) if ago > 0 else 0
                start = _Start(await opened.offsets_at(topic, at))
            async with opened.consume([topic], None, start) as consumer:
                left = count
                while left is None or left > 0:
                    records, _ = await consumer.read(1000 if left is None else min(left, 1000), 1.0)
                    for record in records:
                        _print(record, as_json=as_json)
                    if left is not None:
                        left -= len(records)
                    if no_follow and not records:
                        break
        return Exit.OK

    return _run(work())


def _print(record: Record, *, as_json: bool) -> None:
    text = record.value.decode("utf-8", "replace")
    if as_json:
        value: Any = text
        if text.startswith(("{", "[")):
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError:
                value = text
        fields = msgspec.structs.asdict(record) | {"value": value}
        text = msgspec.json.encode(fields).decode()
    else:
        text = f"{record.key}\t{text}"
    click.echo(text)
    sys.stdout.flush()
