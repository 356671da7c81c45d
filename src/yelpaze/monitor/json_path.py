"""Paths into JSON as conditions write them: `.data.items[0].name`, `[0].name`.

Keys are separated by dots and are case-sensitive; an index is a number in brackets. There are no wildcards.
"""

import re
from typing import Any

import msgspec

_STEP = re.compile(r"\[(\d+)\]")
_KEY = re.compile(r"(?P<key>[^\[\]]*)(?P<steps>(?:\[\d+\])*)")
_EXPONENT = 21  # from which on numbers are written with one, as JavaScript does
MISSING = object()


def parse(path: str) -> tuple[str | int, ...] | None:
    """The steps of a path; None for what is none.

    >>> parse(".data.items[0].name")
    ('data', 'items', 0, 'name')
    >>> parse("[BODY]") is None
    True
    """
    steps: list[str | int] = []
    for part in path.removeprefix(".").split("."):
        found = _KEY.fullmatch(part)
        if found is None:
            return None
        if found["key"] or not found["steps"]:
            steps.append(found["key"])
        steps += [int(number) for number in _STEP.findall(found["steps"])]
    return tuple(steps)


def look_up(value: Any, steps: tuple[str | int, ...]) -> Any:
    """The value at the end of the steps, or MISSING; JSON's null is missing."""
    for step in steps:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
            value = value[step]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return MISSING
    return MISSING if value is None else value


def as_text(value: Any) -> str:  # noqa: PLR0911  one for each type
    """A JSON value as conditions compare it.

    >>> as_text(1234567), as_text(21.0), as_text(True), as_text([1, "b"]), as_text({"a": 1})
    ('1234567', '21', 'true', '[1 b]', '{"a":1}')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        is_whole = value.is_integer() and abs(value) < 10**_EXPONENT
        return str(int(value)) if is_whole else repr(value)
    if isinstance(value, list):
        return f"[{' '.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return msgspec.json.encode(value, order="sorted").decode()
    return str(value)


def length(value: Any) -> int:
    """Items of a list, or bytes of the text."""
    return len(value) if isinstance(value, list) else len(as_text(value).encode())
