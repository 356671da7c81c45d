"""Values as people write them in settings, each a type that a settings struct can use.

>>> import msgspec
>>> msgspec.convert("1h30m", Duration, dec_hook=from_text)
5400.0
"""

import re
from typing import Any, Self

import msgspec

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The base of settings structs: a section."""


class Duration(float):
    """Seconds, written as Go writes durations: `300s`, `5m`, `1h30m`, `500ms`, or as a number.

    >>> Duration.parse("1h30m")
    5400.0
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it. Raises ValueError."""
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return cls(text)
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"a duration is written 300s, 5m or 1h30m, not {text!r}")
        return cls(sum(float(number) * _SECONDS[unit] for number, unit in parts))


class Size(int):
    """Bytes, written `64M`, `1GiB`, or as a number; units are powers of 1,024.

    >>> Size.parse("64M")
    67108864
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it. Raises ValueError."""
        found = _SIZE.fullmatch(text)
        if found is None or not text.isascii():
            raise ValueError(f"a size is written 500000, 64M or 1G, not {text!r}")
        return cls(int(found[1]) * _BYTES[found[2].upper()])


class Secret(str):
    """A text that is never shown: its `repr` hides it. Whitespace around it is not part of it.

    A setting `key` of this type may also be given as `key_file`, the path of a file that holds it.

    >>> Secret("hunter2 ")
    Secret('***')
    """

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        return super().__new__(cls, text.strip())

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"


def from_text(kind: type, value: Any) -> Any:
    """Make a value of one of these types; the `dec_hook` of msgspec. Raises ValueError."""
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("takes text: put it into quotes")
        return Secret(value)
    if kind not in (Duration, Size):
        raise NotImplementedError
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        value = repr(value) if isinstance(value, bool) else type(value).__name__
    return kind.parse(str(value))
