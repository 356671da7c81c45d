"""Secrets that are made at the first start, and kept in a file beside an SQLite store."""

import os
from collections.abc import Callable
from pathlib import Path

from yelpaze.model.errors import InputError


def kept_in(path: str, make: Callable[[], str], what: str) -> tuple[str, bool]:
    """The secret in that file, and whether it was made now; only the owner may read the file.

    Raises InputError if it cannot be read or made.
    """
    file = Path(path)
    try:
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return file.read_text().strip(), False
        text = make()
        with os.fdopen(handle, "w") as out:
            out.write(f"{text}\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}: {what} is kept there") from None
    return text, True
