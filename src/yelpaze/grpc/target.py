"""How a client names a server, and how it trusts it. Without gRPC, so that options can be checked first."""

import msgspec

from yelpaze.grpc.address import Address
from yelpaze.model.errors import InputError


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """TLS as a client wants it: paths of PEM files.

    - `ca_file`: who may vouch for the server; None: the system's.
    - `client_cert`: the chain and the key, for servers that ask for one.
    """

    ca_file: str | None = None
    client_cert: tuple[str, str] | None = None


class Target(msgspec.Struct, frozen=True):
    """`grpc://host:port`, `grpcs://host:port` (TLS), `host:port` or `unix:path`.

    >>> Target.parse("grpcs://quotes.example:443")
    Target(address=Address(host='quotes.example', port=443, path=''), is_secure=True)
    """

    address: Address
    is_secure: bool = False

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read it. Raises InputError."""
        scheme, slashes, rest = text.partition("://")
        if not slashes:
            scheme, rest = "grpc", text
        if scheme == "unix":
            scheme, rest = "grpc", f"unix:{rest}"
        if scheme not in ("grpc", "grpcs") or rest.startswith(":"):
            raise InputError(f"{text!r} is no server: give grpc://host:port, grpcs://host:port or unix:path")
        return cls(Address.parse(rest.rstrip("/")), scheme == "grpcs")
