"""The outcomes file, and what a former call has completed (`--resume`)."""

import errno
import io
import os
from array import array
from bisect import bisect_left
from hashlib import blake2b

import msgspec

from yelpaze.fetch.items import Item
from yelpaze.fetch.record import Record
from yelpaze.model.errors import InputError
from yelpaze.model.json_text import decode_json, encode_json


class Outcomes:
    """Appends records; with `resume` the file of a former call is continued. Raises InputError."""

    def __init__(self, path: str, *, resume: bool, clobber: bool) -> None:
        self.path = path
        self._done: array[int] = array("Q")
        self._paths: array[int] = array("Q")
        exists = os.path.lexists(path)
        if exists and not (resume or clobber):
            raise InputError(f"{path}: exists; --resume goes on with it, --clobber replaces it")
        try:
            whole = self._read() if exists and resume else 0
            # A line is written at once: after a crash the files are not ahead of it by more than one.
            self._file = io.FileIO(path, "r+" if exists and resume else "w")
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def _read(self) -> int:
        """Learn what was completed, and into which files; where the last whole line ends."""
        whole = 0
        done, paths = set(), set()
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    record = decode_json(line, Record)
                except msgspec.DecodeError as error:
                    raise InputError(
                        f"{self.path}, line {number}: is no outcome of a fetch: {error}"
                    ) from None
                if record.ok and (record.path is None or os.path.lexists(record.path)):
                    done.add(int(record.key or "0", 16))
                if record.ok and record.path is not None:
                    paths.add(_digest(record.path))
        self._done, self._paths = array("Q", sorted(done)), array("Q", sorted(paths))
        return whole

    def has(self, item: Item) -> bool:
        """Whether a former call has completed that request, into that file."""
        return _has(self._done, int(key_of(item), 16))

    def knows(self, path: str) -> bool:
        """Whether a former call has written that file, for whatever request."""
        return _has(self._paths, _digest(path))

    def add(self, record: Record) -> None:
        """Append one. Raises OSError, and then the file ends as before."""
        line = encode_json(record) + b"\n"
        before = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
        except OSError:
            self._file.truncate(before)
            self._file.seek(before)
            raise

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def key_of(item: Item) -> str:
    """16 hex digits by which the same request for the same file is known again."""
    request = item.request
    asked = () if request is None else (request.method, request.url, request.headers, request.body)
    return blake2b(repr((asked, item.path)).encode(), digest_size=8).hexdigest()


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(os.fsencode(text), digest_size=8).digest())


def _has(digests: "array[int]", digest: int) -> bool:
    at = bisect_left(digests, digest)
    return at < len(digests) and digests[at] == digest
