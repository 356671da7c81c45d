"""What a server is asked for, and what gRPC is told of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from yelpaze.model.errors import InputError, MisuseError

_LARGEST_MESSAGE = 2**31 - 1


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a server in many processes is run.

    Attributes:
        processes: How many processes serve.
        threads: Threads a process for servicers that are not async; None: servicers are async.
        max_concurrent: Calls that a process has under way or waiting at once, beyond which it refuses with
            RESOURCE_EXHAUSTED; None: no bound.
        grace: Seconds that calls under way have when a process is to stop, in threads also those whose
            client has gone.
        drain: Seconds between telling health checks NOT_SERVING and taking no more calls.
        max_calls, max_age, max_memory: A process is replaced after so many calls, seconds, bytes; its
            replacement is there first.
        max_connection_age: Seconds after which clients connect anew, so that they spread again. Calls under
            way are not cut.
        keepalive: Seconds without traffic after which a connection is asked whether it lives. Clients
            may ask every 10 seconds.
        max_message: Bytes of one message, in both directions.
        tls: Paths of the certificate chain and the key, PEM.
        client_ca: Path of the authorities whose clients are let in (mTLS).
        compression: `gzip` or `deflate` of answers, for clients that take it; None: none.
        interceptors: A function at the top level of a module; each process calls it for the list of its
            gRPC server interceptors, those of `grpc.aio` where servicers are async.
        reflection: Whether clients may ask for the services' descriptors.
        private_ports: The ports from which processes take their own; None: any.
        arguments: More of gRPC's channel arguments; they win.

    """

    processes: int = 1
    threads: int | None = None
    max_concurrent: int | None = None
    grace: float = 30.0
    drain: float = 0.5
    max_calls: int | None = None
    max_age: float | None = None
    max_memory: int | None = None
    max_connection_age: float = 300.0
    keepalive: float = 60.0
    max_message: int = 64 << 20
    tls: tuple[str, str] | None = None
    client_ca: str | None = None
    compression: Literal["gzip", "deflate"] | None = None
    interceptors: Callable[[], Sequence[Any]] | None = None
    reflection: bool = True
    private_ports: tuple[int, int] | None = None
    arguments: tuple[tuple[str, int | str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("processes", "threads", "max_concurrent", "max_calls", "max_memory", "max_message"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise MisuseError(f"{name} takes a whole number of at least 1: {value!r}")
        for name in ("grace", "drain"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise MisuseError(f"{name} takes seconds, 0 or more: {getattr(self, name)!r}")
        for name in ("max_age", "max_connection_age", "keepalive"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise MisuseError(f"{name} takes seconds, more than 0: {value!r}")
        ports = self.private_ports
        if ports is not None and ports[1] - ports[0] < self.processes:
            raise MisuseError(
                f"private_ports {ports[0]} to {ports[1]} are too few for {self.processes} processes: "
                "there must be more of them, since a replacement starts before the old one ends"
            )
        if self.max_message > _LARGEST_MESSAGE:
            raise MisuseError(f"max_message takes at most {_LARGEST_MESSAGE:,} bytes: {self.max_message:,}")
        self._check_functions()
        if self.client_ca is not None and self.tls is None:
            raise MisuseError("client_ca needs tls: a certificate and a key of the server's own")

    def _check_functions(self) -> None:
        if self.compression not in (None, "gzip", "deflate"):
            raise MisuseError(f'compression takes "gzip", "deflate" or None: {self.compression!r}')
        if self.interceptors is not None and not callable(self.interceptors):
            raise MisuseError("interceptors takes a function that makes them: each process calls it")


def server_arguments(options: Options) -> list[tuple[str, int | str]]:
    """The channel arguments of the server."""
    found: dict[str, int | str] = {
        "grpc.so_reuseport": 1,
        "grpc.max_send_message_length": options.max_message,
        "grpc.max_receive_message_length": options.max_message,
        "grpc.keepalive_time_ms": _milliseconds(options.keepalive),
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        # The client is told by GOAWAY, and connects anew for its next call. Those under way go on to their
        # end: grpc.max_connection_age_grace_ms is unlimited by default (gRFC A9).
        "grpc.max_connection_age_ms": _milliseconds(options.max_connection_age),
    }
    return list((found | dict(options.arguments)).items())


_LONGEST = 2**31 - 1


def _milliseconds(seconds: float) -> int:
    return _LONGEST if seconds * 1000 >= _LONGEST else max(1, int(seconds * 1000))


class Credentials(msgspec.Struct, frozen=True):
    """What TLS needs, read once."""

    key: bytes
    chain: bytes
    client_ca: bytes | None


def credentials_of(options: Options) -> Credentials | None:
    """Read and check the files. Raises InputError."""
    if options.tls is None:
        return None
    chain, key = options.tls
    check_pair(chain, key)
    return Credentials(
        read_pem(key), read_pem(chain), read_pem(options.client_ca) if options.client_ca else None
    )


def read_pem(path: str) -> bytes:
    """A PEM file. Raises InputError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if b"-----BEGIN" not in data:
        raise InputError(f"{path}: is not PEM: there is no -----BEGIN line in it")
    return data


def check_pair(chain: str, key: str) -> None:
    """Check that these are a certificate chain and its key. Raises InputError."""
    import ssl  # noqa: PLC0415  only with TLS

    read_pem(chain)
    read_pem(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chain, key, password=lambda: b"")
    except ssl.SSLError as error:
        if "MISMATCH" in str(error):
            raise InputError(f"{key}: is not the key of the certificate in {chain}") from None
        raise InputError(f"{chain}, {key}: cannot be used: {error.reason or error}") from None
