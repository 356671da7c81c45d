"""Kept connections that must not be used again.

A byte that arrives on an idle connection belongs to no request (RFC 9112 §9.2): a late 408, a second
answer. Its end may have arrived, too. libcurl looks for either only on a connection that has been idle for
a second; before, it would send the next request there, and take the stray bytes for its answer. So the
transport notes such connections, and checks for a while which connection a transfer is given.

HTTP/2 is different: its frames may arrive at any time, so only the connection's end counts.
"""

import socket

_UNCHECKED = 1.1  # seconds after which libcurl looks itself, and a little more
_TCP_ESTABLISHED = 1  # in Linux's tcp_info.tcpi_state, its first byte

Address = tuple[str, int]


class StaleConnections:
    """Which connections have been found readable while idle.

    `found`: by their local address, until when they are checked, and whether they have ended.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: dict[Address, tuple[float, bool]] = {}

    def add(self, fd: int, now: float) -> None:
        """Something has arrived on the idle connection `fd`."""
        try:
            with socket.socket(fileno=socket.dup(fd)) as connection:
                host, port, *_ = connection.getsockname()
                self.found[host, port] = (now + _UNCHECKED, _has_ended(connection))
        except (OSError, ValueError):  # closed since
            return

    def take(self, local: Address, *, http2: bool) -> bool:
        """Whether a transfer that was given this connection must not use it; it is closed then."""
        _, has_ended = self.found.get(local, (0.0, False))
        if local not in self.found or (http2 and not has_ended):
            return False
        if not http2:  # libcurl keeps an HTTP/2 connection for the other transfers that it carries
            del self.found[local]
        return True

    def forget_old(self, now: float) -> None:
        """Leave to libcurl what it checks itself by now."""
        self.found = {local: found for local, found in self.found.items() if found[0] > now}


def _has_ended(connection: socket.socket) -> bool:
    """Whether the peer's FIN or RST has arrived, even behind bytes that nobody has read."""
    tcp_info: int | None = getattr(socket, "TCP_INFO", None)
    if tcp_info is not None:
        return connection.getsockopt(socket.IPPROTO_TCP, tcp_info, 1)[0] != _TCP_ESTABLISHED
    return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
