"""Settings of the bus: its name, and how to reach the brokers."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from yelpaze.config.convert import Mistake
from yelpaze.config.loader import Schema
from yelpaze.config.values import Duration, Secret, Settings, Size


class BusTls(Settings, frozen=True):
    """TLS to the brokers: CA file, and the client's certificate and key, all PEM files."""

    enabled: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


class BusSasl(Settings, frozen=True):
    """SASL: `username` and `password`."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password: Secret = Secret()


class BusSpool(Settings, frozen=True):
    """Where records are kept while the brokers are away; `path` empty keeps none."""

    path: str = ""
    size: Size = Size(256 << 20)


class BusSettings(Settings, frozen=True):
    """`url`: an SQLite file, or `kafka://HOST:PORT[,HOST:PORT]`.

    `prefix`: of the names of topics and groups, where the brokers are shared.
    `replication`: copies of each topic that is made; `lease`: seconds after which the partitions of a
    killed member go to others (Kafka: session.timeout.ms).
    """

    url: str = ""
    prefix: str = ""
    replication: int = msgspec.field(default=1)
    lease: Duration = Duration(10)
    tls: BusTls = BusTls()
    sasl: BusSasl = BusSasl()
    spool: BusSpool = BusSpool()


def _check(settings: BusSettings) -> Iterator[Mistake]:
    if settings.replication < 1:
        yield Mistake("replication", "takes a number of copies, at least 1")
    if settings.lease < 1:
        yield Mistake("lease", "takes at least 1s")
    if settings.sasl.username and not settings.sasl.password:
        yield Mistake("sasl.password", "is missing")
    if bool(settings.tls.cert) != bool(settings.tls.key):
        yield Mistake("tls.key" if settings.tls.cert else "tls.cert", "is missing: cert and key go together")


BUS_SETTINGS = Schema("bus", BusSettings, _check)
