"""Sockets for libcurl that an address guard has permitted."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pycurl

from yelpaze.http.handle import Handle
from yelpaze.policy.address_guard import AddressGuard


def guarded(guard: AddressGuard, handle: Handle) -> Callable[[int, Any], Any]:
    """Libcurl's open-socket callback: a socket, unless the guard refuses the address."""

    def open_socket(_purpose: int, address: Any) -> Any:
        family, kind, protocol, place = address
        why = guard.refusal(place[0])
        if why is not None:
            handle.blocked = why
            return pycurl.SOCKET_BAD
        try:
            lent = _LentDescriptor(socket.socket(family, kind, protocol).detach())
        except OSError:  # no IPv6 here, or no descriptors: libcurl goes on to the next address, or fails
            return pycurl.SOCKET_BAD
        handle.has_connected = True
        return lent

    return open_socket


class _LentDescriptor:
    """A descriptor that pycurl duplicates at once; ours is closed with the object."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)
