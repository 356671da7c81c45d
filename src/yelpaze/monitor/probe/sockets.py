"""Checks of TCP, UDP, TLS and STARTTLS ports: a connection, and what a server says on it."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer
from yelpaze.monitor.probe.reply import Reply

_MOST_READ = 1024
_SMTP = b"EHLO yelpaze.invalid\r\n"
Resolve = Callable[[str], Awaitable[tuple[str, ...]]]


class CheckError(Exception):
    """A check has failed; `kind` is for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


async def check_socket(check: Check, resolve: Resolve) -> Reply:
    """Check a `tcp`, `udp`, `tls` or `starttls` URL."""
    options = check.options
    began = time.monotonic()
    times = [0.0, 0.0, 0.0, 0.0]
    host, port = address_of(check.url)
    ip = ""
    certificate: float | None = None
    body = b""
    try:
        async with asyncio.timeout(options.timeout):
            addresses = await resolve(host)
            times[0] = (time.monotonic() - began) * 1000
            for number, ip in enumerate(addresses, 1):
                try:
                    body, certificate = await _asked(check, host, ip, port, began, times)
                    break
                except OSError as error:
                    if number == len(addresses) or isinstance(error, ssl.SSLError):
                        raise
    except TimeoutError:
        fault = CheckError("timeout", f"no answer within {options.timeout:g} s")
    except CheckError as error:
        fault = error
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        fault = CheckError("tls", f"{check.url}: {reason}")
    except OSError as error:
        fault = _fault_of(error, check.url, is_connected=times[1] > 0 or not (error.strerror or str(error)))
    except ValueError:  # of a line without an end
        fault = CheckError("protocol", f"{check.url}: the server says more than a line may have")
    else:
        duration = (time.monotonic() - began) * 1000
        left = 0 if certificate is None else int((certificate - time.time()) * 1000)
        answer = Answer(ip=ip, body=body, response_time=int(duration), connected=True, certificate=left)
        return Reply(answer, "", "", duration, (times[0], times[1], times[2], times[3]), certificate)
    duration = (time.monotonic() - began) * 1000
    return Reply(Answer(ip=ip, response_time=int(duration)), fault.kind, str(fault), duration)


def address_of(url: str) -> tuple[str, int]:
    """Host and port of `scheme://host:port`."""
    host, _, port = url.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


def _fault_of(error: OSError, url: str, *, is_connected: bool) -> CheckError:
    if is_connected and url.startswith(("tls:", "starttls:")):
        return CheckError("tls", f"{url}: the server closed the connection in the TLS handshake")
    return CheckError("connect", f"{url}: {error.strerror or error or 'the server closed the connection'}")


async def _asked(
    check: Check, host: str, ip: str, port: int, began: float, times: list[float]
) -> tuple[bytes, float | None]:
    if check.options.kind == "udp":
        return await _udp(ip, port, check.options.body.encode()), None
    return await _stream(check, host, ip, port, began, times)


async def _stream(
    check: Check, host: str, ip: str, port: int, began: float, times: list[float]
) -> tuple[bytes, float | None]:
    options = check.options
    context = None
    if options.kind in ("tls", "starttls"):
        context = _context(options.ca_file, options.certificate, verify=options.verify)
    at_once = {"ssl": context, "server_hostname": host} if options.kind == "tls" else {}
    reader, writer = await asyncio.open_connection(ip, port, **at_once)  # type: ignore[arg-type]
    try:
        times[1] = (time.monotonic() - began) * 1000
        if options.kind == "starttls" and context is not None:
            await _start_tls(reader, writer, context, host)
        if context is not None:
            times[2] = (time.monotonic() - began) * 1000
        body = b""
        if options.body:
            writer.write(options.body.encode())
            await writer.drain()
            body = await reader.read(_MOST_READ)
        times[3] = (time.monotonic() - began) * 1000
        return body, _expiry(writer) if context is not None else None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@lru_cache(256)
def _context(ca_file: str, certificate: tuple[str, str] | None, *, verify: bool) -> ssl.SSLContext:
    """Reading the authorities takes 15 ms."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def _expiry(writer: asyncio.StreamWriter) -> float | None:
    """When the server's certificate expires."""
    certificate: Any = writer.get_extra_info("peercert")
    if certificate and "notAfter" in certificate:
        return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
    encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if encoded is None or find_spec("cryptography") is None:
        return None
    from cryptography import x509  # noqa: PLC0415  an extra; Python reads only what it has verified

    return x509.load_der_x509_certificate(encoded).not_valid_after_utc.timestamp()


async def _start_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, host: str
) -> None:
    """SMTP's STARTTLS (RFC 3207)."""
    for command, wanted in ((b"", b"220"), (_SMTP, b"250"), (b"STARTTLS\r\n", b"220")):
        if command:
            writer.write(command)
            await writer.drain()
        while True:
            line = await reader.readline()
            if not line.startswith(wanted):
                said = line.decode("latin-1").strip() or "nothing"
                raise CheckError("protocol", f"the server does not take STARTTLS: it said {said}")
            if line[3:4] != b"-":
                break
    await writer.start_tls(context, server_hostname=host)


class _Datagram(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _udp(ip: str, port: int, body: bytes) -> bytes:
    """Send a datagram and wait for one; without a body, only make the socket."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    transport, protocol = await loop.create_datagram_endpoint(
        _Datagram, remote_addr=(ip, port), family=family
    )
    try:
        if not body:
            return b""
        transport.sendto(body)
        return await protocol.answer
    finally:
        transport.close()
