"""An ASGI application behind uvicorn, as a component of a part."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from yelpaze.grpc.address import Address, reason_of
from yelpaze.model.errors import InputError
from yelpaze.process.listening import BACKLOG, listening

REQUEST_SECONDS = 5


class WebServer:
    """Serves `app` on a listening socket; signals are left to the service."""

    def __init__(self, app: Any, sock: socket.socket) -> None:
        self._sock = sock
        self._serving: asyncio.Task[None] | None = None
        self._server = _Server(
            uvicorn.Config(
                _answering_head(app),
                http="httptools",
                loop="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=REQUEST_SECONDS,
            )
        )

    @property
    def is_serving(self) -> bool:
        """Whether it takes requests."""
        return self._server.started and self._serving is not None and not self._serving.done()

    async def start(self) -> None:
        """Begin to take requests."""
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110  uvicorn has no event
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Wait until it has ended."""
        assert self._serving is not None
        await asyncio.wait({self._serving})

    async def drain(self) -> None:
        """Take no more requests, and let those under way end."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=REQUEST_SECONDS + 1)

    async def close(self) -> None:
        """End at once."""
        self._server.should_exit = self._server.force_exit = True
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)


def _answering_head(app: Any) -> Any:
    """The application, in which HEAD is GET; uvicorn leaves the body out (RFC 9110, section 9.3.2)."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return asked


class _Server(uvicorn.Server):
    """Leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore signals: the service handles them."""


def listening_at(address: Address, port: int | None) -> socket.socket:
    """A listening socket. `port`: one that other processes share. Raises InputError."""
    if port is not None:
        return listening(address.host, port, shared=True)
    try:
        return listening(address.host, address.port)
    except OSError as error:
        raise InputError(f"--listen {address.text}: {reason_of(error, address)}") from None
