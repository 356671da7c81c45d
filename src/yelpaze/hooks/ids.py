"""Ids that sort by time: ULIDs (github.com/ulid/spec) with a prefix for what they name, in lower case."""

import random
from collections.abc import Callable

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_SHIFTS = range(120, -10, -10)  # of 13 pairs of digits
_RANDOM_BITS = 80


def _encoded(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def id_at(prefix: str, milliseconds: int) -> str:
    """The smallest id of that time, to compare others with.

    >>> id_at("msg", 0)
    'msg_00000000000000000000000000'
    """
    return f"{prefix}_{_encoded(max(0, milliseconds) << _RANDOM_BITS)}"


class Ids:
    """Makes ids; those of one process sort in the order in which they were made.

    Args:
        now: Milliseconds since 1970.
        rng: The source of random bits.

    """

    def __init__(self, now: Callable[[], int], rng: random.Random) -> None:
        self._now = now
        self._rng = rng
        self._last = 0

    def new(self, prefix: str) -> str:
        """Return the next one."""
        number = self._now() << _RANDOM_BITS | self._rng.getrandbits(_RANDOM_BITS)
        if number <= self._last or number >> _RANDOM_BITS == self._last >> _RANDOM_BITS:
            number = self._last + 1 + self._rng.getrandbits(32)
        self._last = number
        return f"{prefix}_{_encoded(number)}"
