"""Where a server listens: `host:port`, `[ipv6]:port`, `:port` for every interface, `unix:path`."""

import errno
import os
import socket
import sys
from pathlib import Path

import msgspec

from yelpaze.model.errors import InputError

_PORTS = 65_535
_PRIVILEGED = 1024
_LONGEST_PATH = 98  # 104 on macOS, and processes add a number


class Address(msgspec.Struct, frozen=True):
    """A host and a port, or the path of a Unix socket.

    >>> Address.parse("localhost:50051")
    Address(host='localhost', port=50051, path='')
    >>> Address.parse("unix:/run/quotes.sock").text
    'unix:/run/quotes.sock'
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read it. Raises InputError."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                raise InputError(f"{text!r}: give the socket's path, as in unix:/run/quotes.sock")
            absolute = str(Path(path).absolute())
            if len(os.fsencode(absolute)) > _LONGEST_PATH:
                raise InputError(f"{text!r}: a socket's path has at most {_LONGEST_PATH} bytes: {absolute}")
            return cls(path=absolute)
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > _PORTS:
            raise InputError(f"{text!r} is no address: give host:port or unix:path")
        bare = host.removeprefix("[").removesuffix("]")
        if (":" in bare) != (host != bare) or "/" in host:
            raise InputError(f"{text!r} is no address: give host:port, or [address]:port for IPv6")
        try:
            bare.encode("idna")
        except UnicodeError:
            raise InputError(f"{text!r} is no address: {bare!r} is no host name") from None
        return cls(bare or "0.0.0.0", int(port))  # noqa: S104  asked for

    @property
    def text(self) -> str:
        """As gRPC takes it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def at(self, port: int) -> "Address":
        """Another port of the host."""
        return Address(self.host, port)

    def beside(self, number: int) -> "Address":
        """The path of one process, beside the path of all."""
        return Address(path=f"{self.path}.{number}")


class Held:
    """An address that is ours while this lives; `address.port` is the real one if 0 was asked for.

    A TCP port is bound but not listened on, so that nobody else takes it between two processes.
    Raises InputError: in use, not permitted, no such host.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        try:
            if address.path:
                _check_path(Path(address.path))
            else:
                self._hold()
        except OSError as error:
            raise InputError(f"{address.text}: {reason_of(error, address)}") from None

    def _hold(self) -> None:
        address = self.address
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, place = found[0][0], found[0][4]
        with socket.socket(family) as probe:  # alone, so that another server's port is noticed
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
        self._socket = socket.socket(family)
        # Connections of a server that has just ended keep its port for a minute, unless this is set, too.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((place[0], port, *place[2:]))
        self.address = address.at(port)

    def close(self) -> None:
        """Give it back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _check_path(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"unix:{path}: there is no folder {path.parent}")
    if path.exists() and not path.is_socket():
        raise InputError(f"unix:{path}: there is something else at that path: give another one")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # left by a server that was killed
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def reason_of(error: OSError, address: Address) -> str:
    """Why it can't be listened on, and what to do."""
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if error.errno == errno.EADDRINUSE:
        return "another server is listening there: give another address, or stop that one"
    if error.errno == errno.EACCES and 0 < address.port < _PRIVILEGED:
        return f"ports below {_PRIVILEGED} need more rights: give another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return f"cannot listen: {error.strerror or error}"


def can_share_ports() -> bool:
    """Whether the kernel spreads connections over processes that listen on one port."""
    return sys.platform == "linux"
