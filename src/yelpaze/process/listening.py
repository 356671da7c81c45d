"""Sockets that listen."""

import socket

BACKLOG = 4096
_SEND_BUFFER = 64 << 10  # bytes in the kernel for a client that does not read; what is more is ours to bound


def listening(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens; with `shared`, beside others of the same address. Raises OSError."""
    family, kind, proto, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sock.bind(place)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
