"""The outcomes file, and what a former call has completed (`--resume`)."""

import os
from array import array
from bisect import bisect_left
from hashlib import blake2b
from typing import BinaryIO

import msgspec

from yelpaze.fetch.record import Record
from yelpaze.model.errors import InputError
from yelpaze.model.request import Request

_BUFFER = 1 << 18


class Outcomes:
    """Appends records; with `resume` the file of a former call is continued. Raises InputError."""

    def __init__(self, path: str, *, resume: bool, clobber: bool) -> None:
        self.path = path
        exists = os.path.lexists(path)
        if exists and not (resume or clobber):
            raise InputError(f"{path}: exists; --resume goes on with it, --clobber replaces it")
        try:
            self._file: BinaryIO = open(path, "r+b" if exists and resume else "wb", _BUFFER)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        self._done = self._read() if exists and resume else array("Q")

    def _read(self) -> "array[int]":
        """The digests of what was completed; a last line that was cut short is cut off."""
        digests: array[int] = array("Q")
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                record = msgspec.json.decode(line, type=Record)
            except msgspec.DecodeError as error:
                raise InputError(f"{self.path}, line {number}: is no outcome of a fetch: {error}") from None
            if record.ok and (record.path is None or os.path.lexists(record.path)):
                digests.append(_digest(record.method, record.asked or record.url))
        self._file.seek(whole)
        self._file.truncate()
        return array("Q", sorted(digests))

    def has(self, request: Request) -> bool:
        """Whether a former call has completed that request."""
        digest = _digest(request.method, request.url)
        at = bisect_left(self._done, digest)
        return at < len(self._done) and self._done[at] == digest

    def add(self, record: Record) -> None:
        """Append one."""
        self._file.write(msgspec.json.encode(record) + b"\n")

    def flush(self) -> None:
        """Hand over to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def _digest(method: str, url: str) -> int:
    return int.from_bytes(blake2b(f"{method} {url}".encode(), digest_size=8).digest())
