"""Frames between parent and worker: a four-byte length, then a pickle.

Pickle is safe here and only here: both ends are one program on one private socket pair.
"""

import pickle
from collections.abc import Iterator
from struct import Struct
from typing import Any

_LENGTH = Struct("!I")
LENGTH_SIZE = _LENGTH.size


def encode(value: Any) -> bytes:
    """One frame. Raises what pickle raises for a value that cannot be pickled."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class Unreadable:
    """What stands for a value that cannot be unpickled: unpickling runs the code of its class."""

    def __init__(self, error: BaseException) -> None:
        self.why = f"{type(error).__name__}: {error}"


class Decoder:
    """Bytes in, values out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take what came; give every value that is complete."""
        buffer = self._buffer
        buffer += data
        at = 0
        view = memoryview(buffer)
        try:
            while len(buffer) - at >= LENGTH_SIZE:
                (size,) = _LENGTH.unpack_from(buffer, at)
                end = at + LENGTH_SIZE + size
                if end > len(buffer):
                    break
                try:
                    value = pickle.loads(view[at + LENGTH_SIZE : end])  # noqa: S301  our own worker
                except BaseException as error:  # noqa: BLE001  the others are still good
                    value = Unreadable(error)
                at = end
                yield value
        finally:
            view.release()
            del buffer[:at]
