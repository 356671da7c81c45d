"""`Live`: the gateway inside a program of one's own."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from yelpaze.app.host_server import host_server, is_ending
from yelpaze.app.live_node import opened_node
from yelpaze.config.loader import load
from yelpaze.live.brokers.broker import BrokerUnavailable, Query
from yelpaze.live.core.cluster import ControlMessage
from yelpaze.live.core.node import Node
from yelpaze.live.core.tokens import check_keys
from yelpaze.live.protocol.codes import FORCE_DISCONNECT, Ending, Refused
from yelpaze.live.protocol.values import ClientInfo, History, Position, Publication, on_one_line, raw
from yelpaze.live.settings import LIVE, broker_setting
from yelpaze.live.transports.asgi import AsgiApp
from yelpaze.model.errors import MisuseError, StoppedError
from yelpaze.service.log import service_report

_LOOK_SECONDS = 0.2


class Live:
    """A gateway in an ASGI application, and the way to publish from its handlers.

    It starts when it is first used, in the loop that runs then, and ends with `close` (or `async with`), or
    with the server, if that runs `live.asgi()` alone. When uvicorn ends, open streams end at once, also in a
    thread: it would wait for them for ever.
    With a Redis broker all processes that use the same Redis are one gateway: what one publishes, the
    clients of all receive.

    Args:
        settings: A file such as `live.yaml`, or what stands in it:
            `{"client": {"token": {…}}, "channel": {…}}`. The environment (`YELPAZE_LIVE__…`) is laid
            over them.
        broker: `memory`, or `redis://host:port`.

    Raises:
        InputError: a setting is wrong.
        MisuseError: an extra is missing.

    >>> live = Live({"channel": {"without_namespace": {"allow_subscribe_for_anonymous": True}}})
    >>> async def shout():
    ...     async with live:
    ...         return await live.publish("news", {"title": "Hello"})
    >>> asyncio.run(shout())
    Position(offset=0, epoch='')

    """

    def __init__(
        self, settings: Mapping[str, Any] | str | Path | None = None, *, broker: str | None = None
    ) -> None:
        source = Path(settings) if isinstance(settings, str) else settings
        self._config = load(LIVE, source, broker_setting(broker, "broker") if broker is not None else {})
        check_keys(self._config)
        self._stack: contextlib.AsyncExitStack | None = None
        self._starting: asyncio.Future[Node] | None = None

    async def node(self) -> Node:
        """The running node; the first call starts it."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> Node:
        self._stack = contextlib.AsyncExitStack()
        try:
            node = await self._stack.enter_async_context(opened_node(self._config, service_report("live")))
            await node.start()
        except BaseException:
            self._starting = None
            raise
        self._stack.push_async_callback(node.close)
        server = host_server()
        if server is not None:
            leaving = asyncio.create_task(self._leave_with(server, node))
            self._stack.callback(leaving.cancel)
        return node

    async def _leave_with(self, server: Any, node: Node) -> None:
        """Send the clients elsewhere when the server ends: it tells us only when they are gone."""
        while not is_ending(server):  # noqa: ASYNC110  uvicorn tells it in no other way
            await asyncio.sleep(_LOOK_SECONDS)
        await node.drain(self._config.shutdown.timeout)

    async def close(self) -> None:
        """Send the clients elsewhere, and end."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            await asyncio.gather(starting, return_exceptions=True)
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()

    async def __aenter__(self) -> Self:
        await self.node()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def asgi(self) -> AsgiApp:
        """An ASGI application: `app.mount("/live", live.asgi())`."""
        return AsgiApp(self.node, self.close)

    async def publish(
        self, channel: str, data: Any, *, skip_history: bool = False, idempotency_key: str = ""
    ) -> Position:
        """Publish to all who listen to a channel.

        `data` is any value that msgspec writes as JSON. Gives its place in the channel's history, 0 without
        history. Raises MisuseError for a channel that cannot be, StoppedError if the broker is away.
        """
        node = await self.node()
        try:
            publication = Publication(on_one_line(raw(data)))
        except (TypeError, ValueError) as error:
            raise MisuseError(f"publish to {channel!r}: the data can't be written as JSON: {error}") from None
        with _Translated(channel):
            options = node.rules.options(channel)
            return await node.publish(
                channel, publication, options, skip_history=skip_history, idempotency_key=idempotency_key
            )

    async def history(self, channel: str, *, limit: int = -1) -> list[Any]:
        """The data of the last publications that are kept, oldest first."""
        node = await self.node()
        with _Translated(channel):
            options = node.rules.options(channel)
            found: History = await node.history(channel, Query(None, limit), options)
        return [msgspec.json.decode(one.data) for one in found.publications]

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who listens to a channel, by client."""
        node = await self.node()
        with _Translated(channel):
            return await node.broker.presence(channel)

    async def disconnect(self, user: str, *, ending: Ending = FORCE_DISCONNECT) -> None:
        """Close a user's connections, in all processes."""
        node = await self.node()
        with _Translated(""):
            await node.cluster.send(ControlMessage(do="disconnect", user=user, ending=ending))

    async def unsubscribe(self, user: str, channel: str) -> None:
        """Take a user out of a channel, in all processes."""
        node = await self.node()
        with _Translated(channel):
            await node.cluster.send(ControlMessage(do="unsubscribe", user=user, channel=channel))


class _Translated:
    """Turn what a node raises into errors for programs."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Refused):
            raise MisuseError(f"channel {self._channel!r}: {error.failure.message}") from None
        if isinstance(error, BrokerUnavailable):
            reason = f"the broker refuses: {error}" if str(error) else "the broker is away: try again later"
            raise StoppedError(reason) from None
