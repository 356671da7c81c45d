"""Fifty customers' endpoints on this machine, some of which are in trouble."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

from yelpaze.hooks.signing import VerificationError, verify

COUNT = 50
BUSY, BROKEN, SILENT, GONE = range(40, 45), range(45, 48), range(48, 49), range(49, 50)
_STATUS = {
    200: "OK",
    401: "Unauthorized",
    410: "Gone",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Customers:
    """An HTTP server with a path for each customer. `secrets` are their signing secrets."""

    def __init__(self) -> None:
        self.secrets: dict[int, str] = {}
        self.arrived: dict[int, set[str]] = {number: set() for number in range(COUNT)}
        self.are_repaired = False
        self._tries = [0] * COUNT
        self._over = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._over.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers["Content-Length"]))
                status = await self._answer(int(first.split()[1].rpartition("/")[2]), headers, body)
                writer.write(f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, number: int, headers: dict[str, str], body: bytes) -> int:
        self._tries[number] += 1
        if not self.are_repaired:
            if number in BUSY and self._tries[number] == 1:
                return 503
            if number in BROKEN:
                return 500
            if number in SILENT:
                await self._over.wait()
            if number in GONE:
                return 410
        try:
            message_id = verify(self.secrets[number], headers, body, now=time.time)
        except VerificationError:
            return 401
        self.arrived[number].add(message_id)
        return 200

    def count(self, message_id: str) -> int:
        """How many have got that message."""
        return sum(message_id in got for got in self.arrived.values())


async def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until it is true, or so long."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.02)
