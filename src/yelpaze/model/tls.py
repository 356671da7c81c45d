"""TLS settings of an engine, or of one request."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from yelpaze.model.errors import MisuseError
from yelpaze.model.secrets import HIDDEN, repr_of

_GROUPS = re.compile(r"[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)*")
_PATHS = (str, os.PathLike)


class Tls(msgspec.Struct, frozen=True):
    """Which certificates are trusted, and the client's own certificate.

    Attributes:
        ca_file: PEM bundle of authorities to trust, instead of the system's.
        client_cert: PEM file with certificate and key, or (certificate, key[, password]).
        verify: False accepts any certificate.
        groups: Key exchange groups in order of preference, as OpenSSL lists them: `X25519:prime256v1`. A
            share is sent for the first one only. None is OpenSSL's own list.

    Raises MisuseError for files that cannot be read or are not what they should be.

    >>> Tls(verify=False)
    Tls(ca_file=None, client_cert=None, verify=False, groups=None)

    """

    ca_file: str | None = None
    client_cert: str | tuple[str | None, ...] | None = None
    verify: bool = True
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.ca_file is not None:
            msgspec.structs.force_setattr(self, "ca_file", _readable("ca_file", self.ca_file))
        if self.client_cert is not None:
            msgspec.structs.force_setattr(self, "client_cert", _certificate(self.client_cert))
        if not isinstance(self.verify, bool):
            raise MisuseError(f"verify takes True or False: {self.verify!r}")
        if self.groups is not None and not (isinstance(self.groups, str) and _GROUPS.fullmatch(self.groups)):
            raise MisuseError(f"groups takes names separated by colons, such as X25519: {self.groups!r}")
        if self.ca_file is not None or self.client_cert is not None:
            _check(self.ca_file, self.certificate)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        hidden = None
        if self.certificate is not None:
            certificate, key, password = self.certificate
            hidden = (certificate, key, password and HIDDEN)
        fields = [("ca_file", self.ca_file), ("client_cert", hidden), ("verify", self.verify)]
        return [*fields, ("groups", self.groups)]

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def certificate(self) -> tuple[str, str | None, str | None] | None:
        """Certificate, key and password of the client, if it has one."""
        if self.client_cert is None:
            return None
        # Plain text by now, or a tuple of it.
        given: Any = (self.client_cert,) if isinstance(self.client_cert, str) else self.client_cert
        certificate, key, password = (*given, None, None)[:3]
        return certificate, key, password


def _readable(name: str, path: object) -> str:
    if not isinstance(path, _PATHS):
        raise MisuseError(f"{name} takes the path of a PEM file, not {type(path).__name__}")
    text = os.fspath(path)
    if not Path(text).is_file() or not os.access(text, os.R_OK):
        raise MisuseError(f"{name} {text!r} cannot be read")
    return str(text)


def _certificate(given: object) -> str | tuple[str | None, ...]:
    if isinstance(given, _PATHS):
        return _readable("client_cert", given)
    if not isinstance(given, tuple | list) or not 1 <= len(given) <= 3 or given[0] is None:  # noqa: PLR2004
        raise MisuseError("client_cert takes a PEM file, or (certificate, key, password)")
    paths = [None if path is None else _readable("client_cert", path) for path in given[:2]]
    password = given[2] if len(given) == 3 else None  # noqa: PLR2004
    if not isinstance(password, str | None):
        raise MisuseError(f"client_cert takes a password as text, not {type(password).__name__}")
    return (*paths, password) if password is not None else tuple(paths)


def _check(
    ca_file: str | os.PathLike[str] | None, certificate: tuple[str, str | None, str | None] | None
) -> None:
    """Let OpenSSL read the files: what it cannot use now, it cannot use later."""
    import ssl  # noqa: PLC0415  only where there are files

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise MisuseError(f"ca_file {ca_file!r} holds no certificates: {error.reason or error}") from None
    if certificate is not None:
        path, key, password = certificate
        try:
            context.load_cert_chain(path, key, password=lambda: password or "")
        except ssl.SSLError as error:
            why = (
                "the key is not that of the certificate"
                if "MISMATCH" in str(error)
                else error.reason or error
            )
            raise MisuseError(f"client_cert {path!r} cannot be used: {why}") from None
