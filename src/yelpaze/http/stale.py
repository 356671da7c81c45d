"""Kept connections that must not be used again.

A byte that arrives on an idle connection belongs to no request (RFC 9112 §9.2): a late 408, a second
answer. Its end may have arrived, too. libcurl looks for either only on a connection that has been idle for
a second; before, it would send the next request there, and take the stray bytes for its answer. So the
transport notes such connections, and checks for a while which connection a transfer is given.

HTTP/2 is different: its frames may arrive at any time, so only the connection's end counts. libcurl keeps
such a connection for other transfers; it is shut down here, so that nothing can be sent on it any more.
"""

import socket
from typing import Final, NamedTuple

_UNCHECKED: Final = 1.1  # seconds after which libcurl looks itself, and a little more
_TCP_ESTABLISHED: Final = 1  # in Linux's tcp_info.tcpi_state, its first byte


class Ends(NamedTuple):
    """A connection, by the addresses and ports of its ends; the peer's are None where it has gone already."""

    local: tuple[str, int]
    remote: tuple[str, int] | None


class StaleConnections:
    """Which connections have been found readable while idle.

    `found`: until when they are checked, and their descriptors.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: dict[Ends, tuple[float, int]] = {}

    def add(self, fd: int, now: float) -> None:
        """Something has arrived on the idle connection `fd`."""
        ends = _ends_of(fd)
        if ends is not None:
            self.found[ends] = (now + _UNCHECKED, fd)

    def take(self, local: tuple[str, int], remote: tuple[str, int], *, http2: bool) -> bool:
        """Whether a transfer that was given this connection must not use it."""
        ends = next((ends for ends in (Ends(local, remote), Ends(local, None)) if ends in self.found), None)
        if ends is None:
            return False
        if not http2:  # it is closed when the transfer is broken off
            del self.found[ends]
            return True
        fd = self.found[ends][1]
        return _ends_of(fd) in (ends, Ends(local, None)) and _is_shut(fd)

    def forget_old(self, now: float) -> None:
        """Leave to libcurl what it checks itself by now."""
        self.found = {ends: found for ends, found in self.found.items() if found[0] > now}


def _ends_of(fd: int) -> Ends | None:
    """The ends of a connected socket; None for what is none, or no longer one."""
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        local = connection.getsockname()[:2]
        try:
            remote = connection.getpeername()[:2]
        except OSError:
            remote = None
        return Ends(local, remote) if len(local) == 2 else None  # noqa: PLR2004  a host and a port
    except OSError:
        return None
    finally:
        connection.detach()


def _is_shut(fd: int) -> bool:
    """Shut the connection down if the peer's FIN or RST has arrived, even behind bytes that none has read."""
    connection = socket.socket(fileno=fd)
    try:
        if not _has_ended(connection):
            return False
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return True  # it is no longer connected
    finally:
        connection.detach()
    return True


def _has_ended(connection: socket.socket) -> bool:
    tcp_info: int | None = getattr(socket, "TCP_INFO", None)
    if tcp_info is not None:
        return connection.getsockopt(socket.IPPROTO_TCP, tcp_info, 1)[0] != _TCP_ESTABLISHED
    return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
