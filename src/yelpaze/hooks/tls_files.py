"""TLS settings of endpoints as files, since libcurl takes certificates by name."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from yelpaze.hooks.values import EndpointTls
from yelpaze.model.tls import Tls


class TlsFiles:
    """Files with what endpoints gave as text, in a private folder that ends with this."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def of(self, given: EndpointTls | None) -> Tls | None:
        """Settings for a request; None for the usual ones. Raises MisuseError for what is no certificate."""
        if given is None or given == EndpointTls():
            return None
        certificate = None
        if given.client_cert:
            key = self._file(given.client_key) if given.client_key else None
            certificate = (self._file(given.client_cert), key)
        return Tls(
            ca_file=self._file(given.ca) if given.ca else None,
            client_cert=certificate,
            verify=not given.insecure,
        )

    def _file(self, text: str) -> str:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="yelpaze-tls-"))
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.pem"
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
        return str(path)

    def close(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
