"""`yelpaze live`: the gateway, in one process or in several that share its port."""

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec

from yelpaze.app.live_node import opened_node
from yelpaze.grpc.address import Address, reason_of
from yelpaze.live.config import Config
from yelpaze.live.core.statistics import Totals
from yelpaze.live.transports.server import Server, listening
from yelpaze.model.errors import InputError

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_SPARE = 100  # descriptors for what is no client
_SHORT_SECRET = 32  # RFC 7518, section 3.2, for HS256


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze live` was asked for, beside its settings."""

    config: Config
    processes: int = 1
    metrics: str | None = None


async def serve_live(options: LiveOptions, notes: Callable[[str], None]) -> None:
    """Serve until told to stop. Raises InputError, MisuseError, StoppedError."""
    if options.processes > 1:
        from yelpaze.app.live_processes import serve_processes  # noqa: PLC0415

        await serve_processes(options, notes)
        return
    config = options.config
    address = Address(config.http_server.address, config.http_server.port)
    try:
        sock = listening(address.host, address.port)
    except OSError as error:
        raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None
    collect_seldom()
    async with opened_node(config, notes) as node, Server(node, sock) as server:
        with measured(node.totals, options.metrics), stopping() as stop:
            for line in greeting(options, address.at(sock.getsockname()[1])):
                notes(line)
            await stop.wait()
            if not stop.is_urgent:
                notes(f"stopping: {len(node.peers)} clients are sent elsewhere; once more ends at once")
                await stop.unless_urgent(server.drain(config.shutdown.timeout))


def collect_seldom() -> None:
    """Have the collector come less often.

    Collections that look at each connection and find nothing cost more than the little that they free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextlib.contextmanager
def measured(totals: Callable[[], Totals], address: str | None) -> Iterator[None]:
    """Prometheus metrics, if they were asked for."""
    if address is None:
        yield
        return
    from yelpaze.app.observing import served_collector  # noqa: PLC0415
    from yelpaze.observe.live import LiveCollector  # noqa: PLC0415

    with served_collector(LiveCollector(totals), address):
        yield


class Stop:
    """That the end was asked for, once or more urgently."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._urged = asyncio.Event()

    def ask(self) -> None:
        """Once asks, twice urges."""
        (self._urged if self._asked.is_set() else self._asked).set()

    async def wait(self) -> None:
        """Until it is asked for."""
        await self._asked.wait()

    @property
    def is_urgent(self) -> bool:
        """Whether nothing more is waited for."""
        return self._urged.is_set()

    async def unless_urgent(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, unless it gets urgent."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        urged: asyncio.Task[Any] = asyncio.create_task(self._urged.wait())
        await asyncio.wait({task, urged}, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, urged):
            one.cancel()
        await asyncio.gather(task, urged, return_exceptions=True)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Hear SIGTERM and SIGINT."""
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # it ends already; once more must not cut that off


def greeting(options: LiveOptions, address: Address) -> list[str]:
    """What is said at the start: where it is, how much it can hold, and what is risky."""
    config, count = options.config, options.processes
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    processes = (
        f"{count} processes with {files:,} descriptors each" if count > 1 else f"{files:,} descriptors"
    )
    room = max(0, files - _SPARE) * count
    lines = [(f"live at http://{address.text}, {processes}: room for about {room:,} connections")]
    client, token = config.client, config.client.token
    keys = [
        token.hmac_secret_key,
        token.rsa_public_key,
        token.ecdsa_public_key,
        token.ed25519_public_key,
        token.jwks_public_endpoint,
    ]
    if client.insecure:
        lines.append("warning: client.insecure lets everybody connect, subscribe and publish")
    elif not any(keys) and not client.allow_anonymous_connect_without_token:
        lines.append(
            "warning: no client can connect: set client.token.hmac_secret_key, or --insecure to try it out"
        )
    if 0 < len(token.hmac_secret_key) < _SHORT_SECRET:
        lines.append(f"warning: client.token.hmac_secret_key is short: take {_SHORT_SECRET} bytes or more")
    if config.http_api.insecure and not config.http_api.disabled:
        lines.append("warning: http_api.insecure lets everybody who reaches this address publish")
    return lines
