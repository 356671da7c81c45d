"""A site that can fail, a receiver of signed webhooks, and a mail server, on this machine."""

import asyncio
import json
import time
from email import message_from_bytes
from email.policy import default
from typing import Self

from yelpaze.hooks.signing import VerificationError, verify

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
_STATUS = {200: "OK", 401: "Unauthorized", 503: "Service Unavailable"}


class World:
    """What the monitor checks, and what it tells. `heard` has (channel, subject or title, text)."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.heard: list[tuple[str, str, str]] = []
        self.url = ""
        self.smtp_port = 0
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        web = await asyncio.start_server(self._web, "127.0.0.1", 0)
        mail = await asyncio.start_server(self._mail, "127.0.0.1", 0)
        self._servers = [web, mail]
        self.url = f"http://127.0.0.1:{web.sockets[0].getsockname()[1]}"
        self.smtp_port = mail.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    def environment(self) -> dict[str, str]:
        """The variables of monitor.yaml."""
        return {
            "SITE": self.url,
            "RECEIVER": self.url,
            "WEBHOOK_SECRET": SECRET,
            "SMTP_PORT": str(self.smtp_port),
        }

    async def _web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            method, path, _ = first.split()
            status, body = 200, b'{"status":"UP"}'
            if method == "POST":
                status, body = (
                    self._hook(headers, await reader.readexactly(int(headers["content-length"]))),
                    b"",
                )
            elif path[1:] in self.down:
                status, body = 503, b'{"status":"DOWN"}'
            head = f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _hook(self, headers: dict[str, str], body: bytes) -> int:
        try:
            verify(SECRET, headers, body, now=time.time)
        except VerificationError:
            return 401
        message = json.loads(body)
        self.heard.append(("webhook", message["title"], message["text"]))
        return 200

    async def _mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As much of SMTP as a mail needs (RFC 5321)."""
        writer.write(b"220 ready\r\n")
        try:
            while line := await reader.readline():
                command = line[:4].upper()
                if command == b"DATA":
                    writer.write(b"354 go on\r\n")
                    data = await reader.readuntil(b"\r\n.\r\n")
                    message = message_from_bytes(data[:-5], policy=default)
                    payload = message.get_payload(decode=True)
                    text = payload.decode() if isinstance(payload, bytes) else ""
                    self.heard.append(("e-mail", str(message["Subject"]), text))
                writer.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
                await writer.drain()
                if command == b"QUIT":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
