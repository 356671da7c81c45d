"""A TCP proxy before a real server, told by a test how to misbehave."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "refuse", "reset", "stall"]
_RST = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: closing sends RST
_CHUNK = 65536


class Toxic:
    """Passes bytes to `port` until told otherwise.

    - `mode`: "refuse" closes the port and what is connected, "reset" accepts and sends RST,
      "stall" accepts, reads and never answers; who was connected when it began gets no answer
      any more either. Set it by `await turn(mode)`.
    - `delay(number)`: seconds before connection `number` (from 1) is passed on.
    - `cut(number)`: how many bytes of the server's that connection gets before it is closed, or
      None for all.
    - `tls_port`: where connections go that begin with a TLS handshake.
    """

    def __init__(
        self,
        port: int,
        *,
        delay: Callable[[int], float] = lambda _: 0.0,
        cut: Callable[[int], int | None] = lambda _: None,
        tls_port: int | None = None,
    ) -> None:
        self._upstream = port
        self._tls_upstream = tls_port
        self._delay = delay
        self._cut = cut
        self._mode: Mode = "pass"
        self._server: asyncio.Server | None = None
        self._holder: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.stalled = 0  # requests that have been read and will not be answered
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def turn(self, mode: Mode) -> None:
        self._mode = mode
        if mode in ("refuse", "reset"):
            for writer in list(self._clients):
                _reset(writer)
        if mode == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            self._holder = socket.socket()  # bound and not listening: refuses, and keeps the port ours
            self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._holder.bind(("127.0.0.1", self.port))
        elif mode != "refuse" and self._server is None:
            self._release()
            await self.start()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._release()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _release(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(writer)
        try:
            if self._mode == "reset":
                _reset(writer)
            else:
                await self._between(number, reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            self._clients.discard(writer)
            writer.close()

    async def _between(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(_CHUNK)
        if self._mode == "stall":
            await self._swallow(reader)
            return
        if seconds := self._delay(number):
            await asyncio.sleep(seconds)
        tls = self._tls_upstream is not None and first.startswith(b"\x16")
        answers, server = await asyncio.open_connection(
            "127.0.0.1", self._tls_upstream if tls else self._upstream
        )
        back = asyncio.create_task(self._back(answers, writer, self._cut(number)))
        try:
            while first:
                server.write(first)
                await server.drain()
                first = await reader.read(_CHUNK)
                if first and self._mode == "stall":
                    await self._swallow(reader)
                    return
        finally:
            server.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _back(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None
    ) -> None:
        with suppress(ConnectionError):
            while data := await answers.read(_CHUNK if left is None else min(left, _CHUNK)):
                if self._mode == "stall":
                    return
                writer.write(data)
                await writer.drain()
                if left is not None:
                    left -= len(data)
                    if not left:
                        break
        writer.close()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        self.stalled += 1
        while await reader.read(_CHUNK):
            pass


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    writer.transport.abort()
