"""ICMP echo without privileges: Linux allows it to groups in net.ipv4.ping_group_range (icmp(7))."""

import asyncio
import os
import socket
import struct
import time

from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer
from yelpaze.monitor.probe.reply import Reply
from yelpaze.monitor.probe.sockets import Resolve

_ECHO = {socket.AF_INET: 8, socket.AF_INET6: 128}
_NEXT = iter(range(1 << 62))


def is_allowed() -> bool:
    """Whether this process may open such a socket."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True


async def check_icmp(check: Check, resolve: Resolve) -> Reply:
    """Send an echo request, and wait for its reply."""
    options = check.options
    host = check.url.partition("://")[2].strip("[]")
    began = time.monotonic()
    ip, error, message = "", "", ""
    try:
        async with asyncio.timeout(options.timeout):
            addresses = await resolve(host)
            began = time.monotonic()
            for number, ip in enumerate(addresses, 1):
                try:
                    await _echo(ip)
                    break
                except OSError as fault:
                    if number == len(addresses) or isinstance(fault, PermissionError):
                        raise
    except TimeoutError:
        error, message = "timeout", f"no reply within {options.timeout:g} s"
    except PermissionError:
        error, message = "permission", "this process may not send ICMP: see net.ipv4.ping_group_range"
    except OSError as fault:
        error, message = "connect", f"{host}: {fault.strerror or fault}"
    duration = (time.monotonic() - began) * 1000
    return Reply(Answer(ip=ip, response_time=int(duration), connected=not error), error, message, duration)


async def _echo(ip: str) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as sock:
        sock.setblocking(False)
        number = next(_NEXT) & 0xFFFF
        token = os.urandom(16)
        head = struct.pack("!BBHHH", _ECHO[family], 0, 0, 0, number)  # the kernel fills in id and checksum
        await loop.sock_connect(sock, (ip, 0))
        await loop.sock_sendall(sock, head + token)
        while True:
            reply = await loop.sock_recv(sock, 1024)
            if reply[8:24] == token:
                return
