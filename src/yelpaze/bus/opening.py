"""Which backend a bus's name means."""

import msgspec

from yelpaze.bus.protocol import Bus
from yelpaze.bus.settings import BUS_SETTINGS, BusSettings
from yelpaze.bus.sqlite import SqliteBus
from yelpaze.model.errors import InputError
from yelpaze.model.extras import require
from yelpaze.model.notice import Report

_KAFKA = "kafka://"


def is_kafka(name: str) -> bool:
    """Whether that name means brokers."""
    return name.startswith(_KAFKA)


def open_bus(settings: BusSettings | str, report: Report = lambda _: None) -> Bus:
    """A bus by its settings, or its name alone. It is opened by `async with`. Raises InputError.

    >>> open_bus("bus.db").shown
    'bus.db'
    """
    if isinstance(settings, str):
        settings = BUS_SETTINGS.of({"url": settings})
    name = settings.url
    if is_kafka(name):
        require("kafka", "a bus in Kafka")
        from yelpaze.bus.kafka import KafkaBus  # noqa: PLC0415  an extra

        bus: Bus = KafkaBus(settings, report)
        if settings.spool.path:
            from yelpaze.bus.spool import SpoolingBus  # noqa: PLC0415

            return SpoolingBus(bus, settings.spool, report)
        return bus
    if not name or "://" in name:
        raise InputError(f"{name!r}: a bus is an SQLite file, or kafka://HOST:PORT[,HOST:PORT]")
    return SqliteBus(name, lease=settings.lease)


def with_url(settings: BusSettings, url: str | None, default: str) -> BusSettings:
    """The settings with that name, or the default where none is given."""
    return msgspec.structs.replace(settings, url=url or settings.url or default)
