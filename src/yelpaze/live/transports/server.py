"""A node that listens: sockets in, connections out, and an orderly end."""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Any, Self

from yelpaze.live.core.node import Node
from yelpaze.live.server_api.api import Api
from yelpaze.live.transports.http import HttpConnection
from yelpaze.process.listening import BACKLOG


class Server:
    """A node and its listening socket.

    >>> # async with Server(node, listening("127.0.0.1", 8000)): …
    """

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self._socket = sock
        self._server: asyncio.Server | Any = None

    async def __aenter__(self) -> Self:
        node = self.node
        await node.start()
        api = Api(node)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpConnection(node, api), sock=self._socket, backlog=BACKLOG
        )
        return self

    def stop_listening(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def drain(self, seconds: float) -> None:
        """Take no more connections, and send those that there are elsewhere."""
        self.stop_listening()
        for connection in list(self.node.clients.handshaking):
            connection.stop()
        await self.node.drain(seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_listening()
        for connection in list(self.node.clients.handshaking):
            connection.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await self.node.close()
