"""TLS settings of an engine, or of one request."""

import os

import msgspec

from yelpaze.model.errors import MisuseError


class Tls(msgspec.Struct, frozen=True):
    """Who is trusted, and who we are.

    Attributes:
        ca_file: PEM bundle of authorities to trust, instead of the system's.
        client_cert: PEM file with certificate and key, or (certificate, key[, password]).
        verify: False accepts any certificate.

    Raises MisuseError for files that cannot be read.

    >>> Tls(verify=False)
    Tls(ca_file=None, client_cert=None, verify=False)

    """

    ca_file: str | None = None
    client_cert: str | tuple[str | None, ...] | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if self.ca_file is not None:
            msgspec.structs.force_setattr(self, "ca_file", os.fspath(self.ca_file))
            if not os.access(self.ca_file, os.R_OK):
                raise MisuseError(f"ca_file {self.ca_file!r} cannot be read")
        if not isinstance(self.verify, bool):
            raise MisuseError(f"verify takes True or False: {self.verify!r}")
        certificate, key, _ = self.certificate or (None, None, None)
        for path in (certificate, key):
            if path is not None and not os.access(path, os.R_OK):
                raise MisuseError(f"client_cert {path!r} cannot be read")

    def __repr__(self) -> str:
        given = self.client_cert
        shown = given if isinstance(given, str | None) else (*given[:2], *("***" for _ in given[2:]))
        return f"Tls(ca_file={self.ca_file!r}, client_cert={shown!r}, verify={self.verify})"

    @property
    def certificate(self) -> tuple[str, str | None, str | None] | None:
        """Certificate, key and password of the client, if it has one."""
        given = self.client_cert
        if given is None:
            return None
        parts = (given,) if isinstance(given, str) else tuple(given)
        certificate, key, password = (*parts, None, None, None)[:3]
        if len(parts) > 3 or certificate is None:  # noqa: PLR2004
            raise MisuseError("client_cert takes a PEM file, or (certificate, key, password)")
        return certificate, key, password
